"""One compression method on one model: put on, take off, and see what it did."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from holitom.budget import within_budget
from holitom.encoded_video import EncodedVideo, FrameMerges
from holitom.errors import InputError
from holitom.families import base_of, find_family
from holitom.hooks.compiled import refuse_compiled, refuse_tracing
from holitom.hooks.decoder.inner_record import InnerRecord
from holitom.hooks.hook_set import HookSet
from holitom.hooks.prompt.kept_positions import KeptPositions
from holitom.hooks.tower.parts import Recorder, TowerPlaces
from holitom.ops.selection import check_finite
from holitom.record.prompt import Record
from holitom.tokens import CompressedTokens, Order, PlainDetails, TokenKind

if TYPE_CHECKING:
    from llava.model.visual_compressor import LayerPrompt

__all__ = ["Compressor", "InnerStage", "MethodConfig", "OuterStage", "Record", "TowerStage", "all_tokens"]


class OuterStage(Protocol):
    """Compression of one video before the LLM.

    Attributes:
        signals: names of the tower's side signals the stage needs (see ``holitom.hooks.tower.signals``).
        keeps_positions: kept tokens stay at their place in the uncompressed video, so that the LLM sees gaps;
            otherwise they are numbered without gaps.

    A stage whose tokens follow from the video alone, the same for every question and every time, says so by
    ``question_free = True``; without it they are never used for another question about the video.
    A stage that refuses features which are not finite along with a transfer that it makes anyway says so by
    ``checks_features = True``; for all others the compressor does it.
    A stage that ranks the tokens it left out by more than the attention they receive says how much it likes each by
    ``preference(video, kept)``, (frames, tokens); see :mod:`holitom.budget`.
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

    def layer_prompts(self, cache: Any) -> Sequence[LayerPrompt | None] | None:
        """What a prefilled cache holds in each decoder layer, see ``llava.model.visual_compressor``."""

    def start_prompt(self, record: Record) -> None:
        """Forget the previous prompt; ``record`` is what the outer stage will have done before the decoder runs."""


class TowerStage(Protocol):
    """Merging of frames inside the vision tower; see :class:`~holitom.hooks.tower.frame_merging.FrameMerging`."""

    layers: tuple[int, ...]

    def apply(self, places: TowerPlaces) -> Any: ...
    def remove(self) -> None: ...
    def recording(self, videos: Sequence[int] | None = None) -> AbstractContextManager[Any]: ...
    def take(self) -> list[FrameMerges]: ...
    def nominal(self) -> TowerStage: ...
    def nominal_frames(self, frames: int, layers: int) -> list[int]: ...


