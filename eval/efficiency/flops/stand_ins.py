"""What stands in for values in a run without any: an outer stage, a scene, and the places of newline tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from eval.efficiency.flops.sizes import ModelSizes
from holitom.encoded_video import EncodedVideo
from holitom.tokens import CompressedTokens
from llava.model.newlines import insert_newlines

SCENE_FRAMES, SCENE_STILL = 8, 0.55  # the nominal scene: a cut every 8 frames, 55 % of the positions stand still


class NominalOuter:
    """Stands in for an outer stage: asks for the same signals and keeps a given number of tokens, evenly spread."""

    keeps_positions = False

    def __init__(self, signals: tuple[str, ...], index: Tensor) -> None:
        self.signals, self._index = signals, index

    def __call__(self, video: EncodedVideo) -> CompressedTokens:
        """The first tokens of a video without values are as good as any."""
        for name in self.signals:
            video.pooled(name)
        kept = video.features.flatten(0, 1)[: len(self._index)]
        return CompressedTokens(kept, self._index, details=None)

    def most_kept(self, frames: int, tokens_per_frame: int) -> int:
        """As many as it keeps."""
        return len(self._index)


def scene(sizes: ModelSizes) -> tuple[int, list[int]]:
    """Static tokens of every segment of the nominal scene, and the lengths of its segments in frames.

    What HoliTom's clustering costs depends on what a clip shows; this scene is what it is counted on.
    """
    whole, rest = divmod(sizes.frames, SCENE_FRAMES)
    return int(SCENE_STILL * sizes.tokens_per_frame), [SCENE_FRAMES] * whole + [rest] * (rest > 0)


def nominal_scene(sizes: ModelSizes) -> Tensor:
    """Features (frames, tokens, dim) of the nominal scene (:func:`scene`), float32.

    Random vectors, rolled by another step for every frame that shows something new: such vectors are nearly orthogonal.
    """
    static, lengths = scene(sizes)
    noise = torch.randn(sizes.tokens_per_frame, sizes.dim, generator=torch.Generator().manual_seed(0))
    frames = [noise.roll(frame, dims=-1) for frame in range(sizes.frames)]
    features = torch.stack(frames)
    first = 0
    for length in lengths:
        features[first : first + length, :static] = frames[first][:static]
        first += length
    return features


def with_newlines(index: Tensor, mode: str, tokens_per_frame: int, frames: int | None) -> int:
    """Tokens of a video with its newlines, by the runtime's own function on vectors of one channel."""
    return len(insert_newlines(torch.zeros(len(index), 1), index, torch.zeros(1), mode, tokens_per_frame, frames))
