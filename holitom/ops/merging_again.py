"""Doing again to other values of the tokens what was done to the tokens: sums in one fixed order, no decisions."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from holitom.ops.clustering import member_sums


def mean_of_sources(
    values: Float[Tensor, "frames tokens channels"], source: Int[Tensor, "frames tokens"], rows: int
) -> Float[Tensor, "rows channels"]:
    """Plain mean of the tokens that became each output row, in the dtype of the values.

    Args:
        values: of the original tokens.
        source: output row of each of them, -1 for dropped ones; every row has one at least.
        rows: output rows.
    """
    sums, sizes = member_sums(values.flatten(0, 1)[None].double(), source.flatten()[None].to(values.device), rows)
    return (sums[0] / sizes[0]).to(values.dtype)


def clusters_again(
    values: Float[Tensor, "groups tokens channels"],
    membership: Int[Tensor, "groups tokens"],
    heads: Int[Tensor, " clusters"],
    center_weight: float | None,
) -> Float[Tensor, "clusters channels"]:
    """Clusters of other values, merged as :func:`holitom.ops.clustering.merge_clusters` does; float64.

    Args:
        values: of the tokens that were clustered.
        membership: cluster of every token, -1 for tokens in none.
        heads: group * tokens + position of each cluster's centre.
        center_weight: see there.
    """
    flat = values.flatten(0, 1).double()
    owner = membership.flatten().index_fill(0, heads, -1)
    (sums,), (sizes,) = member_sums(flat[None], owner[None], len(heads))
    centers = flat.index_select(0, heads)
    if center_weight is None:
        return (sums + centers) / (sizes + 1)
    mixed = center_weight * centers + (1 - center_weight) * (sums / sizes.clamp_min(1))
    return torch.where(sizes > 0, mixed, centers)
