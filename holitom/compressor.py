"""One compression method on one model: put on, take off, and see what it did."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

from holitom.encoded_video import EncodedVideo, FrameMerges
from holitom.errors import InputError
from holitom.families import base_of, find_family
from holitom.hooks.compiled import refuse_compiled, refuse_tracing
from holitom.hooks.hook_set import HookSet
from holitom.hooks.prompt.kept_positions import KeptPositions
from holitom.hooks.tower.parts import Recorder
from holitom.ops.selection import all_tokens, check_finite
from holitom.record.prompt import Record
from holitom.stages import BudgetFilling, InnerStage, OuterStage, TowerStage
from holitom.tokens import CompressedTokens, Order

if TYPE_CHECKING:
    from llava.model.visual_compressor import LayerPrompt

__all__ = ["Compressor", "MethodConfig", "Record"]


class Compressor:
    """One method on one model. :meth:`apply` and :meth:`remove` are inverse; :meth:`applied` does both.

    Args:
        outer: the stage before the LLM, or None.
        inner: the stage inside the LLM, or None.
        tower: the stage inside the vision tower, or None.
        fill: fills the outer stage's result up to ``most_kept`` tokens; see :func:`holitom.budget.fill_up`.

    Raises:
        InputError: if a budget is to be filled and there is none, without an outer stage.
    """

    def __init__(
        self,
        outer: OuterStage | None,
        inner: InnerStage | None,
        tower: TowerStage | None = None,
        fill: BudgetFilling | None = None,
    ) -> None:
        if fill is not None and outer is None:
            raise InputError(
                "fill_budget = true needs a stage before the LLM with a budget, and this method has none: use false"
            )
        self.fill = fill
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
            signals: recorded while the tower encoded it, see :class:`~holitom.encoded_video.EncodedVideo`.
            pool: see :meth:`compress_video`.
            newline_mode: see :meth:`compress_video`.
            merges: what happened to its frames inside the tower; ``features`` are the merged ones.

        Raises:
            RuntimeError: if more tokens are left than the budget allows.
        """
        order: Order = "raster" if newline_mode in ("grid", "frame") else "block"
        video = EncodedVideo(features, signals, pool, order, merges)
        kept = all_tokens(features) if self.outer is None else self._within_budget(self.outer, video)
        self._record.videos.append(kept)
        self._record.newline_mode = newline_mode
        return kept

    def _within_budget(self, outer: OuterStage, video: EncodedVideo) -> CompressedTokens:
        """The outer stage on one video, held to its budget and to features that are finite."""
        if not getattr(outer, "checks_features", False) and not video.features.is_meta:  # counted without values
            check_finite(features=video.features)
        kept = outer(video)
        frames, tokens_per_frame = video.frames, video.features.shape[1]
        after, most = kept.features.shape[0], outer.most_kept(frames, tokens_per_frame)
        if after > most:
            raise RuntimeError(
                f"the outer stage kept {after} of {frames * tokens_per_frame} tokens, its budget is {most}: the video "
                "was not compressed"
            )
        return kept if self.fill is None or after == most else self.fill(outer, video, kept, most)

    def exact_kept(self, frames: int, tokens_per_frame: int) -> int:
        """Visual tokens that reach the LLM of any video of this size, newlines not counted, before there are features.

        Raises:
            InputError: if the number depends on what the video shows.
        """
        if self.outer is None:
            return frames * tokens_per_frame
        most = self.outer.most_kept(frames, tokens_per_frame)
        if self.fill is None:
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
