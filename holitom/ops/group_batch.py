"""A padded batch of groups and the tables that clustering fills: what the torch version and the kernels share."""

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor

# Squared distances below this share of the squared lengths are beyond float32 features and count as zero.
SAME_POINT = 1e-13


@dataclass(frozen=True)
class GroupBatch:
    """Groups that are clustered together, padded to the same number of points.

    Attributes:
        points: token features, float64.
        valid: which points exist.
        sizes: how many points exist per group.
        positions: token of every point.
        chosen: number of each group.
        counts: clusters per group.
        offsets: row of each group's first cluster.
        width: largest of ``counts``, known on the host.
        near: k of the density per group.
        most: largest k, known on the host.
        center_weight: see :func:`merge_clusters`.
    """

    points: Float[Tensor, "batch n dim"]
    valid: Bool[Tensor, "batch n"]
    sizes: Int[Tensor, " batch"]
    positions: Int[Tensor, "batch n"]
    chosen: Int[Tensor, " batch"]
    counts: Int[Tensor, " batch"]
    offsets: Int[Tensor, " batch"]
    width: int
    near: Int[Tensor, " batch"]
    most: int
    center_weight: float | None


@dataclass(frozen=True)
class ClusterTables:
    """:class:`GroupClusters` while they are filled; a last row (``membership``: column) is for what padding writes."""

    features: Float[Tensor, "rows dim"]
    centers: Int[Tensor, " rows"]
    membership: Int[Tensor, "groups columns"]
    scores: Float[Tensor, " rows"]
