"""What goes into an outer stage: a video behind the vision tower, and what happened to its frames there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from holitom.tokens import Order


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
