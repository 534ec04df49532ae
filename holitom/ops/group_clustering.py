"""Density-peak clustering of many ragged groups of tokens, a bounded batch at a time."""

from dataclasses import dataclass
from itertools import accumulate

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from holitom.ops.clustering import density_peak_scores, merge_clusters, squared_distances
from holitom.ops.group_batch import ClusterTables, GroupBatch
from holitom.ops.group_points import LoadPoints
from holitom.ops.kernels.dispatch import on_one_gpu
from holitom.ops.token_ops import highest, packed_positions, upload

# Largest padded batch of points, in elements (double precision); a GPU prefers few launches.
BATCH_ELEMENTS = 2**22
GPU_BATCH_ELEMENTS = 2**25
LARGEST_GROUP = 2048  # points that the kernels can cluster


@dataclass(frozen=True)
class GroupClusters:
    """Clusters of many ragged groups of tokens, listed group after group.

    Attributes:
        features: merged vectors.
        centers: token position of each centre, ascending within a group.
        membership: cluster (row of ``features``) of every token, -1 for tokens that are in none.
        scores: score of each centre, see :func:`density_peak_scores`.
    """

    features: Float[Tensor, "clusters dim"]
    centers: Int[Tensor, " clusters"]
    membership: Int[Tensor, "groups tokens"]
    scores: Float[Tensor, " clusters"]


def cluster_batch(batch: GroupBatch, tables: ClusterTables) -> None:
    """Cluster a batch of groups and write their rows of the tables."""
    points, positions, valid = batch.points, batch.positions, batch.valid
    if positions.shape[1] <= LARGEST_GROUP and on_one_gpu(points, tables.features):
        from holitom.ops.kernels import clusters as kernels  # noqa: PLC0415

        kernels.cluster(batch, tables)
        return
    squares = squared_distances(points)
    scores = density_peak_scores(squares, valid, batch.near, batch.most)
    peaks = highest(scores, valid, batch.counts)
    merged = merge_clusters(points, squares, valid, peaks, batch.width, batch.center_weight)
    slot = torch.arange(batch.width, device=points.device)
    rows = torch.where(slot < batch.counts[:, None], slot + batch.offsets[:, None], len(tables.centers) - 1).flatten()
    tables.features.index_copy_(0, rows, merged.features.flatten(0, 1).to(tables.features.dtype))
    tables.centers.index_copy_(0, rows, positions.gather(1, merged.centers).flatten())
    tables.scores.index_copy_(0, rows, scores.gather(1, merged.centers).flatten())
    last = tables.membership.shape[1] - 1
    table = tables.membership.new_full((len(positions), last + 1), -1)
    table.scatter_(1, positions.masked_fill(~valid, last), merged.assignment + batch.offsets[:, None])
    tables.membership.index_copy_(0, batch.chosen, table)


def cluster_groups(
    mask: Bool[Tensor, "groups tokens"],
    sizes: list[int],
    clusters: list[int],
    load: LoadPoints,
    dim: int,
    dtype: torch.dtype,
    neighbors: int,
    center_weight: float | None,
    clusters_limit_neighbors: bool = True,
) -> GroupClusters:
    """Cluster many groups of tokens, a bounded batch at a time.

    Args:
        mask: which tokens belong to each group.
        sizes: tokens per group, known on the host.
        clusters: clusters per group, at most its tokens; a group of 0 clusters vanishes.
        load: gives the points (batch, n, dim) for group numbers on the host, the same on the device, and token
            positions (batch, n).
        dim: width of the features.
        dtype: dtype of the result.
        neighbors: most neighbours of the density estimate.
        center_weight: see :func:`merge_clusters`.
        clusters_limit_neighbors: a group uses no more neighbours than it has clusters; otherwise only its number of
            tokens limits them.

    Returns:
        All clusters.
    """
    tokens, total, device = mask.shape[1], sum(clusters), mask.device
    starts = [0, *accumulate(clusters)]
    # Groups of similar size share a batch, so little of it is padding.
    order = sorted((group for group, count in enumerate(clusters) if count), key=lambda group: -sizes[group])
    # The last row and column collect what padding writes.
    tables = ClusterTables(
        torch.empty(total + 1, dim, dtype=dtype, device=device),
        torch.empty(total + 1, dtype=torch.int64, device=device),
        torch.full((len(mask), tokens + 1), -1, device=device),
        torch.empty(total + 1, dtype=torch.float64, device=device),
    )
    if order:
        columns = order, [sizes[g] for g in order], [clusters[g] for g in order], [starts[g] for g in order]
        ids, points, counts, offsets = upload(device, *columns)
    for first, last in batches([sizes[group] for group in order], dim, on_gpu=device.type == "cuda"):
        groups, count = order[first:last], counts[first:last]
        width = max(clusters[group] for group in groups)
        positions = packed_positions(mask.index_select(0, ids[first:last]), sizes[groups[0]])
        near = count.clamp_max(neighbors) if clusters_limit_neighbors else torch.full_like(count, neighbors)
        most = min(neighbors, width) if clusters_limit_neighbors else neighbors
        loaded = load(groups, ids[first:last], positions).double()
        sized = points[first:last]
        valid = torch.arange(positions.shape[1], device=device) < sized[:, None]
        batch = GroupBatch(
            loaded,
            valid,
            sized,
            positions,
            ids[first:last],
            count,
            offsets[first:last],
            width,
            near,
            most,
            center_weight,
        )
        cluster_batch(batch, tables)
    return GroupClusters(
        tables.features[:total], tables.centers[:total], tables.membership[:, :tokens], tables.scores[:total]
    )


def batches(sizes: list[int], dim: int, on_gpu: bool = False) -> list[tuple[int, int]]:
    """Cut groups, given largest first, into runs whose padded points and distances stay within the budget."""
    runs, first = [], 0
    budget = GPU_BATCH_ELEMENTS if on_gpu else BATCH_ELEMENTS
    while first < len(sizes):
        room = budget // (sizes[first] * max(dim, sizes[first]))
        runs.append((first, min(len(sizes), first + max(1, room))))
        first = runs[-1][1]
    return runs
