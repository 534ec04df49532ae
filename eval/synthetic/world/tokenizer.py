"""The tiny model's tokenizer: byte-level BPE in Qwen2's file format, one token for every word of the world.

Any text can be encoded; words the world does not know fall into pieces the model has never seen.
"""

from pathlib import Path

from tokenizers import Regex, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from tokenizers.trainers import BpeTrainer

from eval.instruments.models.random_checkpoint import SPECIAL_TOKENS, write_tokenizer_files
from eval.synthetic.world.events import COLORS, MOTIONS, SCENES, SHAPES
from eval.synthetic.world.questions import POST_PROMPT

WORD_PROMPT = "Answer the question using a single word or phrase."  # of training alone
PHRASES = (POST_PROMPT, WORD_PROMPT, "You are a helpful assistant.")  # whole sentences of every prompt: one token each
_SENTENCES = (
    "In which direction does the object move?",
    "Which object appears in the video?",
    "What is the color of the object moving standing?",
    "What is the shape of the object?",
    "How many different objects appear in the video?",
    "How many different scenes does the video show?",
    "Which object appears first last in the video?",
    "Which scene does the video show?",
    "Which object is shown only briefly?",
    "Where is the object? top left right bottom",
    "In which scene does the object appear?",
    "The answer is",
    "one two three four",
    "system\nuser\nassistant\n",
    "A.\nB.\nC.\nD.\nE.\n\n",
)
# the pattern by which Qwen2 cuts text into words
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _corpus() -> list[str]:
    words = [*COLORS, *SHAPES, *SCENES, *MOTIONS]
    # a word at the start of a line and one after a space are different tokens
    return [*_SENTENCES, *words, *(f"is {word}" for word in words)]


def write_tokenizer(path: Path) -> int:
    """Train the tokenizer and write it into a checkpoint's folder; returns the size of its vocabulary."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = Sequence(
        [Split(Regex(_WORDS), behavior="isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(vocab_size=4096, initial_alphabet=sorted(ByteLevel.alphabet()), show_progress=False)
    tokenizer.train_from_iterator(_corpus(), trainer)
    written = tokenizer.model.save(str(path))
    assert len(written) == 2
    vocabulary = tokenizer.get_vocab_size()
    write_tokenizer_files(path, vocabulary, PHRASES)
    return vocabulary + len(SPECIAL_TOKENS) + len(PHRASES)
