"""EVS, efficient video sampling (as in vLLM): keep what changed most since the frame before.

Stage: before the LLM, after projector and pooling; needs the features alone. The first frame always stays; of the other
tokens those least similar to the same position of the previous frame are kept, wherever in the video they are:
max(tokens of a frame, trunc(N * ``retain_ratio``)) of N tokens in all. vLLM names the share that goes, 1 - ratio. Kept
tokens are unchanged, in their order and at their original positions, so the LLM sees gaps; hence newlines within the
video (mm_newline_position grid and frame) are refused.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from holitom.checks import require_retain_ratio
from holitom.compressor import Compressor
from holitom.encoded_video import EncodedVideo
from holitom.errors import InputError
from holitom.methods import MethodFacts, register
from holitom.ops.exact_similarity import similarity_to
from holitom.ops.selection import check_finite, keep_selected
from holitom.ops.token_ops import highest, packed_positions
from holitom.tokens import CompressedTokens


@register("evs", MethodFacts("EVS", style=("#009E73", "<", "dotted")))
@dataclass(frozen=True)
class EvsConfig:
    """Settings of EVS.

    Attributes:
        retain_ratio: share of a video's tokens that reaches the LLM, in (0, 1]; rounded down, at least one frame.
    """

    retain_ratio: float = 0.15

    def __post_init__(self) -> None:
        require_retain_ratio(self.retain_ratio)

    def build(self) -> Compressor:
        """A compressor with these settings, applied to no model yet."""
        return Compressor(EvsOuter(self), None)


class EvsOuter:
    """EVS on the pooled tokens of one video."""

    question_free = True
    signals: tuple[str, ...] = ()
    keeps_positions = True
    checks_features = True

    def __init__(self, config: EvsConfig) -> None:
        self.config = config

    @torch.no_grad()
    def __call__(self, video: EncodedVideo) -> CompressedTokens:
        """Keep the first frame and what changed most.

        Raises:
            InputError: if newlines stand within the video.
        """
        if video.order == "raster":
            raise InputError(
                "mm_newline_position 'grid' or 'frame' is not supported by a method that keeps positions: "
                "use mm_newline_position = 'one_token'"
            )
        frames, tokens, _ = video.features.shape
        check_finite(features=video.features)
        later = torch.arange(1, frames, device=video.features.device)
        similarity = similarity_to(video.features, later, later - 1)
        count = self.most_kept(frames, tokens)
        kept = most_changed(similarity, count)
        return keep_selected(video.features, packed_positions(kept.view(1, -1), count)[0])

    def most_kept(self, frames: int, tokens_per_frame: int) -> int:
        """Tokens a video of this size is compressed to, exactly."""
        return max(tokens_per_frame, int(frames * tokens_per_frame * self.config.retain_ratio))


def most_changed(similarity: Float[Tensor, "pairs tokens"], count: int) -> Bool[Tensor, "pairs+1 tokens"]:
    """The ``count`` tokens of a video that differ most from their place one frame earlier (EVS).

    Args:
        similarity: cosine similarity of each token to the same position one frame later.
        count: tokens to keep, at least those of one frame: the first frame always stays.

    Returns:
        The kept tokens; ties go to the earlier frame and the lower position.
    """
    tokens = similarity.shape[1]
    change = torch.cat([similarity.new_full((1, tokens), torch.inf), 1 - similarity])
    counts = torch.full((1,), count, device=similarity.device)
    flat = change.view(1, -1)
    return highest(flat, torch.ones_like(flat, dtype=torch.bool), counts).view_as(change)
