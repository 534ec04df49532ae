"""Temporal segmentation of HoliTom: which frames form a segment, found globally (HoliTom, Sec. 3.1)."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from holitom.ops.kernels import kernel_for
from holitom.ops.token_ops import to_host


def static_run_lengths(similarity: Float[Tensor, "pairs tokens"], threshold: float) -> Int[Tensor, "pairs tokens"]:
    """Number of consecutive frame pairs above the threshold that end with each pair.

    Args:
        similarity: similarity of each token to its successor.
        threshold: a token stands still over a pair if its similarity is strictly larger.

    Returns:
        int64 run lengths, 0 where the pair itself is not above the threshold.
    """
    if kernel := kernel_for("static_run_lengths", similarity):
        return kernel(similarity, threshold)
    pairs = similarity.shape[0]
    steps = torch.arange(1, pairs + 1, device=similarity.device)[:, None]
    if pairs == 0:
        return steps.expand(similarity.shape)
    moved = torch.where(similarity > threshold, 0, steps)
    return steps - moved.cummax(0).values


def static_counts(run_lengths: Int[Tensor, "pairs tokens"], longest: int) -> Int[Tensor, "pairs+1 longest"]:
    """Number of tokens that stand still over each window of frames.

    Args:
        run_lengths: result of :func:`static_run_lengths`.
        longest: longest window in frames.

    Returns:
        int32 counts by last frame and length - 1; a window of one frame counts every token, one that
        would begin before the video counts 0.
    """
    pairs, tokens = run_lengths.shape
    # Counting run lengths per last frame needs no frames x frames x tokens tensor; integer sums keep it exact.
    bins = torch.cat([run_lengths.new_zeros(1, tokens), run_lengths]).clamp_max(longest - 1)
    histogram = torch.zeros(pairs + 1, longest, dtype=torch.int32, device=bins.device)
    histogram.scatter_add_(1, bins, torch.ones_like(bins, dtype=torch.int32))
    return histogram.flip(1).cumsum(1, dtype=torch.int32).flip(1)


@dataclass(frozen=True)
class Segmentation:
    """A video cut into segments.

    Attributes:
        segments: first and last frame of every segment, both inclusive.
        static_counts: tokens that stand still over each segment; 0 for a segment of one frame.
        removable: tokens saved by keeping each static token once per segment.
    """

    segments: list[tuple[int, int]]
    static_counts: list[int]
    removable: int


def optimal_segments(static_counts: Int[Tensor, "frames longest"], max_segment_frames: int) -> Segmentation:
    """Cut the video so that as many tokens as possible become redundant (HoliTom, Sec. 3.1, dynamic programming).

    A window of L frames with n static tokens makes n * (L - 1) tokens removable. Of equally good
    segmentations the one whose last segment is shortest wins, and so on backwards.

    Args:
        static_counts: result of :func:`static_counts`, in host memory.
        max_segment_frames: longest segment allowed, in frames.

    Returns:
        The best segmentation.
    """
    counts = static_counts.numpy()
    frames, longest = counts.shape[0], min(counts.shape[1], max_segment_frames)
    # Only lengths at which some window saves tokens matter, and no window has more static tokens than a part of it.
    longest = max(1, bisect_left(range(longest), True, key=lambda column: not counts[:, column].any()))
    gains = counts[:, :longest] * np.arange(longest, dtype=np.int32)  # no more than the video has tokens
    # What the best cut of so many frames saves stands in reverse: options ordered by length then lie side by side.
    best, steps = np.zeros(frames + longest, dtype=np.int32), np.zeros(frames, dtype=np.int32)
    for last, gain in enumerate(gains):
        before = frames - last  # what lies beyond the video's beginning gains and saves nothing
        totals = best[before : before + longest] + gain
        steps[last] = step = totals.argmax()  # the first of equal values, hence the shortest
        best[before - 1] = totals[step]
    return walk_back(steps, counts)


def greedy_segments(static_counts: Int[Tensor, "frames longest"], max_segment_frames: int) -> Segmentation:
    """Cut the video from its start, each time where the segment at hand saves most by itself (ablation of Sec. 3.1).

    Of equally good lengths the shortest is taken. What follows is not looked at, so fewer tokens become redundant than
    with :func:`optimal_segments`, which takes and returns the same, never more.
    """
    counts, steps, first = static_counts.numpy(), np.zeros(len(static_counts), dtype=np.int64), 0
    while first < len(counts):
        lengths = np.arange(min(counts.shape[1], max_segment_frames, len(counts) - first))  # less 1, from here on
        step = (counts[first + lengths, lengths] * lengths).argmax()
        first += step + 1
        steps[first - 1] = step
    return walk_back(steps, counts)


def fixed_segments(static_counts: Int[Tensor, "frames longest"], max_segment_frames: int) -> Segmentation:
    """Cut the video every ``max_segment_frames`` frames, whatever it shows (ablation of Sec. 3.1)."""
    return walk_back(np.arange(len(static_counts)) % max_segment_frames, static_counts.numpy())


def walk_back(steps: np.ndarray, counts: np.ndarray) -> Segmentation:
    """Segments from the last frame on, each as long as ``steps`` says of the frame it ends with, and what they save.

    Args:
        steps: length - 1 of a window by its last frame; only where a segment ends it is looked at.
        counts: static tokens by last frame and length - 1.
    """
    segments, last, back = [], len(steps) - 1, steps.tolist()
    while last >= 0:
        segments.append((last - back[last], last))
        last -= back[last] + 1
    segments.reverse()
    static = [int(counts[last, last - first]) if last > first else 0 for first, last in segments]
    removable = sum(count * (last - first) for count, (first, last) in zip(static, segments, strict=True))
    return Segmentation(segments, static, removable)


SEGMENTERS: dict[str, Callable[[Tensor, int], Segmentation]] = {
    "global": optimal_segments,
    "greedy": greedy_segments,
    "fixed": fixed_segments,
}


def fetch_cut(
    runs: Tensor, norms: Tensor, received_attention: Tensor, rule: str, longest: int
) -> tuple[list[list[int]], Segmentation]:
    """Cut a video in one transfer; where there is a kernel for it, the device itself finds the best cut.

    The tensors are those of :func:`~holitom.methods.holitom.spatial_merging.make_plan`; no segment is longer than
    ``longest`` frames, at most the video's.

    Returns:
        Per frame 1 if all norms are finite, and 1 if all attention is; and what ``SEGMENTERS[rule]`` finds.
    """
    segment, given = SEGMENTERS[rule], (runs, norms, received_attention)
    if segment is optimal_segments and (kernel := kernel_for("best_windows", *given)):
        table = to_host(kernel(*given, longest))
        steps, counts = table[:, 2:].T.numpy()
        found = walk_back(steps, np.broadcast_to(counts[:, None], (len(counts), longest)))
    else:
        finite = [values.isfinite().all(1, keepdim=True) for values in (norms, received_attention)]
        table = to_host(torch.cat([*finite, static_counts(runs, longest)], dim=1))
        found = segment(table[:, 2:], longest)
    return table[:, :2].T.tolist(), found
