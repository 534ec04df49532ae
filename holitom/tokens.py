"""What goes into an outer stage and what comes out: an encoded video, and the tokens that reach the LLM."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal, Protocol

from jaxtyping import Float, Int
from torch import Tensor

Order = Literal["block", "raster"]


class TokenKind(IntEnum):
    """What became of an original token."""

    DYNAMIC_DROPPED = 0
    DYNAMIC_KEPT = 1
    STATIC_MERGED = 2  # merged into the centre of its cluster
    STATIC_CENTER = 3  # a centre, in the first frame of its segment
    STATIC_DROPPED = 4  # its segment keeps no static token
    CONTEXTUAL_MERGED = 5
    CONTEXTUAL_CENTER = 6


@dataclass(frozen=True)
class FrameMerges:
    """What happened to the frames of one video inside the vision tower.

    Attributes:
        frames: frames of the video.
        layers: tower layers behind which frames were merged, ascending.
        targets: behind each of them, the merged frame that every frame of the video is in; -1 for lost ones.
        groups: first and last merged frame of every group of similar ones behind the last of them, inclusive; empty
            where the rules know no groups.
        received_attention: attention each patch receives in the last of them, merged like the frames; None where the
            rules do not read it.
    """

    frames: int
    layers: tuple[int, ...]
    targets: tuple[tuple[int, ...], ...]
    groups: list[tuple[int, int]] = field(default_factory=list)
    received_attention: Float[Tensor, "merged patches"] | None = None

    @property
    def merged_frames(self) -> int:
        """Frames that leave the tower."""
        return max(self.targets[-1]) + 1

    @property
    def representatives(self) -> list[int]:
        """The first frame of the video in every merged frame."""
        return [self.targets[-1].index(merged) for merged in range(self.merged_frames)]

    @property
    def stand_ins(self) -> list[int]:
        """For every frame of the video the merged frame it is in, for lost ones that of the frame before."""
        found: list[int] = []
        for merged in self.targets[-1]:
            found.append(merged if merged >= 0 else found[-1])
        return found

    def over_video(self, segments: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Segments of merged frames as those of the video, all inclusive; lost frames go with the one before."""
        starts = [self.representatives[first] for first, _ in segments]
        return list(zip(starts, [*(start - 1 for start in starts[1:]), self.frames - 1], strict=True))

    def frames_per_layer(self, layers: int) -> list[int]:
        """Frames that each of ``layers`` tower layers computes."""
        counts = [self.frames] * layers
        for layer, target in zip(self.layers, self.targets, strict=True):
            counts[layer + 1 :] = [max(target) + 1] * (layers - layer - 1)
        return counts


@dataclass(frozen=True)
class EncodedVideo:
    """One video on its way to the LLM, with what was recorded while the tower saw it.

    Attributes:
        features: (frames, tokens, dim), projected and pooled.
        signals: recorded per patch before pooling, by name: (frames, patches) or (frames, patches, channels).
        pool: the pooling of the features for any per-patch signal, (frames, patches, channels) to
            (frames, tokens, channels).
        order: ``"block"`` where the method chooses the order of its tokens; ``"raster"`` where newline tokens need
            every frame's tokens together and in raster order.
        merges: what happened to its frames inside the tower, where a method merges them there; ``features`` and
            ``signals`` are then those of the merged frames.
    """

    features: Tensor
    signals: dict[str, Tensor] = field(default_factory=dict)
    pool: Callable[[Tensor], Tensor] = lambda signal: signal
    order: Order = "block"
    merges: FrameMerges | None = None

    @property
    def frames(self) -> int:
        """Frames of the video before anything was merged."""
        return self.features.shape[0] if self.merges is None else self.merges.frames

    def pooled(self, name: str) -> Tensor:
        """One signal pooled like the features, float32, on their device: (frames, tokens[, channels])."""
        return self.pooled_values(self.signals[name])

    def pooled_values(self, signal: Tensor) -> Tensor:
        """As :meth:`pooled`, of given values, (frames, patches[, channels])."""
        signal = signal.float()
        pooled = self.pool(signal[..., None] if signal.dim() == 2 else signal).to(self.features.device)
        return pooled.squeeze(-1) if signal.dim() == 2 else pooled


class TokenDetails(Protocol):
    """How the tokens of one video came about: enough for a record or a picture.

    Attributes:
        frames: frames of the video.
        tokens_per_frame: tokens of each frame before compression.
        segments: first and last frame of every segment, inclusive; one of all frames where a method has no segments.
    """

    frames: int
    tokens_per_frame: int
    segments: list[tuple[int, int]]

    def source_map(self) -> Int[Tensor, "frames tokens"]:
        """Output row that each original token was kept as or merged into; -1 for dropped tokens."""

    def token_kinds(self) -> Int[Tensor, "frames tokens"]:
        """What became of each original token, as values of :class:`TokenKind`."""


@dataclass(frozen=True)
class PlainDetails:
    """Details of a method that knows its source map and kinds at once.

    Attributes:
        frames: see :class:`TokenDetails`.
        tokens_per_frame: see :class:`TokenDetails`.
        segments: see :class:`TokenDetails`.
        source: what :meth:`source_map` gives.
        kinds: what :meth:`token_kinds` gives.
    """

    frames: int
    tokens_per_frame: int
    segments: list[tuple[int, int]]
    source: Int[Tensor, "frames tokens"]
    kinds: Int[Tensor, "frames tokens"]

    def source_map(self) -> Tensor:
        """See :class:`TokenDetails`."""
        return self.source

    def token_kinds(self) -> Tensor:
        """See :class:`TokenDetails`."""
        return self.kinds


@dataclass(frozen=True)
class Observed:
    """What a picture shows of a video beside its tokens; see :func:`holitom.watching.watched`.

    Attributes:
        received_attention: attention each token receives in the vision tower's last layer, pooled like the features.
        similarity: cosine similarity of each token to the same position one frame later.
    """

    received_attention: Float[Tensor, "frames tokens"]
    similarity: Float[Tensor, "frames-1 tokens"]


@dataclass(frozen=True)
class CompressedTokens:
    """Visual tokens that reach the LLM, in reading order.

    Attributes:
        features: the tokens, in the dtype of the input.
        index: int64, frame * tokens_per_frame + position of each token; a token merged over a segment counts as
            the first frame's token at the position of its cluster's centre.
        details: how they came about, a :class:`TokenDetails`; methods add what is their own.
        every_row: grid newlines follow every row of the video, also one that holds no token any more.
        observed: for pictures; None unless somebody asked for it.
        merge_again: the same selection and merge, decisions and weights included, of other values of the original
            tokens, (frames, tokens, channels) to (kept, channels); None where every token is the plain mean of those
            whose source it is, as with methods that only select.
    """

    features: Float[Tensor, "kept dim"]
    index: Int[Tensor, " kept"]
    details: Any
    every_row: bool = False
    observed: Observed | None = None
    merge_again: Callable[[Tensor], Tensor] | None = None


def newlines_before(index: Tensor, mode: str, tokens_per_frame: int, every_row: bool = False) -> Tensor:
    """How many newline tokens stand before each token of a video, (kept,) int64: none unless rows or frames end in one.

    Only videos of our runtime do, by its ``llava.model.newlines.newlines_before``, which others need not import.
    """
    if mode not in ("grid", "frame"):
        return index.new_zeros(index.shape)
    from llava.model import newlines  # noqa: PLC0415

    return newlines.newlines_before(index, mode, tokens_per_frame, every_row)
