"""Videos on their way through the tower and the outer stage to the prompts that ask about them."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from holitom.serving.served_methods import ServedMethod

if TYPE_CHECKING:
    from llava.video import VideoClip


@dataclass(frozen=True)
class SplicedPrompt:
    """What the engine is given for one request.

    Attributes:
        embeds: (seq, dim), on the CPU, in the model's type.
        visual_tokens: of the video before compression, and those that are in ``embeds``; newlines are not counted.
        clip: the video, without its pictures.
    """

    embeds: Tensor
    visual_tokens: tuple[int, int]
    clip: VideoClip


@dataclass
class ServingCounts:
    """Work done so far.

    Attributes:
        tower_calls: runs of the tower, each for a batch of videos.
        tower_videos: videos that went through the tower.
        tower_frames: their frames.
        compressions: runs of an outer stage.
    """

    tower_calls: int = 0
    tower_videos: int = 0
    tower_frames: int = 0
    compressions: int = 0


@dataclass(frozen=True)
class EncodedClip:
    """A video behind tower, projector and pooling: features (frames, tokens, dim) and signals per patch."""

    features: Tensor
    signals: dict[str, Tensor]
    clip: VideoClip

    @property
    def bytes(self) -> int:
        """That it takes."""
        return self.features.nbytes + sum(signal.nbytes for signal in self.signals.values())

    def on_the_cpu(self) -> EncodedClip:
        """A copy that holds nothing of the batch that it came from."""
        signals = {name: _copied(signal) for name, signal in self.signals.items()}
        return EncodedClip(_copied(self.features), signals, self.clip)


def _copied(values: Tensor) -> Tensor:
    return torch.empty_like(values, device="cpu", memory_format=torch.contiguous_format).copy_(values)


@dataclass(frozen=True)
class Kept:
    """The tokens of a video, newlines among them, (kept, dim), and how many tokens were there before and are kept."""

    features: Tensor
    counts: tuple[int, int]
    clip: VideoClip


@dataclass
class AskedVideo:
    """A video of this call: its requests by method, and what of it is there."""

    key: Hashable
    source: Any
    num_frames: int
    methods: dict[str, ServedMethod] = field(default_factory=dict)
    requests: list[tuple[int, str]] = field(default_factory=list)
    kept: dict[str, Kept] = field(default_factory=dict)
    encoded: EncodedClip | None = None
    clip: VideoClip | None = None
    pixels: Tensor | None = None

    @property
    def missing(self) -> list[ServedMethod]:
        """Methods whose tokens are not there."""
        return [method for key, method in self.methods.items() if key not in self.kept]

    @property
    def needs_own_tower(self) -> bool:
        """Whether a method whose tokens are not there runs the tower on its own."""
        return any(method.has_tower for method in self.missing)

    @property
    def needs_features(self) -> bool:
        """Whether a method needs what a shared run of the tower gives, and that is not there."""
        return self.encoded is None and any(not method.has_tower for method in self.missing)

    @property
    def needs_pixels(self) -> bool:
        """Whether a tower must see it."""
        return self.needs_own_tower or self.needs_features

    @property
    def signals(self) -> frozenset[str]:
        """Side signals that these need of a tower that is shared."""
        return frozenset().union(*(method.signals for method in self.missing if not method.has_tower))
