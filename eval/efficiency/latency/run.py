"""One prompt through a model, timed: the time to the first token and every later one, and the stages on the way."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from eval.efficiency.latency.clock import StageClock
from eval.instruments.measure import after_prefill, peak_memory, synchronize
from holitom import Compressor
from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import InputError
from llava.model.language_model.llava_qwen import LlavaQwenForCausalLM
from llava.model.newlines import count_newlines
from llava.model.visual_inputs import VisualEncoder

TEXT_BEFORE, TEXT_BEHIND = 14, 21  # tokens of the chat template and a short question, where there is no tokenizer
STAGES = ("tower", "signals", "projector", "outer", "prefill", "inner")


@dataclass(frozen=True)
class Prompt:
    """A question about one clip, on the device.

    Attributes:
        ids: (1, text) int64 with -200 at the video's place.
        pixels: (frames, 3, side, side) in the model's type.
        visual_tokens: of the whole video, newlines not counted.
        newlines: newline tokens of the whole video.
    """

    ids: Tensor
    pixels: Tensor
    visual_tokens: int
    newlines: int

    @property
    def length(self) -> int:
        """Tokens of the uncompressed prompt."""
        return self.ids.shape[1] - 1 + self.visual_tokens + self.newlines


def random_ids(vocabulary: int) -> Tensor:
    """Text around a video where there is no tokenizer, (1, text) int64; the same every time."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, min(vocabulary, 50000), (1, TEXT_BEFORE + 1 + TEXT_BEHIND), generator=generator)
    ids[0, TEXT_BEFORE] = IMAGE_TOKEN_INDEX
    return ids


def make_prompt(model: LlavaQwenForCausalLM, ids: Tensor, pixels: Tensor) -> Prompt:
    """A prompt from token ids and preprocessed frames."""
    encoder = VisualEncoder(model.get_model(), model.config, None)
    visual_tokens = len(pixels) * encoder.tokens_per_frame
    newlines = count_newlines(len(pixels), encoder.newline_mode, encoder.tokens_per_frame)
    return Prompt(ids.to(model.device), pixels, visual_tokens, newlines)


@dataclass(frozen=True)
class Timing:
    """One run.

    Attributes:
        first_token_ms: from pixel values on the device to the first new token on the host, measured as one piece.
        per_token_ms: mean over the later tokens; None if only one was asked for.
        stages_ms: by stage of :data:`STAGES`, measured in the same run; ``prefill`` holds ``inner``, the other stages
            are apart. A stage that a method does not have is absent.
        peak_memory_mb: highest memory of the run in 1e6 bytes; None where it was not asked for.
    """

    first_token_ms: float
    per_token_ms: float | None
    stages_ms: dict[str, float]
    peak_memory_mb: float | None


