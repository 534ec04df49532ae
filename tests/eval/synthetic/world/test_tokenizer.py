"""The tiny model's tokenizer: one token a word, frozen for ever."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from eval.synthetic.training.prompts import Prompts
from eval.synthetic.world.events import COLORS, MOTIONS, SCENES, SHAPES, sample_world
from eval.synthetic.world.questions import POST_PROMPT, Facts, candidates, with_options
from eval.synthetic.world.tokenizer import write_tokenizer
from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.conversation import conv_templates

VOCABULARY = 491
SHA256 = "0cddf87cf44cea79a82c053baebb85fec1aa60f22f64cf33f816affa96ffab70"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    assert write_tokenizer(path) == VOCABULARY
    return path


@pytest.fixture(scope="module")
def tokenizer(folder: Path):
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def questions():
    found = []
    for number in range(30):
        rng = np.random.default_rng([17, number])
        facts = Facts(sample_world(rng))
        found += [with_options(c, rng) for group in candidates(facts, rng).values() for c in group]
    return found


def test_files_never_change(folder: Path) -> None:
    """A checkpoint's embeddings are rows of this vocabulary: another order makes it speak nonsense."""
    content = (folder / "vocab.json").read_bytes() + (folder / "merges.txt").read_bytes()
    assert hashlib.sha256(content).hexdigest() == SHA256


def test_every_word_of_the_world_is_one_token(tokenizer) -> None:
    for word in (*COLORS, *SHAPES, *SCENES, *MOTIONS, *["two", "three", "four", "top", "bottom", "first", "last"]):
        assert len(tokenizer.encode(f" {word}")) == 1, word
    assert len(tokenizer.encode(" one")) == 3  # the exception: frozen with the rest, always these three
    for letter in "ABCD":
        assert len(tokenizer.encode(letter)) == 1
        assert len(tokenizer.encode(f"{letter}.")) == 2
    assert len(tokenizer.encode(POST_PROMPT)) == 1


def test_no_word_of_a_question_is_cut(tokenizer, questions) -> None:
    for question in questions:
        words = question.text.rstrip("?").split()
        assert len(tokenizer.encode(question.text)) == len(words) + 1, question.text


def test_pieces_of_training_are_the_whole_text_encoded(folder: Path, tokenizer, questions) -> None:
    prompts = Prompts(folder)
    for question in questions:
        template = conv_templates["qwen_1_5"].copy()
        template.append_message(template.roles[0], f"{DEFAULT_IMAGE_TOKEN}\n{question.prompt}")
        template.append_message(template.roles[1], None)
        before, after = template.get_prompt().split(DEFAULT_IMAGE_TOKEN)
        assert prompts.before == tokenizer.encode(before)
        assert prompts.letters(question)[0] == tokenizer.encode(after)


def test_any_text_comes_back(tokenizer, questions) -> None:
    for text in [*(question.prompt for question in questions), "Größe 42,5 µm — 猫 \U0001f408\n\ttab  two", "red", ""]:
        assert tokenizer.decode(tokenizer.encode(text)) == text
