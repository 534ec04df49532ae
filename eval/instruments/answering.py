"""One question about one video, answered and measured with and without a compressor."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from eval.instruments.measure import interleaved, peak_memory, timed
from eval.paper.formula import paper_flops
from holitom import Compressor
from holitom.hooks.decoder.rules import DecoderStage
from holitom.hooks.decoder.staged import StagedCompression
from llava.asking import VideoPrompt, prompt_ids

if TYPE_CHECKING:
    from llava.model.language_model.llava_qwen import LlavaQwenForCausalLM

__all__ = [
    "Trial",
    "VideoPrompt",
    "answer",
    "applied",
    "first_token_seconds",
    "inner_stages",
    "prompt_ids",
    "row_without_run",
    "tokens_per_layer",
]


@dataclass(frozen=True)
class Trial:
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


def tokens_per_layer(question: VideoPrompt, compressor: Compressor | None) -> list[int]:
    """Visual tokens that each decoder layer computed for the question's latest prefill; newlines are not counted."""
    layers = question.model.config.num_hidden_layers
    return [question.visual_tokens] * layers if compressor is None else compressor.record.tokens_per_layer(layers)


def inner_stages(compressor: Compressor | None, layers: int | None = None) -> tuple[DecoderStage, ...]:
    """The stages of a prefill inside the LLM, where they stand in a decoder of so many layers (the paper's 28)."""
    inner = None if compressor is None else compressor.inner
    if not isinstance(inner, StagedCompression):
        return ()
    place = inner.rules.place
    return inner.stages if layers is None or place is None else place(inner.stages, layers)


@contextmanager
def applied(compressor: Compressor | None, model: LlavaQwenForCausalLM) -> Iterator[None]:
    """The model with a compressor, or as it is."""
    if compressor is None:
        yield
        return
    with compressor.applied(model):
        yield


def first_token_seconds(
    question: VideoPrompt, compressors: Sequence[Compressor | None], repetitions: int
) -> list[float]:
    """Median time to first token of each configuration; rounds are interleaved, the first one is warm-up."""

    def run(compressor: Compressor | None) -> float:
        with applied(compressor, question.model):
            return timed(lambda: question.generate(1))

    runs = {number: partial(run, compressor) for number, compressor in enumerate(compressors)}
    return [statistics.median(seconds) for seconds in interleaved(runs, repetitions).values()]


def row_without_run(question: VideoPrompt, name: str, limit: int) -> Trial:
    """What can be said of all tokens where they do not fit into the model."""
    count, config = question.visual_tokens, question.model.config
    flops = paper_flops([count] * config.num_hidden_layers, config.hidden_size, config.intermediate_size)
    why = f"not run: {question.length} tokens, the checkpoint was made for {limit}"
    return Trial(name, why, (count, count, count), flops / 1e12, None, None)


def answer(question: VideoPrompt, name: str, compressor: Compressor | None, seconds: float, options: Any) -> Trial:
    """Answer with one configuration and count its tokens and FLOPs."""
    model = question.model
    with applied(compressor, model), peak_memory() as peak:
        text = question.text(options.max_new_tokens)
    per_layer = tokens_per_layer(question, compressor)
    flops = paper_flops(per_layer, model.config.hidden_size, model.config.intermediate_size)
    tokens = (question.visual_tokens, per_layer[0], per_layer[-1])
    return Trial(name, text, tokens, flops / 1e12, seconds, peak.bytes / 1e6)
