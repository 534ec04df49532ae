"""Spatial merging of HoliTom: tokens that move are selected by the attention they receive (HoliTom, Sec. 3.2)."""

import math

from jaxtyping import Bool, Float, Int
from torch import Tensor

from holitom.ops.group_clustering import GroupClusters, cluster_groups
from holitom.ops.group_points import frame_tokens
from holitom.ops.token_ops import highest


def dynamic_budget(tokens: int, ratio: float, contextual_ratio: float) -> tuple[int, int]:
    """Number of selected and of clustered tokens that stand for a frame's dynamic tokens.

    Args:
        tokens: dynamic tokens of the frame.
        ratio: share of them to keep, rounded up.
        contextual_ratio: share of the kept ones that are cluster centres; the rest is rounded half to even.

    Returns:
        Selected tokens and clusters.
    """
    kept = math.ceil(tokens * ratio)
    selected = round(kept * (1 - contextual_ratio))
    return selected, kept - selected


def select_dynamic(
    received_attention: Float[Tensor, "frames tokens"],
    dynamic: Bool[Tensor, "frames tokens"],
    counts: Int[Tensor, " frames"],
) -> Bool[Tensor, "frames tokens"]:
    """Mark the dynamic tokens of each frame that receive most attention; ties go to the lower position.

    Args:
        received_attention: attention every token receives in the vision tower, finite.
        dynamic: tokens that do not stand still.
        counts: tokens to select per frame.

    Returns:
        The selected tokens.
    """
    return highest(received_attention, dynamic, counts)


def merge_contextual(
    features: Float[Tensor, "frames tokens dim"],
    rest: Bool[Tensor, "frames tokens"],
    sizes: list[int],
    clusters: list[int],
    neighbors: int,
    center_weight: float | None,
) -> GroupClusters:
    """Merge the dynamic tokens that were not selected into a few clusters per frame.

    Args:
        features: token features in any floating dtype.
        rest: dynamic tokens that were not selected.
        sizes: such tokens per frame.
        clusters: clusters per frame.
        neighbors: most neighbours of the density estimate.
        center_weight: weight of a cluster's centre, None for the plain mean.

    Returns:
        The clusters, frame by frame, in raster order of their centres.
    """
    load = frame_tokens(features)
    return cluster_groups(rest, sizes, clusters, load, features.shape[-1], features.dtype, neighbors, center_weight)
