"""VidCom2 (arXiv 2505.14454): unlike frames keep more tokens, and each frame those unlike its and the video's centre.

Stage: before the LLM, after projector and pooling; needs the features alone, and only the half of their channels that
varies least. Kept tokens are unchanged and in raster order; positions are contiguous. Budgets of the frames add up to
``retain_ratio`` but for rounding. Scores are float32 and ties go to the lower position, so that a run can be repeated.
Grid newlines stand where they do for every method here; the release puts all newlines of a frame after its tokens, also
of rows that keep none (at 64 x 169 and 15 % it has 832, and 703 are kept here).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from holitom.checks import require_retain_ratio
from holitom.compressor import Compressor
from holitom.encoded_video import EncodedVideo
from holitom.methods import MethodFacts, register
from holitom.methods.vidcom2.video_centers import unlike_centers
from holitom.ops.selection import check_finite, keep_selected
from holitom.tokens import CompressedTokens


@register("vidcom2", MethodFacts("VidCom2", style=("#56B4E9", "P", "solid")))
@dataclass(frozen=True)
class Vidcom2Config:
    """Settings of VidCom2.

    Attributes:
        retain_ratio: share of a video's tokens that reaches the LLM, in (0, 1]; every frame keeps at least one.
    """

    retain_ratio: float = 0.15

    def __post_init__(self) -> None:
        require_retain_ratio(self.retain_ratio)

    def build(self) -> Compressor:
        """A compressor with these settings, applied to no model yet."""
        return Compressor(Vidcom2Outer(self), None)


class Vidcom2Outer:
    """VidCom2 on the pooled tokens of one video."""

    question_free = True
    signals: tuple[str, ...] = ()
    keeps_positions = False
    checks_features = True

    def __init__(self, config: Vidcom2Config) -> None:
        self.config = config

    @torch.no_grad()
    def __call__(self, video: EncodedVideo) -> CompressedTokens:
        """Keep what is unlike the centres."""
        check_finite(features=video.features)
        kept, _ = unlike_centers(video.features, self.config.retain_ratio)
        return keep_selected(video.features, kept.flatten().nonzero().flatten())

    @torch.no_grad()
    def preference(self, video: EncodedVideo, kept: CompressedTokens) -> Tensor:
        """How unlike the centres each token is, whichever frame it is in; see :mod:`holitom.budget`."""
        return -unlike_centers(video.features, self.config.retain_ratio)[1]

    def most_kept(self, frames: int, tokens_per_frame: int) -> int:
        """Most tokens the budgets of the frames add up to.

        The shares of the frames add up to the ratio; rounding adds at most half a token to each frame, and less than
        one to a frame whose share is below half a token.
        """
        ratio, total = self.config.retain_ratio, frames * tokens_per_frame
        smallest_share = tokens_per_frame * ratio * (1 - 1 / frames)
        rounding = 0.5 if smallest_share >= 0.5 else 1.0
        return min(total, math.floor(ratio * total + rounding * frames + 1e-6))
