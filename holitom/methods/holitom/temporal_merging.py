"""Temporal merging of HoliTom: static tokens of a segment become few merged ones (HoliTom, Sec. 3.1)."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from holitom.ops.group_clustering import GroupClusters
from holitom.ops.token_ops import highest, packed_positions, upload


def adjusted_ratio(retain_ratio: float, total: int, removable: int) -> float:
    """Share of the tokens left after temporal merging that meets the budget of the whole video.

    Args:
        retain_ratio: share of all tokens to keep.
        total: tokens of the video.
        removable: tokens that temporal merging removes; fewer than ``total``.

    Returns:
        A share in (0, 1], in double precision.
    """
    # Dividing by the remaining share, as the release does, leaves the ratio itself exact when nothing is removable.
    return min(1.0, retain_ratio / ((total - removable) / total))


def static_masks(
    run_lengths: Int[Tensor, "pairs tokens"], last: Int[Tensor, " segments"], frames: Int[Tensor, " segments"]
) -> Bool[Tensor, "segments tokens"]:
    """Tokens that stand still over all frames of each segment; none in a segment of one frame.

    Args:
        run_lengths: result of :func:`holitom.methods.holitom.temporal_segmentation.static_run_lengths`.
        last: last frame of every segment.
        frames: number of frames of every segment.

    Returns:
        One mask per segment.
    """
    runs = torch.cat([run_lengths.new_zeros(1, run_lengths.shape[1]), run_lengths])
    # No run is negative, and none is as long as the video has frames.
    needed = torch.where(frames > 1, frames - 1, len(runs))
    return runs.index_select(0, last) >= needed[:, None]


def select_static(
    features: Float[Tensor, "frames tokens dim"],
    received_attention: Float[Tensor, "frames tokens"],
    masks: Bool[Tensor, "segments tokens"],
    segments: list[tuple[int, int]],
    kept: Sequence[int] | np.ndarray,
) -> GroupClusters:
    """Average every static token over its segment, then keep the averages that receive most attention (ablation).

    The attention of a token is its mean over the segment's frames; ties go to the lower position.

    Args:
        features: token features in any floating dtype.
        received_attention: attention every token receives in the vision tower, finite.
        masks: static tokens of each segment.
        segments: first and last frame of every segment, inclusive.
        kept: tokens to keep per segment, at most its static ones.

    Returns:
        Every kept token as a cluster of its own, segment by segment, in raster order.
    """
    attention = torch.stack([received_attention[first : last + 1].float().mean(0) for first, last in segments])
    means = torch.stack([features[first : last + 1].mean(0, dtype=torch.float32) for first, last in segments])
    chosen = highest(attention, masks, upload(features.device, kept)[0])
    at = packed_positions(chosen.view(1, -1), int(sum(kept)))[0]
    rows = torch.arange(len(at), device=at.device)
    membership = torch.full_like(chosen, -1, dtype=torch.int64).view(-1).index_copy_(0, at, rows).view_as(chosen)
    scores = attention.flatten().index_select(0, at).double()
    averages = means.flatten(0, 1).index_select(0, at).to(features.dtype)
    return GroupClusters(averages, at % masks.shape[1], membership, scores)
