"""A prompt's record in host memory: all that pictures need, without a model, a device or the video.

One ``.npz`` file per prompt (numpy, no pickle), see :func:`write_saved` and :func:`load_record`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from holitom.errors import InputError
from holitom.tokens import TokenKind

DROPPED, NEWLINE = -1, -2  # where a token went that is in no row of its video
DROPPED_KINDS = (TokenKind.DYNAMIC_DROPPED, TokenKind.STATIC_DROPPED)
KEPT_KINDS = (TokenKind.DYNAMIC_KEPT, TokenKind.STATIC_CENTER, TokenKind.CONTEXTUAL_CENTER)


def _require(fits: bool, message: str) -> None:
    if not fits:
        raise InputError(message)


@dataclass(frozen=True, eq=False)
class SavedStage:
    """What one stage inside the LLM did with the tokens of one video; ``rows`` are those that reached the LLM.

    Attributes:
        layer: first decoder layer that sees the shorter sequence.
        kept: bool, (rows,), whether a token is still there from this layer on.
        source: int64, (rows,), row that stands for each token from this layer on: itself if kept; -1 if it was dropped,
            -2 if it was merged into a newline token.
        scores: float32, (rows,), what the stage ranked by; NaN for tokens that an earlier stage took away.
    """

    layer: int
    kept: np.ndarray
    source: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True, eq=False)
class SavedVideo:
    """What became of the tokens of one video.

    Attributes:
        kinds: int8, values of :class:`~holitom.tokens.TokenKind`, (frames, tokens).
        source_map: int64, (frames, tokens), row that each token was kept as or merged into; -1 for dropped tokens.
        index: int64, (rows,), frame * tokens + position of each token that reached the LLM.
        segments: int64, (segments, 2), first and last frame, inclusive.
        stages: inside the LLM, in the order of the layers.
        received_attention: float32, (frames, tokens), or None if it was not recorded.
        similarity: float32, (frames - 1, tokens), to the same position one frame later, or None.
        times: float64, (frames,), seconds of the sampled frames, or None.
        thumbnails: one small JPEG per frame, or none at all.
        tower_layers: (merges,), tower layers behind which frames were merged, or None.
        frame_targets: (merges, frames), behind each of them the merged frame that every frame is in, -1 for lost ones.

    Raises:
        InputError: if shapes, types or values do not fit together.
    """

    kinds: np.ndarray
    source_map: np.ndarray
    index: np.ndarray
    segments: np.ndarray
    stages: tuple[SavedStage, ...] = ()
    received_attention: np.ndarray | None = None
    similarity: np.ndarray | None = None
    times: np.ndarray | None = None
    thumbnails: tuple[bytes, ...] = ()
    tower_layers: np.ndarray | None = None
    frame_targets: np.ndarray | None = None

    def __post_init__(self) -> None:
        self._check_tokens()
        self._check_extras()
        rows = len(self.index)
        for stage in self.stages:
            where = f"the stage at layer {stage.layer}"
            shapes = {stage.kept.shape, stage.source.shape, stage.scores.shape}
            _require(shapes == {(rows,)} and stage.kept.dtype == bool, f"{where} does not have one entry per row")
            inside = stage.source.dtype.kind == "i" and ((stage.source >= NEWLINE) & (stage.source < rows)).all()
            _require(bool(inside), f"{where} names rows out of range")
            own = stage.source == np.arange(rows)
            _require(bool((own == stage.kept).all()), f"{where}: kept and source disagree; take both from one record")
            targets = stage.source[stage.source >= 0]
            _require(bool(stage.kept[targets].all()), f"{where} merges tokens into some that are not kept")

    def _check_tokens(self) -> None:
        kinds, source, index = self.kinds, self.source_map, self.index
        whole = all(array.dtype.kind == "i" for array in (kinds, source, index, self.segments))
        _require(whole, "kinds, source_map, index and segments must be whole numbers")
        _require(kinds.ndim == 2 and 0 not in kinds.shape, f"kinds are {kinds.shape}; they must be (frames, tokens)")
        known = np.isin(kinds, list(TokenKind))
        _require(bool(known.all()), f"kinds hold {sorted(set(kinds[~known].tolist()))}; give values of TokenKind")
        _require(source.shape == kinds.shape, f"source_map is {source.shape}; give the shape of kinds, {kinds.shape}")
        agree = np.array_equal(source < 0, np.isin(kinds, DROPPED_KINDS))
        _require(agree, "source_map and kinds disagree on the dropped tokens; take both from the same compression")
        fits = index.ndim == 1 and bool(((index >= 0) & (index < kinds.size)).all())
        _require(fits and bool((source < len(index)).all()), "index and source_map do not fit together")
        # Where two rows stand at one place, the token there belongs to one of them.
        rows = source.ravel()[index]
        own = (rows >= 0) & (index[rows] == index)
        _require(bool(own.all()), "index and source_map disagree: a token that reached the LLM is not its own source")
        spans = [tuple(span) for span in self.segments.tolist()]
        starts = [0, *(last + 1 for _, last in spans)]
        sound = starts[-1] == len(kinds) and starts[:-1] == [first for first, _ in spans]
        sound = sound and all(last >= first for first, last in spans)
        _require(sound, f"segments are {spans}; they must cover frames 0 to {len(kinds) - 1} once, in order")

    def _check_extras(self) -> None:
        frames, tokens = self.kinds.shape
        for name, shape in (
            ("received_attention", (frames, tokens)),
            ("similarity", (frames - 1, tokens)),
            ("times", (frames,)),
        ):
            value = getattr(self, name)
            _require(value is None or value.shape == shape, f"{name} does not have the shape {shape}")
        layers, targets = self.tower_layers, self.frame_targets
        _require((layers is None) == (targets is None), "tower_layers and frame_targets go together; give both or none")
        if layers is not None and targets is not None:
            sound = layers.ndim == 1 and targets.shape == (len(layers), frames) and bool((targets < frames).all())
            _require(sound, f"frame_targets are {targets.shape}; give one row of {frames} frames per tower layer")
        count = len(self.thumbnails)
        _require(count in (0, frames), f"there are {count} thumbnails for {frames} frames; give one each, or none")

    @property
    def frames(self) -> int:
        """Sampled frames."""
        return int(self.kinds.shape[0])

    @property
    def tokens_per_frame(self) -> int:
        """Tokens of each frame before compression."""
        return int(self.kinds.shape[1])

    @property
    def side(self) -> int:
        """Tokens along one side of a frame's grid.

        Raises:
            InputError: if the grid is no square.
        """
        side = math.isqrt(self.tokens_per_frame)
        _require(
            side**2 == self.tokens_per_frame,
            f"a frame has {self.tokens_per_frame} tokens: pictures need a square number of tokens",
        )
        return side

    def place_of_stage(self, stage: int) -> np.ndarray:
        """Row that stands for every original token from a stage on, (frames, tokens); -1 dropped, -2 in a newline."""
        places = np.append(self.stages[stage].source, DROPPED)  # dropped before: -1 is the extra entry
        return places[self.source_map]

    def remaining(self) -> np.ndarray:
        """Bool (frames, tokens): kept before the LLM, or a centre, and still there behind the last stage inside it."""
        kept = np.isin(self.kinds, KEPT_KINDS)
        if self.stages:
            kept &= np.append(self.stages[-1].kept, False)[self.source_map]
        return kept

    def counts(self) -> dict[str, Any]:
        """The numbers that pictures show: tokens by kind, those that reach the LLM, and those of every stage."""
        kinds = {kind.name.lower(): int((self.kinds == kind).sum()) for kind in TokenKind}
        stages = [
            {
                "layer": stage.layer,
                "kept": int(stage.kept.sum()),
                "merged": int((~stage.kept & (stage.source != DROPPED)).sum()),
                "dropped": int((stage.source == DROPPED).sum()),
            }
            for stage in self.stages
        ]
        shape = {"frames": self.frames, "tokens_per_frame": self.tokens_per_frame, "tokens": self.kinds.size}
        found = {
            **shape,
            "segments": len(self.segments),
            "kinds": kinds,
            "reach_llm": len(self.index),
            "stages": stages,
        }
        if self.tower_layers is None or self.frame_targets is None:
            return found
        pairs = zip(self.tower_layers.tolist(), self.frame_targets.max(axis=1).tolist(), strict=True)
        return {**found, "tower": [{"layer": layer, "frames": last + 1} for layer, last in pairs]}

    def pictures(self) -> np.ndarray:
        """The thumbnails, uint8 RGB (frames, height, width, 3); grey squares where the record holds none.

        Raises:
            InputError: if a thumbnail is no picture.
        """
        if not self.thumbnails:
            return np.full((self.frames, 280, 280, 3), 200, dtype=np.uint8)
        try:
            pictures = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in self.thumbnails]
            return np.stack(pictures)
        except (OSError, ValueError, SyntaxError) as error:
            raise InputError(f"a thumbnail of the record is damaged ({error}): save the record again") from None


@dataclass(frozen=True, eq=False)
class SavedRecord:
    """What one prompt went through.

    Attributes:
        videos: in prompt order.
        meta: what is known besides, JSON values: ``method``, ``config``, ``video``, ``question``, ``answer``,
            ``commit`` and whatever a caller adds.
    """

    videos: tuple[SavedVideo, ...]
    meta: dict[str, Any] = field(default_factory=dict)


def thumbnails(frames: np.ndarray, size: int = 320, quality: int = 85) -> tuple[bytes, ...]:
    """One JPEG per frame, at most ``size`` pixels long and high.

    Args:
        frames: uint8 RGB, (frames, height, width, 3).
        size: of the longer side, never enlarged.
        quality: of the JPEG.

    Raises:
        InputError: if ``frames`` are no such pictures.
    """
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
        raise InputError(f"frames are {frames.dtype} {frames.shape}; give uint8 (frames, height, width, 3)")
    return tuple(_jpeg(frame, size, quality) for frame in frames)


def _jpeg(frame: np.ndarray, size: int, quality: int) -> bytes:
    picture = Image.fromarray(frame)
    picture.thumbnail((size, size), Image.Resampling.LANCZOS)
    target = io.BytesIO()
    picture.save(target, "JPEG", quality=quality)
    return target.getvalue()


def as_segments(segments: Sequence[tuple[int, int]]) -> np.ndarray:
    """Segments as the array that :class:`SavedVideo` holds."""
    return np.asarray(segments, dtype=np.int64).reshape(-1, 2)
