"""One compression method on one model: put on, take off, and see what it did."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from holitom.families import find_family
from holitom.hooks.inner import InnerRecord
from holitom.hooks.kept_positions import KeptPositions
from holitom.hooks.signals import RECORDERS
from holitom.tokens import CompressedTokens, EncodedVideo, Order, PlainDetails, TokenKind
from llava.model.newlines import newlines_before


class OuterStage(Protocol):
    """Compression of one video before the LLM.

    Attributes:
        signals: names of the tower's side signals the stage needs (see ``holitom.hooks.signals``).
        keeps_positions: kept tokens stay at their place in the uncompressed video, so that the LLM sees gaps;
            otherwise they are numbered without gaps.
    """

    signals: tuple[str, ...]
    keeps_positions: bool

    def __call__(self, video: EncodedVideo) -> CompressedTokens:
        """The tokens that reach the LLM."""

    def most_kept(self, frames: int, tokens_per_frame: int) -> int:
        """Most tokens that the stage's budget allows for a video of this size."""


class InnerStage(Protocol):
    """Compression inside the LLM."""

    last: InnerRecord | None

    def apply(self, decoder: nn.Module) -> Any: ...
    def remove(self) -> None: ...
    def align(self, labels: Tensor) -> Tensor: ...


@dataclass
class Record:
    """What the latest prompt (or batch of prompts) went through.

    Attributes:
        videos: the tokens of each video that reached the LLM, in prompt order; all of them without an outer stage.
        inner: the inner stage's result, or None.
        newline_mode: how newline tokens stand among them.
    """

    videos: list[CompressedTokens] = field(default_factory=list)
    inner: InnerRecord | None = None
    newline_mode: str = "one_token"

    @property
    def tokens_before(self) -> list[int]:
        """Visual tokens per video before compression, newlines not counted."""
        return [video.details.frames * video.details.tokens_per_frame for video in self.videos]

    @property
    def tokens_after_outer(self) -> list[int]:
        """The same after the outer stage."""
        return [video.index.shape[0] for video in self.videos]

    @property
    def retained_before_llm(self) -> float:
        """Share of the videos' tokens that reached the LLM; 1 where there was none."""
        before = sum(self.tokens_before)
        return sum(self.tokens_after_outer) / before if before else 1.0

    def tokens_per_layer(self, layers: int, video: int = 0) -> list[int]:
        """Tokens of one video that each of ``layers`` decoder layers computes in the prefill; newlines do not count."""
        counts = [self.tokens_after_outer[video]] * layers
        for stage in self.inner.stages if self.inner is not None else ():
            counts[stage.layer :] = [int(self._rows_among(stage.kept, video).sum())] * (layers - stage.layer)
        return counts

    def rows_kept_inside(self, video: int = 0) -> Tensor | None:
        """Which tokens of one video that reached the LLM its inner stage kept, (kept,) bool on the CPU.

        Newline tokens are not among them, though they may be kept or merged like others. None without an inner stage.
        """
        return None if self.inner is None else self._rows_among(self.inner.cpu_kept, video)

    def _rows_among(self, positions: Tensor, video: int) -> Tensor:
        """Which tokens of one video stand at ``positions`` of the prompt, (batch, short_seq) with -1 for padding."""
        assert self.inner is not None
        tokens = self.videos[video]
        if tokens.index.shape[0] == 0:
            return torch.zeros(0, dtype=torch.bool)
        # a video of which nothing is left, not even a newline, has no span
        empty = sum(v.index.shape[0] == 0 for v in self.videos[:video]) if self.newline_mode != "one_token" else 0
        row, span = [(row, span) for row, spans in enumerate(self.inner.spans) for span in spans][video - empty]
        kept = torch.zeros(self.inner.cpu_source.shape[1] + 1, dtype=torch.bool)
        kept[positions[row].cpu()] = True  # padding is -1: the extra entry
        rows = torch.arange(tokens.index.shape[0], device=tokens.index.device)
        before = newlines_before(tokens.index, self.newline_mode, tokens.details.tokens_per_frame)
        return kept[(rows + before + span[0]).cpu()]

    def kept_inside(self, video: int = 0) -> Tensor | None:
        """Original tokens of one video whose output token the inner stage kept, (frames, tokens) bool on the CPU.

        None without an inner stage.
        """
        rows = self.rows_kept_inside(video)
        if rows is None:
            return None
        survives = torch.cat([rows, torch.tensor([False])])  # dropped tokens are -1: the extra entry
        return survives[self.videos[video].details.source_map().cpu()]


