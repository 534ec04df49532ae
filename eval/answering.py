"""One question about one video, answered and measured with and without a compressor."""

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from eval.measure import interleaved, peak_memory, timed
from eval.paper_flops import paper_flops
from holitom import Compressor
from llava.conversation import conv_templates
from llava.mm_utils import tokenizer_image_token
from llava.model.language_model.llava_qwen import LlavaQwenForCausalLM
from llava.model.newlines import count_newlines
from llava.model.placement import compute_device
from llava.model.visual_inputs import VisualEncoder
from llava.video import VideoClip
from llava.video_prompt import video_question


@dataclass(frozen=True)
class Row:
    """What one configuration gave.

    Attributes:
        name: of the configuration.
        answer: greedy text, or why there is none.
        tokens: visual tokens of the video before compression, before the LLM, and behind the inner stage.
        tflops: prefill FLOPs of the LLM by the paper's formula, in 1e12.
        seconds_to_first_token: median over the repetitions, from pixel values to the first new token; None if not run.
        peak_memory_mb: of the longest run, in 1e6 bytes; None if not run.
    """

    name: str
    answer: str
    tokens: tuple[int, int, int]
    tflops: float
    seconds_to_first_token: float | None
    peak_memory_mb: float | None


def prompt_ids(tokenizer: Any, turn: str) -> Tensor:
    """A user's turn in the model's chat template, (1, text) int64 with -200 at the placeholders."""
    conversation = conv_templates["qwen_1_5"].copy()
    conversation.append_message(conversation.roles[0], turn)
    conversation.append_message(conversation.roles[1], None)
    ids = tokenizer_image_token(conversation.get_prompt(), tokenizer, return_tensors="pt")
    assert isinstance(ids, Tensor)
    return ids[None]


class Question:
    """One question about one clip, ready for a model."""

    def __init__(self, tokenizer: Any, model: LlavaQwenForCausalLM, clip: VideoClip, processor: Any, text: str) -> None:
        self.tokenizer, self.model = tokenizer, model
        ids = prompt_ids(tokenizer, video_question(text, clip, model.config))
        self.ids = ids.to(compute_device(model.get_model().embed_tokens))
        pixels = processor.preprocess(clip.frames, return_tensors="pt")["pixel_values"]
        self.pixels = pixels.to(model.get_vision_tower().device, model.dtype)
        encoder = VisualEncoder(model.get_model(), model.config, None)
        self.visual_tokens = len(pixels) * encoder.tokens_per_frame
        self.newlines = count_newlines(len(pixels), encoder.newline_mode, encoder.tokens_per_frame)

    @property
    def length(self) -> int:
        """Tokens of the uncompressed prompt: text, video and its newlines, in place of the placeholder."""
        return self.ids.shape[1] - 1 + self.visual_tokens + self.newlines

    def generate(self, new_tokens: int) -> Tensor:
        """Greedy new tokens, (1, at most new_tokens)."""
        return self.model.generate(
            self.ids,
            images=[self.pixels],
            modalities=["video"],
            max_new_tokens=new_tokens,
            do_sample=False,
            pad_token_id=self.tokenizer.pad_token_id,
        )


def tokens_per_layer(question: Question, compressor: Compressor | None) -> list[int]:
    """Visual tokens that each decoder layer computed for the question's latest prefill; newlines are not counted."""
    layers = question.model.config.num_hidden_layers
    return [question.visual_tokens] * layers if compressor is None else compressor.record.tokens_per_layer(layers)


@contextmanager
def applied(compressor: Compressor | None, model: LlavaQwenForCausalLM) -> Iterator[None]:
    """The model with a compressor, or as it is."""
    if compressor is None:
        yield
        return
    with compressor.applied(model):
        yield


def first_token_seconds(question: Question, compressors: Sequence[Compressor | None], repetitions: int) -> list[float]:
    """Median time to first token of each configuration; rounds are interleaved, the first one is warm-up."""

    def run(compressor: Compressor | None) -> float:
        with applied(compressor, question.model):
            return timed(lambda: question.generate(1))

    runs = {number: partial(run, compressor) for number, compressor in enumerate(compressors)}
    return [statistics.median(seconds) for seconds in interleaved(runs, repetitions).values()]


def row_without_run(question: Question, name: str, limit: int) -> Row:
    """What can be said of all tokens where they do not fit into the model."""
    count, config = question.visual_tokens, question.model.config
    flops = paper_flops([count] * config.num_hidden_layers, config.hidden_size, config.intermediate_size)
    why = f"not run: {question.length} tokens, the checkpoint was made for {limit}"
    return Row(name, why, (count, count, count), flops / 1e12, None, None)


def answer(question: Question, name: str, compressor: Compressor | None, seconds: float, options: Any) -> Row:
    """Answer with one configuration and count its tokens and FLOPs."""
    model = question.model
    with applied(compressor, model), peak_memory() as peak:
        new_tokens = question.generate(options.max_new_tokens)
    per_layer = tokens_per_layer(question, compressor)
    flops = paper_flops(per_layer, model.config.hidden_size, model.config.intermediate_size)
    text = question.tokenizer.batch_decode(new_tokens, skip_special_tokens=True)[0].strip()
    tokens = (question.visual_tokens, per_layer[0], per_layer[-1])
    return Row(name, text, tokens, flops / 1e12, seconds, peak.bytes / 1e6)
