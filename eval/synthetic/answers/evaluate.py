"""Answer questions about rendered clips with many methods, one forward pass each.

The first greedy token is the answer's letter. A clip goes through the vision tower once; every method then compresses
the same features, which are what it would have computed itself, and the language model runs for every question.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from eval.instruments.answering import applied, prompt_ids
from eval.paper.formula import paper_flops
from eval.synthetic.world.items import Item, letter_of
from eval.synthetic.world.selection import LETTERS
from holitom import Compressor
from holitom.encoded_video import FrameMerges
from holitom.families import find_family
from holitom.ops.selection import all_tokens
from holitom.tokens import CompressedTokens
from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.model.finite_logits import all_finite, require_finite_logits
from llava.model.placement import compute_device

if TYPE_CHECKING:
    from llava.model.language_model.llava_qwen import LlavaQwenForCausalLM
    from llava.model.visual_compressor import LayerPrompt


@dataclass(frozen=True)
class Answer:
    """What one method answered to one question.

    Attributes:
        id: of the question.
        family: its kind.
        clip: its video.
        answer: first greedy token; a letter, unless the model says something else.
        right: whether it is the right letter.
        before: visual tokens of the video.
        outer: those that reach the language model.
        inside: those that its last layer computes.
        flops: of the language model's prefill, by the paper's formula.
        seconds: of compression and language model, wall clock, without the tower, whose work is shared. It does not
            count when answers are compared.
        text: text tokens of the prompt.
        layers: visual tokens that each layer of the language model computes.
        tower: frames that each layer of the tower computes.
    """

    id: str
    family: str
    clip: str
    answer: str
    right: bool
    before: int
    outer: int
    inside: int
    flops: float
    seconds: float = field(compare=False)
    text: int = 0
    layers: list[int] = field(default_factory=list)
    tower: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Encoded:
    """One video behind the vision tower.

    Attributes:
        pixels: (frames, 3, side, side), preprocessed.
        features: (frames, tokens, dim), projected and pooled.
        signals: side signals of the tower by name, recorded in the same run.
    """

    pixels: Tensor
    features: Tensor
    signals: dict[str, Tensor]


class SharedVideo:
    """Stands in a model's slot in front of a compressor (or of none) and hands it a video that is encoded already.

    The model is used as it is; only the function that would encode the video is left alone.
    """

    def __init__(self, compressor: Compressor | None, video: Encoded) -> None:
        self.compressor, self.video = compressor, video
        self._own: tuple[Tensor, dict[str, Tensor], FrameMerges | None] | None = None

    @property
    def keeps_positions(self) -> bool:
        """See :class:`~llava.model.language_model.llava_qwen.VisualCompressor`."""
        return self.compressor is not None and self.compressor.keeps_positions

    def start_prompt(self) -> None:
        """Called by the model."""
        if self.compressor is not None:
            self.compressor.start_prompt()

    def compress_video(
        self, encode: Callable[[], Tensor], pool: Callable[[Tensor], Tensor], newline_mode: str
    ) -> CompressedTokens:
        """Called by the model: its compressor's tokens of the video."""
        if self.compressor is None:
            return all_tokens(self.video.features)
        if self.compressor.tower is not None:  # its features are its own
            features, signals, merges = self._merged(encode)
            return self.compressor.compress_features(features, signals, pool, newline_mode, merges)
        outer = self.compressor.outer
        signals = {name: self.video.signals[name] for name in (outer.signals if outer is not None else ())}
        return self.compressor.compress_features(self.video.features, signals, pool, newline_mode)

    def _merged(self, encode: Callable[[], Tensor]) -> tuple[Tensor, dict[str, Tensor], FrameMerges | None]:
        """What a method that merges frames inside the tower makes of the video, once for all questions about it."""
        assert self.compressor is not None
        if self._own is None:
            with self.compressor.recording():
                features = encode()
            merges = next(iter(self.compressor.take_merges()), None)
            self._own = features, self.compressor.take_signals(), merges
        return self._own

    def layer_prompts(self, cache: Any) -> Sequence[LayerPrompt | None] | None:
        """Called by the model before static decoding."""
        return None if self.compressor is None else self.compressor.layer_prompts(cache)

    def align_labels(self, labels: Tensor, seq: int) -> Tensor:
        """Called by the model in training only."""
        raise NotImplementedError("labels have no use here: SharedVideo answers questions")


