"""Windows of similar frames by clustering frame descriptors, for PruneVid (arXiv 2412.16117, temporal segmentation).

Frames are clustered by density peaks; labels of short stretches are then replaced, so that every window of consecutive
frames with one label has at least two of them (in a video of one frame: one).
"""

from itertools import groupby

import torch
from jaxtyping import Float, Int
from torch import Tensor

from holitom.ops.clustering import density_peak_scores, merge_clusters, squared_distances
from holitom.ops.token_ops import highest


def frame_labels(features: Float[Tensor, "frames tokens dim"], clusters: int, neighbors: int) -> Int[Tensor, " frames"]:
    """Label every frame with the nearest of the cluster centres among the mean-pooled frames.

    Args:
        features: token features in any floating dtype, finite.
        clusters: number of centres, at least 1 and at most the frames.
        neighbors: k of the density; limited to the number of frames.

    Returns:
        int64 labels below ``clusters``, numbered in the order of the centres.
    """
    points = features.mean(1, dtype=torch.float32)[None]
    squares = squared_distances(points)
    valid = torch.ones(points.shape[:2], dtype=torch.bool, device=points.device)
    count, near = (torch.full((1,), number, device=points.device) for number in (clusters, neighbors))
    centers = highest(density_peak_scores(squares, valid, near, neighbors), valid, count)
    return merge_clusters(points, squares, valid, centers, clusters, None).assignment[0]


def clean_labels(labels: list[int]) -> list[int]:
    """Replace the labels of runs that are shorter than the longest run of the same label.

    Runs of one frame never stay. Each stretch of replaced frames takes the label of the longer of its two neighbouring
    runs (the left one if they are equal), stretches further left being filled first.

    Args:
        labels: label per frame.

    Returns:
        Label per frame, all 0 if no run stays.
    """
    runs = [(label, len(list(run))) for label, run in groupby(labels)]
    longest: dict[int, int] = {}
    for label, length in runs:
        longest[label] = max(length, longest.get(label, 0))
    kept: list[int | None] = []
    for label, length in runs:
        kept += [label if length == longest[label] > 1 else None] * length
    stretches = [(label, len(list(run))) for label, run in groupby(kept)]
    filled: list[int] = []
    for number, (known, length) in enumerate(stretches):
        if known is None:
            following = stretches[number + 1] if number + 1 < len(stretches) else (None, 0)
            filled += [_longer(filled, following)] * length
        else:
            filled += [known] * length
    return filled


def _longer(before: list[int], following: tuple[int | None, int]) -> int:
    """Label of the longer of the run that ends ``before`` and the one that follows."""
    label, length = following
    left = len(next(([*run] for _, run in groupby(reversed(before))), []))
    if label is not None and length > left:
        return label
    return before[-1] if before else 0


def windows_of(labels: list[int]) -> list[tuple[int, int]]:
    """First and last frame, both inclusive, of every maximal run of equal labels."""
    windows, first = [], 0
    for _, run in groupby(labels):
        length = len(list(run))
        windows.append((first, first + length - 1))
        first += length
    return windows
