"""Which frames of a video are merged inside the vision tower, for EarlyTom (arXiv 2605.30010), and the merging.

The similarities of frames are computed on the device and fetched once; everything after that is a walk over a few dozen
numbers on the host.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from holitom.checks import require_finite
from holitom.ops.exact_similarity import exact_cosine
from holitom.ops.token_ops import upload

FRAMES_AT_ONCE = 16  # frames whose float32 copies are in memory at one time

Similarity = Callable[[int, int], float]
Segment = tuple[int, int]


@dataclass(frozen=True)
class MergeRule:
    """Settings of the merging at one layer.

    Attributes:
        threshold: a smoothed similarity below this ends a segment (tau).
        max_frames: a segment has fewer frames than this (M).
        smoothing: weight of the newest similarity (gamma).
        keep_last_middle: emit the last middle frame of a segment, which the release loses.
    """

    threshold: float
    max_frames: int
    smoothing: float = 0.9
    keep_last_middle: bool = False


@dataclass(frozen=True)
class MergedFrame:
    """A frame that goes on: ``weight`` * frame ``first`` + (1 - ``weight``) * frame ``second``; -1: it stays alone."""

    first: int
    second: int = -1
    weight: float = 1.0


@dataclass(frozen=True)
class FramePlan:
    """What happens at one layer.

    Attributes:
        segments: first and last frame of every segment before the merging, inclusive.
        frames: the frames that go on, in time order.
    """

    segments: list[Segment]
    frames: list[MergedFrame]

    def target(self, count: int) -> list[int]:
        """For each of ``count`` frames the merged frame it is in; -1 for a lost one."""
        into = [-1] * count
        for number, frame in enumerate(self.frames):
            into[frame.first] = number
            if frame.second >= 0:
                into[frame.second] = number
        return into


@torch.no_grad()
def frame_similarities(hidden: Float[Tensor, "frames tokens dim"], reach: int) -> Float[Tensor, "frames {reach}"]:
    """Mean over the positions of the cosine similarity of each frame to those after it; exactly 1 for equal frames.

    Args:
        hidden: states in any floating dtype.
        reach: how far to look: column k is the similarity to frame t + 1 + k; 0 behind the end.

    Returns:
        float64 on the device; not finite where a state is not.
    """
    frames = len(hidden)
    table = torch.zeros(frames, reach, dtype=torch.float64, device=hidden.device)
    for begin in range(0, frames, FRAMES_AT_ONCE):
        own = hidden[begin : begin + FRAMES_AT_ONCE].float()
        for step in range(min(reach, frames - 1 - begin)):
            later = hidden[begin + step + 1 : begin + step + 1 + len(own)].float()
            similar = exact_cosine(own[: len(later)], later)
            table[begin : begin + len(later), step] = similar.mean(-1, dtype=torch.float64)
    return table


def fetch_similarities(hidden: Float[Tensor, "frames tokens dim"], reach: int) -> Similarity:
    """:func:`frame_similarities` on the host, by the numbers of an earlier and a later frame; one transfer.

    Raises:
        InputError: if a state is not finite.
    """
    broken = hidden.isfinite().flatten(1).all(1).double()
    table = torch.cat([broken[:, None], frame_similarities(hidden, reach)], dim=1).tolist()
    require_finite("the vision tower's states", [int(row[0]) for row in table])
    return lambda earlier, later: table[earlier][later - earlier]


def stream_segments(frames: int, similarity: Similarity, rule: MergeRule) -> list[Segment]:
    """Cut a video as its frames come in: where they are no longer like the first of their segment, or it is full.

    The similarity to the segment's first frame is smoothed with the one before, 1 after a cut, so that a single unlike
    frame may pass.

    Returns:
        First and last frame of every segment, inclusive.
    """
    segments, start, smooth = [], 0, 1.0
    for frame in range(1, frames):
        smooth = rule.smoothing * similarity(start, frame) + (1 - rule.smoothing) * smooth
        if smooth < rule.threshold or frame - start + 1 >= rule.max_frames:
            segments.append((start, frame - 1))
            start, smooth = frame, 1.0
    return [*segments, (start, frames - 1)]


def thin_segment(segment: Segment, similarity: Similarity, keep_last_middle: bool = False) -> list[MergedFrame]:
    """Frames of one segment that go on: the first, the last, and what is left of those between.

    Two neighbours between them are mixed if they are more alike than the segment's ends and than the next pair, the
    earlier one by its share of the two similarities. The last frame between is lost, as in the release, where there are
    several.

    Args:
        segment: first and last frame, inclusive.
        similarity: of an earlier and a later frame.
        keep_last_middle: let that frame go on too, unless it was mixed.
    """
    first, last = segment
    if last - first < 3:
        return [MergedFrame(frame) for frame in range(first, last + 1)]
    ends = similarity(first, last)
    kept, frame, final = [MergedFrame(first)], first + 1, last - 1
    while frame < final:
        own = similarity(frame, frame + 1)
        following = similarity(frame + 1, frame + 2) if frame + 1 < final else None
        if following is not None and own > ends and own > following:
            share = own / (own + following) if following else 1.0
            kept.append(MergedFrame(frame, frame + 1, share))
            frame += 2
        else:
            kept.append(MergedFrame(frame))
            frame += 1
    if keep_last_middle:
        kept.append(MergedFrame(final))
    return [*kept, MergedFrame(last)]


def plan_frames(frames: int, similarity: Similarity, rule: MergeRule) -> FramePlan:
    """Segments and merged frames of one layer."""
    segments = stream_segments(frames, similarity, rule)
    thinned = [thin_segment(segment, similarity, rule.keep_last_middle) for segment in segments]
    return FramePlan(segments, [frame for part in thinned for frame in part])


def merge_frames(states: Float[Tensor, "frames ..."], plan: FramePlan) -> Float[Tensor, "merged ..."]:
    """The frames that go on, mixed in float32, in the dtype of the input; frames that stay alone are not changed."""
    kept = plan.frames
    mixed = [row for row, frame in enumerate(kept) if frame.second >= 0]
    columns = [frame.first for frame in kept], mixed, [kept[row].second for row in mixed]
    first, rows, second = upload(states.device, *columns)
    merged = states.index_select(0, first)
    if mixed:
        weight = torch.tensor([kept[row].weight for row in mixed], dtype=torch.float32).to(states.device)
        weight = weight.view(-1, *[1] * (states.dim() - 1))
        mix = weight * merged.index_select(0, rows).float() + (1 - weight) * states.index_select(0, second).float()
        merged.index_copy_(0, rows, mix.to(states.dtype))
    return merged