class Answerer:
    """A loaded model that answers questions with one method after the other.

    Args:
        tokenizer, model, processor: as ``load_pretrained_model`` returns them.
        signals: names of the tower's side signals that any of the methods needs.
    """

    def __init__(
        self, tokenizer: Any, model: LlavaQwenForCausalLM, processor: Any, signals: Iterable[str] = ()
    ) -> None:
        self.tokenizer, self.model, self.processor = tokenizer, model, processor
        family = find_family(model)
        self._recorders = {name: family.recorder(model, name) for name in sorted(set(signals))}
        self._device = compute_device(model.get_model().embed_tokens)
        self._ids: dict[str, Tensor] = {}

    def close(self) -> None:
        """Leave the model as it was."""
        for recorder in self._recorders.values():
            recorder.remove()
        self._recorders = {}

    def encoded(self, frames: np.ndarray) -> Encoded:
        """A video, (frames, height, width, 3) uint8 RGB, behind the tower and ready to be asked about."""
        from llava.model.visual_inputs import VisualEncoder  # noqa: PLC0415

        model = self.model
        pixels = self.processor.preprocess(frames, return_tensors="pt")["pixel_values"]
        pixels = pixels.to(model.get_vision_tower().device, model.dtype)
        with ExitStack() as stack, torch.inference_mode():
            for recorder in self._recorders.values():
                stack.enter_context(recorder.recording())
            features = VisualEncoder(model.get_model(), model.config, None).encode_frames(pixels)
        return Encoded(pixels, features, {name: recorder.take() for name, recorder in self._recorders.items()})

    def answers(self, compressor: Compressor | None, video: Encoded, asked: Sequence[Item]) -> list[Answer]:
        """Answers of one method to the questions about one video."""
        shared = SharedVideo(compressor, video)
        with torch.inference_mode(), applied(compressor, self.model):
            before, self.model.visual_compressor = self.model.visual_compressor, shared
            try:
                return [self._answer(shared, item) for item in asked]
            finally:
                self.model.visual_compressor = before

    def _answer(self, shared: SharedVideo, item: Item) -> Answer:
        model, text, video = self.model, item.question.prompt, shared.video
        if text not in self._ids:
            self._ids[text] = prompt_ids(self.tokenizer, f"{DEFAULT_IMAGE_TOKEN}\n{text}").to(self._device)
        start = time.perf_counter()
        inputs: dict[str, Any] = {"images": [video.pixels], "modalities": ["video"]}
        logits = model(self._ids[text], use_cache=False, logits_to_keep=1, **inputs).logits[0, -1]
        token, sound = torch.stack([logits.argmax(), all_finite(logits).long()]).tolist()  # waits for the device
        require_finite_logits(bool(sound))
        seconds = time.perf_counter() - start
        layers, config, compressor = model.config.num_hidden_layers, model.config, shared.compressor
        before = video.features.shape[0] * video.features.shape[1]
        counts = [before] * layers if compressor is None else compressor.record.tokens_per_layer(layers)
        answer = self.tokenizer.decode([token]).strip()
        return Answer(
            id=item.identity,
            family=item.family,
            clip=str(item.clip.name),
            answer=answer,
            right=letter_of(answer) == LETTERS[item.question.answer],
            before=before,
            outer=counts[0],
            inside=counts[-1],
            flops=paper_flops(counts, config.hidden_size, config.intermediate_size),
            seconds=seconds,
            text=self._ids[text].shape[1] - 1,
            layers=counts,
            tower=self._tower_frames(shared),
        )

    def _tower_frames(self, shared: SharedVideo) -> list[int]:
        """Frames that each layer of the tower computed."""
        layers, compressor = len(self.model.get_vision_tower().gates), shared.compressor
        if compressor is None:
            return [len(shared.video.pixels)] * layers
        return compressor.record.frames_per_tower_layer(layers)


def needed_signals(compressors: Iterable[Compressor | None]) -> set[str]:
    """Side signals of the tower that any of the methods needs."""
    outer = [compressor.outer for compressor in compressors if compressor is not None]
    return {name for stage in outer if stage is not None for name in stage.signals}


def by_clip(asked: Iterable[Item]) -> list[tuple[str, list[Item]]]:
    """Questions grouped by their video, in the order given within a video."""
    ordered = sorted(asked, key=lambda item: str(item.clip))
    return [(clip, list(items)) for clip, items in groupby(ordered, key=lambda item: str(item.clip))]


def grey(frames: np.ndarray) -> np.ndarray:
    """A video of the same size that shows nothing: what is answered from the text alone."""
    return np.full_like(frames, 128)
