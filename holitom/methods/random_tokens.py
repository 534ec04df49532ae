"""Random selection, a control: each frame keeps a random subset of its tokens, whatever the video shows.

Stage: before the LLM, after projector and pooling. Each frame keeps ceil(tokens * ``retain_ratio``) tokens, unchanged
and in raster order; positions are contiguous. The draw depends on ``seed`` and the frame's number alone, so a run can
be repeated on any device and a video is treated alike in any company. Average over seeds to say something about chance.
"""

from dataclasses import dataclass

import numpy as np

from holitom.checks import require_integer, require_retain_ratio
from holitom.compressor import Compressor
from holitom.encoded_video import EncodedVideo
from holitom.methods import MethodFacts, register
from holitom.ops.selection import keep_selected, kept_per_frame
from holitom.ops.token_ops import upload
from holitom.tokens import CompressedTokens


@register("random", MethodFacts(style=("#E69F00", "d", "dotted")))
@dataclass(frozen=True)
class RandomConfig:
    """Settings of random selection.

    Attributes:
        retain_ratio: share of each frame's tokens that reaches the LLM, in (0, 1]; the count is rounded up.
        seed: of the draw, at least 0.
    """

    retain_ratio: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        require_retain_ratio(self.retain_ratio)
        require_integer("seed", self.seed, 0, "the default is 0")

    def build(self) -> Compressor:
        """A compressor with these settings, applied to no model yet."""
        return Compressor(RandomOuter(self), None)


class RandomOuter:
    """Selects the drawn positions of every frame."""

    question_free = True
    signals: tuple[str, ...] = ()
    keeps_positions = False

    def __init__(self, config: RandomConfig) -> None:
        self.config = config

    def __call__(self, video: EncodedVideo) -> CompressedTokens:
        """Keep the drawn positions of every frame."""
        frames, tokens, _ = video.features.shape
        count = kept_per_frame(tokens, self.config.retain_ratio)
        index = np.arange(frames)[:, None] * tokens + random_positions(frames, tokens, count, self.config.seed)
        return keep_selected(video.features, upload(video.features.device, index.ravel())[0])

    def most_kept(self, frames: int, tokens_per_frame: int) -> int:
        """Tokens a video of this size is compressed to, exactly."""
        return frames * kept_per_frame(tokens_per_frame, self.config.retain_ratio)


def random_positions(frames: int, tokens: int, count: int, seed: int) -> np.ndarray:
    """``count`` different positions of each frame, ascending, drawn without a look at the video.

    The draw of a frame depends on the seed and the frame's number alone: not on the length of the video, other videos
    of the prompt, the device or torch's random state.

    Args:
        frames: frames of the video.
        tokens: tokens of each frame.
        count: positions to draw per frame.
        seed: at least 0.

    Returns:
        (frames, count) int64.
    """
    draws = np.random.Generator(np.random.PCG64(seed)).random((frames, tokens))
    return np.sort(draws.argsort(axis=1, kind="stable")[:, :count], axis=1)