class _TokenTimes(StoppingCriteria):
    """Notes when each new token is there, and never stops."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        synchronize()
        self.times.append(time.perf_counter())
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


@contextmanager
def _stages_timed(model: LlavaQwenForCausalLM, compressor: Compressor, clock: StageClock) -> Iterator[None]:
    """Clocks on the seams between model and method; nothing is left behind."""
    compress_video, recording = compressor.compress_video, compressor.recording
    decoder = model.get_model()
    first = iter(("prefill",))  # later calls of the model are decode steps

    def timed_video(encode: Any, pool: Any, newline_mode: str) -> Any:
        return compress_video(clock.timed("projector", encode), pool, newline_mode)

    @contextmanager
    def timed_recording(videos: Sequence[int] | None = None) -> Iterator[None]:
        with recording(videos), clock.hooks_timed(model.get_vision_tower(), "signals"):
            yield

    with ExitStack() as stack:
        stack.enter_context(clock.hooks_timed(decoder, "inner"))
        stack.enter_context(clock.module_timed(model, lambda: next(first, "step")))
        stack.enter_context(clock.module_timed(model.get_vision_tower(), lambda: "tower"))
        compressor.compress_video = clock.timed("outer", timed_video)  # type: ignore[method-assign]
        compressor.recording = timed_recording  # type: ignore[method-assign]
        try:
            yield
        finally:
            del compressor.compress_video, compressor.recording


def _by_stage(spent: dict[tuple[str | None, str], float]) -> dict[str, float]:
    """Stages as :class:`Timing` names them."""
    found = {name: sum(ms for (_, other), ms in spent.items() if other == name) for name in STAGES}
    found["inner"] = spent.get(("prefill", "inner"), 0.0)
    found["prefill"] += found["inner"]
    present = {name for _, name in spent}
    if ("prefill", "inner") not in spent:
        present.discard("inner")
    return {name: ms for name, ms in found.items() if name in present}


def _answer(model: LlavaQwenForCausalLM, prompt: Prompt, new_tokens: int, **more: Any) -> Tensor:
    """(1, new_tokens): greedy, and no end of text before."""
    return model.generate(
        prompt.ids,
        images=[prompt.pixels],
        modalities=["video"],
        max_new_tokens=new_tokens,
        eos_token_id=None,
        do_sample=False,
        pad_token_id=0,
        **more,
    )


@torch.no_grad()
def run_once(
    model: LlavaQwenForCausalLM, prompt: Prompt, compressor: Compressor | None, new_tokens: int, memory: bool = False
) -> Timing:
    """Answer a prompt once.

    Args:
        model: without a compressor on it.
        prompt: what to answer.
        compressor: the method, or None.
        new_tokens: greedy tokens, no end of text before.
        memory: take the peak memory too.
    """
    tokens, clock = _TokenTimes(), StageClock(model.device)
    # without a method the slot holds one that keeps every token: the same seams to clock, and nothing done
    current = compressor or Compressor(None, None)
    with (
        current.applied(model),
        _stages_timed(model, current, clock),
        peak_memory() if memory else nullcontext() as peak,
    ):
        synchronize()
        start = time.perf_counter()
        made = _answer(model, prompt, new_tokens, stopping_criteria=StoppingCriteriaList([tokens]))
    assert made.shape[1] == len(tokens.times) == new_tokens
    stages = _by_stage(clock.milliseconds())
    if compressor is None or compressor.outer is None:
        stages.pop("outer")
    return Timing(
        first_token_ms=1e3 * (tokens.times[0] - start),
        per_token_ms=1e3 * (tokens.times[-1] - tokens.times[0]) / (new_tokens - 1) if new_tokens > 1 else None,
        stages_ms=stages,
        peak_memory_mb=None if peak is None else peak.bytes / 1e6,
    )


@torch.no_grad()
def decode_ms(
    model: LlavaQwenForCausalLM, prompt: Prompt, compressor: Compressor | None, new_tokens: int, decoding: str
) -> float:
    """Milliseconds per later token in another way of decoding, from the end of the prefill on.

    Args:
        model: without a compressor on it.
        prompt: what to answer.
        compressor: the method, or None.
        new_tokens: greedy tokens, at least 2.
        decoding: see ``LlavaQwenForCausalLM.generate``.

    Raises:
        InputError: if the method does not go with that way.
    """
    with nullcontext() if compressor is None else compressor.applied(model):
        seconds, made = after_prefill(model, lambda: _answer(model, prompt, new_tokens, decoding=decoding))
    assert made.shape[1] == new_tokens
    return 1e3 * seconds / (new_tokens - 1)


def token_counts(prompt: Prompt, compressor: Compressor | None, layers: int, name: str) -> dict[str, int | None]:
    """What the latest run of a method really computed, newlines not counted, and what its outer stage may keep.

    Raises:
        InputError: if a method left all tokens as they were.
    """
    whole = prompt.visual_tokens
    counts: dict[str, int | None] = {"prompt": prompt.length, "visual": whole}
    if compressor is None:
        return {**counts, "before_llm": whole, "inside_llm": whole, "budget": None}
    per_layer = compressor.record.tokens_per_layer(layers)
    if min(per_layer) >= whole:
        raise InputError(f"{name} compressed nothing: {min(per_layer)} of {whole} tokens are left; use another file")
    frames, outer = prompt.pixels.shape[0], compressor.outer
    budget = None if outer is None else outer.most_kept(frames, whole // frames)
    return {**counts, "before_llm": per_layer[0], "inside_llm": per_layer[-1], "budget": budget}
