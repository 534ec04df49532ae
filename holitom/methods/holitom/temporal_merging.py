"""Temporal merging of HoliTom: static tokens of a segment become few merged ones (HoliTom, Sec. 3.1)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from holitom.ops.token_ops import highest, upload


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


def most_attended(
    received_attention: Float[Tensor, "frames tokens"],
    masks: Bool[Tensor, "segments tokens"],
    segments: list[tuple[int, int]],
    kept: list[int],
) -> Bool[Tensor, "segments tokens"]:
    """The static tokens that receive most attention, on the mean over their segment's frames (ablation).

    Args:
        received_attention: attention every token receives in the vision tower, finite.
        masks: static tokens of each segment.
        segments: first and last frame of every segment, inclusive.
        kept: tokens to keep per segment, at most its static ones; ties go to the lower position.
    """
    attention = torch.stack([received_attention[first : last + 1].float().mean(0) for first, last in segments])
    return highest(attention, masks, upload(attention.device, kept)[0])
