"""Dropping tokens that repeat what stands at their place in an earlier frame: the rules of DyCoke and EVS."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from holitom.ops.exact_similarity import similarity_to
from holitom.ops.token_ops import upload

GROUP = 4  # frames of one group of DyCoke


def group_references(frames: int, reference_groups: bool = False) -> np.ndarray:
    """Frame that each frame is compared with in DyCoke's groups of four (DyCoke, Sec. 3.2).

    The second and third frame of a group are compared with the first, the fourth with the third.

    Args:
        frames: frames of the video; the last group may be shorter.
        reference_groups: take the steps of the released code: the third frame of the last group stays whole if no
            frame follows the group, and the last of an odd number of frames vanishes.

    Returns:
        (frames,) int64: the frame to compare with, -1 for frames kept whole, -2 for a frame that vanishes.
    """
    number = np.arange(frames)
    place, start = number % GROUP, number - number % GROUP
    compared = np.select([place == 0, place == 3], [-1, start + 2], start)
    if reference_groups:
        compared[(place == 2) & (start + GROUP >= frames)] = -1
        if frames % 2:
            compared[-1] = -2
    return compared


def least_similar(similarity: Float[Tensor, "pairs tokens"], count: int) -> Int[Tensor, "pairs {count}"]:
    """Positions of the ``count`` lowest similarities of each row, the lowest first; ties go to the lower position."""
    return similarity.argsort(dim=1, stable=True)[:, :count]


def prune_groups(
    features: Float[Tensor, "frames tokens dim"],
    count: int,
    reference_groups: bool = False,
    similarity_order: bool = False,
) -> Int[Tensor, " kept"]:
    """Tokens that DyCoke's temporal merging keeps (DyCoke, Sec. 3.2): nothing is averaged, repetitions are dropped.

    Args:
        features: token features in any floating dtype.
        count: tokens kept of each frame that is compared with another.
        reference_groups: see :func:`group_references`.
        similarity_order: tokens of a pruned frame stand by ascending similarity, not in raster order.

    Returns:
        frame * tokens + position of the kept tokens, frame by frame.
    """
    frames, tokens, _ = features.shape
    compared = group_references(frames, reference_groups)
    pruned, whole = np.flatnonzero(compared >= 0), np.flatnonzero(compared == -1)
    sizes = np.select([compared >= 0, compared == -1], [count, tokens], 0)
    starts = np.cumsum(sizes) - sizes
    columns = pruned, compared[pruned], whole, starts[pruned], starts[whole]
    pruned_at, compared_at, whole_at, pruned_rows, whole_rows = upload(features.device, *columns)
    positions = pruned_at.new_zeros(len(pruned), 0)
    if count:
        positions = least_similar(similarity_to(features, pruned_at, compared_at), count)
    if not similarity_order:
        positions = positions.sort(dim=1).values
    index = torch.empty(int(sizes.sum()), dtype=torch.int64, device=features.device)
    inside, everything = (torch.arange(width, device=features.device) for width in (count, tokens))
    index[(pruned_rows[:, None] + inside).flatten()] = (pruned_at[:, None] * tokens + positions).flatten()
    index[(whole_rows[:, None] + everything).flatten()] = (whole_at[:, None] * tokens + everything).flatten()
    return index