class Compressor:
    """One method on one model. :meth:`apply` and :meth:`remove` are inverse; :meth:`applied` does both.

    Args:
        outer: the stage before the LLM, or None.
        inner: the stage inside the LLM, or None.
    """

    def __init__(self, outer: OuterStage | None, inner: InnerStage | None) -> None:
        self.outer = outer
        self.inner = inner
        self._record = Record()
        self._recorders = {name: RECORDERS[name]() for name in (outer.signals if outer is not None else ())}
        self._positions = KeptPositions()
        self._model: nn.Module | None = None

    @property
    def keeps_positions(self) -> bool:
        """Whether the outer stage leaves gaps in the positions (asked by the model)."""
        return self.outer is not None and self.outer.keeps_positions

    @property
    def record(self) -> Record:
        """What happened to the latest prompt."""
        if self.inner is not None:
            self._record.inner = self.inner.last
        return self._record

    def apply(self, model: nn.Module) -> Compressor:
        """Compress every video this model is given from now on.

        Raises:
            RuntimeError: if this object is on a model already, or the model has another compressor.
            InputError: if no family knows the model, or a setting does not fit its layers.
        """
        family = find_family(model)
        if self._model is not None:
            raise RuntimeError("this compressor is applied already: call remove() first, or build another one")
        if family.slot(model) is not None:
            raise RuntimeError("the model has a compressor already: remove() it first")
        self._model = model
        try:
            if self.inner is not None:
                self.inner.apply(family.decoder(model))
            if self.keeps_positions:
                self._positions.apply(family.decoder(model))
            for name, recorder in self._recorders.items():
                recorder.apply(family.signal_source(model, name))
            family.set_slot(model, self)
        except BaseException:
            self.remove()
            raise
        return self

    def remove(self) -> None:
        """Leave the model as it was; does nothing if applied to none."""
        if self._model is None:
            return
        find_family(self._model).set_slot(self._model, None)
        for recorder in self._recorders.values():
            recorder.remove()
        self._positions.remove()
        if self.inner is not None:
            self.inner.remove()
        self._model = None

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[Compressor]:
        """Compress inside a ``with`` block."""
        self.apply(model)
        try:
            yield self
        finally:
            self.remove()

    def start_prompt(self) -> None:
        """Forget the record of the previous prompt (called by the model)."""
        self._record = Record()
        if self.inner is not None:
            self.inner.last = None
            if hasattr(self.inner, "outer"):  # an inner stage that follows the outer stage's groups
                self.inner.outer = self._record

    def compress_video(
        self, encode: Callable[[], Tensor], pool: Callable[[Tensor], Tensor], newline_mode: str
    ) -> CompressedTokens:
        """Encode one video and compress it (called by the model).

        Args:
            encode: runs the tower, projector and pooling; returns (frames, tokens, dim).
            pool: the same pooling for per-patch signals (frames, patches, channels).
            newline_mode: grid and frame newlines need the tokens in raster order.
        """
        kept = all_tokens(encode()) if self.outer is None else self._compress(self.outer, encode, pool, newline_mode)
        self._record.videos.append(kept)
        self._record.newline_mode = newline_mode
        return kept

    def _compress(
        self, outer: OuterStage, encode: Callable[[], Tensor], pool: Callable[[Tensor], Tensor], newline_mode: str
    ) -> CompressedTokens:
        """The outer stage on one video, held to its budget."""
        with ExitStack() as recording:
            for recorder in self._recorders.values():
                recording.enter_context(recorder.recording())
            features = encode()
        signals = {name: recorder.take() for name, recorder in self._recorders.items()}
        order: Order = "raster" if newline_mode in ("grid", "frame") else "block"
        kept = outer(EncodedVideo(features, signals, pool, order))
        frames, tokens_per_frame, _ = features.shape
        before, after = frames * tokens_per_frame, kept.features.shape[0]
        most = outer.most_kept(frames, tokens_per_frame)
        if after > most:
            raise RuntimeError(
                f"the outer stage kept {after} of {before} tokens, its budget is {most}: the video was not compressed"
            )
        return kept

    def align_labels(self, labels: Tensor, seq: int) -> Tensor:
        """Labels of the positions whose logits the LLM returned (called by the model)."""
        if self.inner is None or labels.shape[1] == seq:
            return labels
        return self.inner.align(labels)


def all_tokens(features: Tensor) -> CompressedTokens:
    """All tokens (frames, tokens, dim) of a video, for methods without an outer stage."""
    frames, tokens, _ = features.shape
    index = torch.arange(frames * tokens, device=features.device)
    source = index.view(frames, tokens)
    details = PlainDetails(frames, tokens, [(0, frames - 1)], source, torch.full_like(source, TokenKind.DYNAMIC_KEPT))
    return CompressedTokens(features.flatten(0, 1), index, details)
