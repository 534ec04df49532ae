"""One question about one video, answered and measured with and without a compressor."""

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from eval.measure import peak_memory, timed
from eval.paper_flops import paper_flops
from holitom import Compressor
from holitom.hooks.inner import InnerMerging
from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.conversation import conv_templates
from llava.mm_utils import tokenizer_image_token
from llava.model.language_model.llava_qwen import LlavaQwenForCausalLM
from llava.model.visual_inputs import VisualEncoder
from llava.video import VideoClip


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


class Question:
    """One question about one clip, ready for a model."""

    def __init__(self, tokenizer: Any, model: LlavaQwenForCausalLM, clip: VideoClip, processor: Any, text: str) -> None:
        self.tokenizer, self.model = tokenizer, model
        conversation = conv_templates["qwen_1_5"].copy()
        conversation.append_message(conversation.roles[0], f"{DEFAULT_IMAGE_TOKEN}\n{text}")
        conversation.append_message(conversation.roles[1], None)
        ids = tokenizer_image_token(conversation.get_prompt(), tokenizer, return_tensors="pt")
        assert isinstance(ids, Tensor)
        self.ids = ids[None].to(model.device)
        pixels = processor.preprocess(clip.frames, return_tensors="pt")["pixel_values"]
        self.pixels = pixels.to(model.device, model.dtype)
        self.visual_tokens = len(pixels) * VisualEncoder(model.get_model(), model.config, None).tokens_per_frame

    @property
    def length(self) -> int:
        """Tokens of the uncompressed prompt: text, video and one newline."""
        return self.ids.shape[1] + self.visual_tokens

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


def count_tokens(model: LlavaQwenForCausalLM, compressor: Compressor | None, before: int) -> tuple[list[int], int]:
    """Visual tokens per decoder layer, and those behind the inner stage; newlines are not counted."""
    layers = model.config.num_hidden_layers
    if compressor is None:
        return [before] * layers, before
    outer = compressor.record.tokens_after_outer[0]
    rows = compressor.record.rows_kept_inside()
    if rows is None or not isinstance(compressor.inner, InnerMerging):
        return [outer] * layers, outer
    inner, first = int(rows.sum()), compressor.inner.config.merge_layer
    return [outer] * first + [inner] * (layers - first), inner


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
    seconds: list[list[float]] = [[] for _ in compressors]
    for _ in range(repetitions + 1):
        for times, compressor in zip(seconds, compressors, strict=True):
            with applied(compressor, question.model):
                times.append(timed(lambda: question.generate(1)))
    return [statistics.median(times[1:]) for times in seconds]


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
    per_layer, last = count_tokens(model, compressor, question.visual_tokens)
    flops = paper_flops(per_layer, model.config.hidden_size, model.config.intermediate_size)
    text = question.tokenizer.batch_decode(new_tokens, skip_special_tokens=True)[0].strip()
    tokens = (question.visual_tokens, per_layer[0], last)
    return Row(name, text, tokens, flops / 1e12, seconds, peak.bytes / 1e6)
