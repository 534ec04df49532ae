"""Density-peak clustering with k nearest neighbours (DPC-KNN) of a padded batch of groups.

The density of a point is exp(-mean of its k smallest squared distances, itself included); a centre is a
point that is dense and far from any denser point (Du, Ding and Jia, 2016). Everything is compared in the
logarithm, which orders points in the same way and cannot underflow.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from holitom.ops.cpu_memory import CHANNELS, work_buffer
from holitom.ops.token_ops import packed_positions

# Squared distances below this share of the squared lengths are beyond float32 features and count as zero.
SAME_POINT = 1e-13

STRIP = 48  # a gram matrix of more points is computed in strips of so many rows of one triangle


def gram_matrix(points: Float[Tensor, "batch n dim"]) -> Float[Tensor, "batch n n"]:
    """Inner products of all pairs in float64; on a CPU only those of one triangle are computed, the others mirrored."""
    batch, count, dim = points.shape
    size, channels = (count, dim) if points.is_cuda or count <= STRIP else (STRIP, CHANNELS)
    strips = [(first, min(first + size, count)) for first in range(0, count, size)]
    gram = torch.empty(batch, count, count, dtype=torch.float64, device=points.device)
    for start in range(0, dim, channels):
        some = points[:, :, start : start + channels]
        wide = work_buffer(some.shape, torch.float64, points.device).copy_(some)
        for first, last in strips:
            part = gram[:, first:last, :last]
            torch.baddbmm(part, wide[:, first:last], wide[:, :last].mT, beta=min(start, 1), out=part)
    for first, last in strips[1:]:
        gram[:, :first, first:last] = gram[:, first:last, :first].mT
    return gram


@torch.no_grad()
def squared_distances(points: Float[Tensor, "batch n dim"]) -> Float[Tensor, "batch n n"]:
    """Squared Euclidean distances per channel, |x - y|^2 / dim.

    The inner products run in double precision: points that share a large common part would otherwise lose
    most digits, and equal points would not be at equal distances.

    Args:
        points: token features.

    Returns:
        float32, exactly symmetric, with an exactly zero diagonal.
    """
    gram = gram_matrix(points)
    lengths = gram.diagonal(dim1=-2, dim2=-1)
    lengths = lengths[:, :, None] + lengths[:, None, :]
    squares = lengths - (gram + gram.mT)
    return torch.where(squares > lengths.mul_(SAME_POINT), squares.div_(points.shape[-1]), 0).float()


def log_density(
    squares: Float[Tensor, "batch n n"],
    valid: Bool[Tensor, "batch n"],
    neighbors: Int[Tensor, " batch"],
    most_neighbors: int,
) -> Float[Tensor, "batch n"]:
    """Logarithm of the local density: minus the mean of the k smallest squared distances, the own 0 included.

    Takes what :func:`density_peak_scores` takes; float64, minus infinity for points that do not exist.
    """
    distances = squares.masked_fill(~valid[:, None, :], torch.inf)
    count = neighbors.minimum(valid.sum(1)).clamp_min(1)
    most = min(most_neighbors, squares.shape[-1])
    if squares.device.type == "cpu":  # NumPy's sort of a row is faster than torch's topk of it
        nearest = torch.from_numpy(np.sort(np.from_dlpack(distances.detach()))[..., :most])  # NumPy shares the memory
    else:
        nearest = distances.topk(most, dim=-1, largest=False).values
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
        neighbors: k of the density per group; limited to the number of its points.
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


@dataclass(frozen=True)
class MergedClusters:
    """Clusters of a batch of groups, padded to the same number of clusters.

    Attributes:
        features: one merged vector per cluster, float32 (float64 of float64 points); 0 in unused slots.
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
    return MergedClusters(merged_members(points, assignment, centers, width, center_weight), slots, assignment)


def merged_members(
    points: Float[Tensor, "batch n dim"],
    assignment: Int[Tensor, "batch n"],
    centers: Bool[Tensor, "batch n"],
    width: int,
    center_weight: float | None,
) -> Float[Tensor, "batch width dim"]:
    """Weighted sum of each cluster's points, float64 for float64 points and float32 otherwise.

    Args:
        points: to be merged.
        assignment: cluster of each, in [0, width); -1 for points that are left out.
        centers: which points are centres; not looked at for a plain mean.
        width: largest number of clusters.
        center_weight: see :func:`merge_clusters`.
    """
    batch, _, dim = points.shape
    order, bag, first = bags(assignment, width)
    rows = points.flatten(0, 1)
    rows = rows if rows.dtype == torch.float64 else rows.float()
    if center_weight is None:
        merged = embedding_bag(order, rows, first, mode="mean")
    else:
        others = torch.diff(first, append=first.new_full((1,), len(bag))).index_select(0, bag) - 1
        weights = torch.full_like(others, center_weight, dtype=torch.float64)
        weights = torch.where(centers.flatten().index_select(0, order), weights, (1 - weights) / others)
        weights = weights.masked_fill(others == 0, 1).to(rows.dtype)
        merged = embedding_bag(order, rows, first, mode="sum", per_sample_weights=weights)
    return merged[:-1].view(batch, width, dim)  # what is left out fills the last bag


def bags(owner: Int[Tensor, "batch n"], width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of all points, cluster after cluster, the bag of each and where the bags begin.

    Bags of rows are added in order by one thread each, unlike scattered additions, and every row is read once. What is
    left out (``owner`` -1) fills the last bag.
    """
    groups = torch.arange(len(owner), device=owner.device)[:, None]
    bag = torch.where(owner < 0, len(owner) * width, groups * width + owner).flatten()
    order = bag.argsort(stable=True)
    bag = bag.index_select(0, order)
    return order, bag, torch.searchsorted(bag, torch.arange(len(owner) * width + 1, device=owner.device))


def rows_of(membership: Int[Tensor, "groups tokens"], rows: Int[Tensor, " clusters"]) -> Int[Tensor, "groups tokens"]:
    """Output row of each token from its cluster's row; -1 for tokens in no cluster."""
    return torch.cat([rows, rows.new_full((1,), -1)])[membership]
