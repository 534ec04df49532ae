"""Uniform selection, a control: a strided grid of every frame's tokens, whatever the video shows.

Stage: before the LLM, after projector and pooling. Each frame keeps ceil(tokens * ``retain_ratio``) tokens with equal
steps in raster order, unchanged and in raster order; positions are contiguous. A method that costs more than this has
to be better than this.
"""

from dataclasses import dataclass

import numpy as np

from holitom.checks import require_retain_ratio
from holitom.compressor import Compressor
from holitom.encoded_video import EncodedVideo
from holitom.methods import MethodFacts, register
from holitom.ops.selection import keep_selected, kept_per_frame
from holitom.ops.token_ops import upload
from holitom.tokens import CompressedTokens


@register("uniform", MethodFacts(style=("#CC79A7", ">", "dotted")))
@dataclass(frozen=True)
class UniformConfig:
    """Settings of uniform selection.

    Attributes:
        retain_ratio: share of each frame's tokens that reaches the LLM, in (0, 1]; the count is rounded up.
    """

    retain_ratio: float = 0.15

    def __post_init__(self) -> None:
        require_retain_ratio(self.retain_ratio)

    def build(self) -> Compressor:
        """A compressor with these settings, applied to no model yet."""
        return Compressor(UniformOuter(self), None)


class UniformOuter:
    """Selects the same strided positions of every frame."""

    question_free = True
    signals: tuple[str, ...] = ()
    keeps_positions = False

    def __init__(self, config: UniformConfig) -> None:
        self.config = config

    def __call__(self, video: EncodedVideo) -> CompressedTokens:
        """Keep the strided positions of every frame."""
        frames, tokens, _ = video.features.shape
        positions = uniform_positions(tokens, kept_per_frame(tokens, self.config.retain_ratio))
        index = np.arange(frames)[:, None] * tokens + positions
        return keep_selected(video.features, upload(video.features.device, index.ravel())[0])

    def most_kept(self, frames: int, tokens_per_frame: int) -> int:
        """Tokens a video of this size is compressed to, exactly."""
        return frames * kept_per_frame(tokens_per_frame, self.config.retain_ratio)


def uniform_positions(tokens: int, count: int) -> np.ndarray:
    """``count`` raster positions of a frame with equal steps between them, rounded down; the first is 0.

    >>> uniform_positions(7, 3).tolist()
    [0, 2, 4]
    """
    return np.arange(count) * tokens // count
