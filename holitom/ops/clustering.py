"""Density-peak clustering with k nearest neighbours (DPC-KNN) of a padded batch of groups.

The density of a point is exp(-mean of its k smallest squared distances, itself included); a centre is a
point that is dense and far from any denser point (Du, Ding and Jia, 2016). Everything is compared in the
logarithm, which orders points in the same way and cannot underflow.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from holitom.ops.group_batch import SAME_POINT
from holitom.ops.token_ops import highest, packed_positions

# A gram matrix of this many points or more is computed in so many strips of one triangle.
SMALLEST_STRIPPED, STRIPS = 64, 4


def gram_matrix(points: Float[Tensor, "batch n dim"]) -> Float[Tensor, "batch n n"]:
    """Inner products of all pairs; on a CPU only those of one triangle are computed, the others mirrored."""
    count = points.shape[1]
    if points.is_cuda or count < SMALLEST_STRIPPED:
        return points @ points.mT
    gram = points.new_empty(len(points), count, count)
    step = -(-count // STRIPS)
    for first in range(0, count, step):
        last = min(first + step, count)
        gram[:, first:last, :last] = points[:, first:last] @ points[:, :last].mT
        gram[:, :first, first:last] = gram[:, first:last, :first].mT
    return gram


def squared_distances(points: Float[Tensor, "batch n dim"]) -> Float[Tensor, "batch n n"]:
    """Squared Euclidean distances per channel, |x - y|^2 / dim.

    The inner products run in double precision: points that share a large common part would otherwise lose
    most digits, and equal points would not be at equal distances.

    Args:
        points: token features.

    Returns:
        float32, exactly symmetric, with an exactly zero diagonal.
    """
    wide = points.double()
    gram = gram_matrix(wide)
    lengths = gram.diagonal(dim1=-2, dim2=-1)
    lengths = lengths[:, :, None] + lengths[:, None, :]
    squares = lengths - (gram + gram.mT)
    return torch.where(squares > SAME_POINT * lengths, squares / points.shape[-1], 0).float()


def log_density(
    squares: Float[Tensor, "batch n n"],
    valid: Bool[Tensor, "batch n"],
    neighbors: Int[Tensor, " batch"],
    most_neighbors: int,
) -> Float[Tensor, "batch n"]:
    """Logarithm of the local density: minus the mean of the k smallest squared distances, the own 0 included.

    Args:
        squares: squared distances.
        valid: which points exist.
        neighbors: k per group; limited to the number of its points.
        most_neighbors: largest of them, known on the host.

    Returns:
        float64, minus infinity for points that do not exist.
    """
    distances = squares.masked_fill(~valid[:, None, :], torch.inf)
    count = neighbors.minimum(valid.sum(1)).clamp_min(1)
    nearest = distances.topk(min(most_neighbors, squares.shape[-1]), dim=-1, largest=False).values
    used = torch.arange(nearest.shape[-1], device=nearest.device) < count[:, None, None]
    mean = nearest.double().masked_fill(~used, 0).sum(-1) / count[:, None]
    return (-mean).masked_fill(~valid, -torch.inf)


def density_peak_scores(
    squares: Float[Tensor, "batch n n"],
    valid: Bool[Tensor, "batch n"],
    neighbors: Int[Tensor, " batch"],
    most_neighbors: int,
) -> Float[Tensor, "batch n"]:
    """Logarithm of the product of density and separation of every point.

    The separation of a point is its distance to the nearest denser one; for the densest point it is the largest
    distance of the group. Of two equally dense points the one with the lower index counts as denser.

    Args:
        squares: squared distances, see :func:`squared_distances`.
        valid: which points exist.
        neighbors: k of the density per group.
        most_neighbors: largest k, known on the host.

    Returns:
        float64, finite but for the densest point of a group, which has infinity.
    """
    density = log_density(squares, valid, neighbors, most_neighbors)
    own, other = density[:, :, None], density[:, None, :]
    index = torch.arange(density.shape[1], device=density.device)
    denser = (other > own) | ((other == own) & (index < index[:, None]))
    # The densest point gets an infinite separation instead of the largest distance: it ranks first either way.
    separation = squares.masked_fill(~denser, torch.inf).amin(-1)
    # A zero separation must still come before points that do not exist.
    return (density + 0.5 * separation.double().log()).clamp_min(torch.finfo(torch.float64).min)


def density_peak_centers(
    squares: Float[Tensor, "batch n n"],
    valid: Bool[Tensor, "batch n"],
    clusters: Int[Tensor, " batch"],
    neighbors: Int[Tensor, " batch"],
    most_neighbors: int,
) -> Bool[Tensor, "batch n"]:
    """Choose the cluster centres of every group, the highest of :func:`density_peak_scores`; ties to the lower index.

    Args:
        squares: squared distances.
        valid: which points exist.
        clusters: centres per group, at most its points.
        neighbors: k of the density per group.
        most_neighbors: largest k, known on the host.

    Returns:
        Mask with ``clusters`` centres per group.
    """
    return highest(density_peak_scores(squares, valid, neighbors, most_neighbors), valid, clusters)


@dataclass(frozen=True)
class MergedClusters:
    """Clusters of a batch of groups, padded to the same number of clusters.

    Attributes:
        features: one merged vector per cluster, float64.
        centers: point number of each centre, ascending; 0 in unused slots.
        assignment: cluster of every point, -1 for points that do not exist.
    """

    features: Float[Tensor, "batch width dim"]
    centers: Int[Tensor, "batch width"]
    assignment: Int[Tensor, "batch n"]


def merge_clusters(
    points: Float[Tensor, "batch n dim"],
    squares: Float[Tensor, "batch n n"],
    valid: Bool[Tensor, "batch n"],
    centers: Bool[Tensor, "batch n"],
    width: int,
    center_weight: float | None,
) -> MergedClusters:
    """Join every point to its nearest centre and merge each cluster into one vector.

    Args:
        points: token features.
        squares: squared distances of the points.
        valid: which points exist.
        centers: which points are centres.
        width: largest number of centres of a group.
        center_weight: weight of the centre against the mean of its other members (a centre alone stays as it
            is); None takes the plain mean of the whole cluster.

    Returns:
        The clusters, in the order of their centres.
    """
    slots = packed_positions(centers, width)
    slot = torch.arange(width, device=points.device)
    unused = slot >= centers.sum(1, keepdim=True)
    reach = squares.gather(2, slots[:, None, :].expand(-1, points.shape[1], -1))
    nearest = reach.masked_fill(unused[:, None, :], torch.inf).argmin(-1)
    # A centre leads its own cluster even where another centre is the same vector.
    assignment = torch.where(centers, centers.cumsum(1) - 1, nearest).masked_fill(~valid, -1)
    wide = points.double()
    sums, sizes = member_sums(wide, assignment.masked_fill(centers, -1), width)
    heads = wide.gather(1, slots[:, :, None].expand(-1, -1, points.shape[2]))
    if center_weight is None:
        features = (sums + heads) / (sizes + 1)
    else:
        mixed = center_weight * heads + (1 - center_weight) * (sums / sizes.clamp_min(1))
        features = torch.where(sizes > 0, mixed, heads)
    return MergedClusters(features, slots, assignment)


def member_sums(
    points: Float[Tensor, "batch n dim"], owner: Int[Tensor, "batch n"], width: int
) -> tuple[Float[Tensor, "batch width dim"], Int[Tensor, "batch width 1"]]:
    """Sum and number of each cluster's points; ``owner`` is -1 for points that are left out.

    Bags of rows are added in order by one thread each, unlike scattered additions, and every row is read once.
    """
    batch, _, dim = points.shape
    groups = torch.arange(batch, device=points.device)[:, None]
    bag = torch.where(owner < 0, batch * width, groups * width + owner).flatten()
    order = bag.argsort(stable=True)
    first = torch.searchsorted(bag.index_select(0, order), torch.arange(batch * width + 1, device=points.device))
    # What is left out fills the last bag, which is cut off.
    sums = embedding_bag(order, points.flatten(0, 1), first, mode="sum")[:-1]
    return sums.view(batch, width, dim), first.diff().view(batch, width, 1)
