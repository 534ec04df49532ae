"""Cuts of a video where its frames differ, for FlashVID (arXiv 2602.08024; DySeg, after FastVID), on the device."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from holitom.ops.cpu_memory import work_buffer
from holitom.ops.exact_similarity import exact_cosine, frames_at_once


@torch.no_grad()
def frame_means(features: Float[Tensor, "frames tokens dim"]) -> Float[Tensor, "frames dim"]:
    """Mean token of every frame, float64."""
    means = torch.empty(len(features), features.shape[-1], dtype=torch.float64, device=features.device)
    step = frames_at_once(features)
    for some, mean in zip(features.split(step), means.split(step), strict=True):
        torch.mean(work_buffer(some.shape, mean.dtype, mean.device).copy_(some), 1, out=mean)
    return means


def frame_similarity(means: Float[Tensor, "frames dim"]) -> Float[Tensor, " pairs"]:
    """Cosine similarity of each frame's mean token to the next one's; not finite where a feature is not."""
    return exact_cosine(means[1:], means[:-1])


def cut_frames(
    similarity: Float[Tensor, " pairs"], threshold: float, min_segments: int, complementary: bool = True
) -> Bool[Tensor, " pairs"]:
    """After which frames the video is cut.

    Args:
        similarity: of each frame to the next one.
        threshold: a lower similarity is a cut.
        min_segments: where that gives fewer segments, the lowest of the other similarities are cuts too (all of them in
            a video of fewer frames); ties to the earlier frame.
        complementary: whether to cut more than the threshold asks for.

    Returns:
        Mask of the frames that end a segment, the last one left out.
    """
    natural = similarity < threshold
    if not complementary:
        return natural
    missing = min_segments - 1 - natural.sum()
    rank = similarity.masked_fill(natural, torch.inf).argsort(stable=True).argsort()
    return natural | (rank < missing)


@dataclass(frozen=True)
class FrameSegments:
    """Segments of a video on its device.

    Attributes:
        number: segment of every frame, ascending from 0; there are at most as many segments as frames.
        first: which frames begin a segment.
        lengths: frames in the segment of every frame.
    """

    number: Int[Tensor, " frames"]
    first: Bool[Tensor, " frames"]
    lengths: Int[Tensor, " frames"]


def segments_of(cuts: Bool[Tensor, " pairs"]) -> FrameSegments:
    """The segments between cuts, see :func:`cut_frames`."""
    first = torch.cat([cuts.new_ones(1), cuts])
    number = first.cumsum(0) - 1
    return FrameSegments(number, first, (number[:, None] == number).sum(1))


def mean_of_segments(means: Float[Tensor, "frames dim"], segments: FrameSegments) -> Float[Tensor, "frames dim"]:
    """Mean of all tokens of every frame's segment, from the frames' :func:`frame_means`."""
    same = (segments.number[:, None] == segments.number).double()
    return same @ means / segments.lengths[:, None]