class Compressor:
    """One method on one model. :meth:`apply` and :meth:`remove` are inverse; :meth:`applied` does both.

    Args:
        outer: the stage before the LLM, or None.
        inner: the stage inside the LLM, or None.
        tower: the stage inside the vision tower, or None.
        fill_budget: the outer stage's result is filled up to ``most_kept`` tokens; see :mod:`holitom.budget`.

    Raises:
        InputError: if a budget is to be filled and there is none, without an outer stage.
    """

    def __init__(
        self,
        outer: OuterStage | None,
        inner: InnerStage | None,
        tower: TowerStage | None = None,
        fill_budget: bool = False,
    ) -> None:
        if fill_budget and outer is None:
            raise InputError(
                "fill_budget = true needs a stage before the LLM with a budget, and this method has none: use false"
            )
        self.fill_budget = fill_budget
        self.outer = outer
        self.inner = inner
        self.tower = tower
        self._record = Record()
        self._recorders: dict[str, Recorder] = {}
        self._positions = KeptPositions()
        self._entrance: HookSet | None = None
        self._model: nn.Module | None = None

    @property
    def keeps_positions(self) -> bool:
        """Whether the outer stage leaves gaps in the positions (asked by the model)."""
        return self.outer is not None and self.outer.keeps_positions

    @property
    def question_free(self) -> bool:
        """Whether all stages before the LLM say that they see the video alone; a stage that says nothing does not."""
        stages = [stage for stage in (self.outer, self.tower) if stage is not None]
        return all(getattr(stage, "question_free", False) for stage in stages)

    @property
    def record(self) -> Record:
        """What happened to the latest prompt."""
        if self.inner is not None:
            self._record.inner = self.inner.last
        return self._record

    def apply(self, model: nn.Module) -> Compressor:
        """Compress every video this model, or the one inside a wrapper of adapters, is given from now on.

        Raises:
            RuntimeError: if this object is on a model already, or the model has another compressor.
            InputError: if no family knows the model, its family cannot serve this method, or a setting does not fit
                its layers.
        """
        model = base_of(model)
        refuse_compiled(model)
        family = find_family(model)
        if self._model is not None:
            raise RuntimeError("this compressor is applied already: call remove() first, or build another one")
        if family.slot(model) is not None:
            raise RuntimeError("the model has a compressor already: remove() it first")
        self._model = model
        try:
            for name in self.outer.signals if self.outer is not None else ():
                self._recorders[name] = family.recorder(model, name)
            if self.tower is not None:
                self.tower.apply(family.tower_places(model))
            # before the inner stage, whose hooks must find the shortened prompt
            self._entrance = family.entrance(model, self)
            if self.inner is not None:
                self.inner.apply(family.decoder(model))
            if self.keeps_positions:
                self._positions.apply(family.decoder(model))
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
        self._recorders.clear()
        if self.tower is not None:
            self.tower.remove()
        if self._entrance is not None:
            self._entrance.remove()
        self._entrance = None
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
        """Forget the record of the previous prompt (called by the model).

        Raises:
            InputError: if the model was compiled since the compressor was applied.
        """
        refuse_tracing()
        if self._model is not None:
            refuse_compiled(self._model)
        self._record = Record()
        if self.inner is not None:
            self.inner.start_prompt(self._record)

    def compress_video(
        self, encode: Callable[[], Tensor], pool: Callable[[Tensor], Tensor], newline_mode: str
    ) -> CompressedTokens:
        """Encode one video and compress it (called by the model).

        Args:
            encode: runs the tower, projector and pooling; returns (frames, tokens, dim).
            pool: the same pooling for per-patch signals (frames, patches, channels).
            newline_mode: grid and frame newlines need the tokens in raster order.
        """
        with self.recording():
            features = encode()
        merges = next(iter(self.take_merges()), None)
        return self.compress_features(features, self.take_signals(), pool, newline_mode, merges)

    @contextmanager
    def recording(self, videos: Sequence[int] | None = None) -> Iterator[None]:
        """Record the side signals that the outer stage needs while the tower runs inside the ``with`` block.

        Args:
            videos: for a stage inside the tower, frames of the videos it sees, see :class:`TowerStage`.
        """
        with ExitStack() as stack:
            if self.tower is not None:
                stack.enter_context(self.tower.recording(videos))
            for recorder in self._recorders.values():
                stack.enter_context(recorder.recording())
            yield

    def take_signals(self) -> dict[str, Tensor]:
        """What was recorded, by name, images first; empty for a method without signals."""
        return {name: recorder.take() for name, recorder in self._recorders.items()}

    def take_merges(self) -> list[FrameMerges]:
        """What happened inside the tower, one entry per video; empty for a method without a stage there."""
        return [] if self.tower is None else self.tower.take()

    def compress_features(
        self,
        features: Tensor,
        signals: dict[str, Tensor],
        pool: Callable[[Tensor], Tensor],
        newline_mode: str,
        merges: FrameMerges | None = None,
    ) -> CompressedTokens:
        """Compress one video that is encoded already, and put it on record.

        Args:
            features: (frames, tokens, dim), projected and pooled.
            signals: recorded while the tower encoded it, see :class:`~holitom.tokens.EncodedVideo`.
            pool: see :meth:`compress_video`.
            newline_mode: see :meth:`compress_video`.
            merges: what happened to its frames inside the tower; ``features`` are the merged ones.

        Raises:
            RuntimeError: if more tokens are left than the budget allows.
        """
        order: Order = "raster" if newline_mode in ("grid", "frame") else "block"
        video = EncodedVideo(features, signals, pool, order, merges)
        kept = all_tokens(features) if self.outer is None else within_budget(self.outer, video, self.fill_budget)
        self._record.videos.append(kept)
        self._record.newline_mode = newline_mode
        return kept

    def exact_kept(self, frames: int, tokens_per_frame: int) -> int:
        """Visual tokens that reach the LLM of any video of this size, newlines not counted, before there are features.

        Raises:
            InputError: if the number depends on what the video shows.
        """
        if self.outer is None:
            return frames * tokens_per_frame
        most = self.outer.most_kept(frames, tokens_per_frame)
        if not self.fill_budget:
            raise InputError(f"up to {most} tokens are kept, and fewer of some videos: set fill_budget = true")
        if self.tower is not None:
            raise InputError(
                f"fewer than the budget of {most} tokens may be left where frames merge inside the vision tower: use a "
                "method without a stage there"
            )
        return most

    def layer_prompts(self, cache: Any) -> Sequence[LayerPrompt | None] | None:
        """What a prefilled cache holds in each decoder layer (called by the model before static decoding).

        Raises:
            InputError: if the inner stage acts in decode steps.
        """
        return None if self.inner is None else self.inner.layer_prompts(cache)

    def align_labels(self, labels: Tensor, seq: int) -> Tensor:
        """Labels of the positions whose logits the LLM returned (called by the model)."""
        if self.inner is None or labels.shape[1] == seq:
            return labels
        return self.inner.align(labels)


class MethodConfig(Protocol):
    """Settings of one method; a frozen dataclass."""

    def build(self) -> Compressor:
        """A compressor with these settings, applied to no model yet."""


def all_tokens(features: Tensor) -> CompressedTokens:
    """All tokens (frames, tokens, dim) of a video, for methods without an outer stage.

    Raises:
        InputError: if they are not finite, as every outer stage does.
    """
    check_finite(features=features)
    frames, tokens, _ = features.shape
    index = torch.arange(frames * tokens, device=features.device)
    source = index.view(frames, tokens)
    details = PlainDetails(frames, tokens, [(0, frames - 1)], source, torch.full_like(source, TokenKind.DYNAMIC_KEPT))
    return CompressedTokens(features.flatten(0, 1), index, details)
