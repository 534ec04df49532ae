"""Spatial merging of HoliTom: tokens that move are selected by the attention they receive (HoliTom, Sec. 3.2)."""

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from holitom.ops.group_clustering import ClusterRule, GroupClusters, TokenGroups, cluster_groups, frame_tokens
from holitom.ops.token_ops import highest


def dynamic_budget(tokens: np.ndarray, ratio: float, contextual_ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """Number of selected and of clustered tokens that stand for each frame's dynamic tokens.

    Args:
        tokens: dynamic tokens per frame.
        ratio: share of them to keep, rounded up.
        contextual_ratio: share of the kept ones that are cluster centres; the rest is rounded half to even.

    Returns:
        Selected tokens and clusters per frame, int64.
    """
    kept = np.ceil(tokens * ratio).astype(np.int64)
    selected = np.rint(kept * (1 - contextual_ratio)).astype(np.int64)
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
    features: Float[Tensor, "frames tokens dim"], rest: TokenGroups, rule: ClusterRule
) -> GroupClusters:
    """Merge the dynamic tokens that were not selected into a few clusters per frame.

    Args:
        features: token features in any floating dtype.
        rest: dynamic tokens of each frame that were not selected.
        rule: how they are clustered.

    Returns:
        The clusters, frame by frame, in raster order of their centres.
    """
    return cluster_groups(rest, frame_tokens(features), rule)
