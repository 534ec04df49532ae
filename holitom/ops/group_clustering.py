"""Density-peak clustering of many ragged groups of tokens, a bounded batch at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from holitom.ops.clustering import MergedClusters, density_peak_scores, merge_clusters, squared_distances
from holitom.ops.kernels import kernel_for
from holitom.ops.similarity import average_frames
from holitom.ops.token_ops import highest, packed_positions, upload

# Points (batch, n, dim) of features, for group numbers on the host, the same on the device, and token positions
# (batch, n).
Load = Callable[[Tensor, list[int], Tensor, Tensor], Tensor]

# Largest padded batch of points, in elements; a CPU's fits into its caches, a GPU prefers few launches.
BATCH_ELEMENTS, GPU_BATCH_ELEMENTS = 2**20, 2**25


@dataclass(frozen=True)
class GroupClusters:
    """Clusters of many ragged groups of tokens, listed group after group.

    Attributes:
        features: merged vectors.
        centers: token position of each centre, ascending within a group.
        membership: cluster (row of ``features``) of every token, -1 for tokens that are in none.
        scores: score of each centre, see :func:`~holitom.ops.clustering.density_peak_scores`; NaN where no distance was
            needed nor asked for.
    """

    features: Float[Tensor, "clusters dim"]
    centers: Int[Tensor, " clusters"]
    membership: Int[Tensor, "groups tokens"]
    scores: Float[Tensor, " clusters"]


@dataclass(frozen=True)
class GroupBatch:
    """Groups that are clustered together, padded to the same number of points.

    Attributes:
        points: token features.
        valid: which points exist.
        sizes: how many points exist per group.
        positions: token of every point.
        chosen: number of each group.
        counts: clusters per group.
        offsets: row of each group's first cluster.
        width: largest of ``counts``, known on the host.
    """

    points: Float[Tensor, "batch n dim"]
    valid: Bool[Tensor, "batch n"]
    sizes: Int[Tensor, " batch"]
    positions: Int[Tensor, "batch n"]
    chosen: Int[Tensor, " batch"]
    counts: Int[Tensor, " batch"]
    offsets: Int[Tensor, " batch"]
    width: int


@dataclass(frozen=True)
class TokenGroups:
    """Ragged groups of tokens.

    Attributes:
        mask: which tokens belong to each group.
        sizes: tokens per group, known on the host.
        clusters: clusters per group, at most its tokens; a group of 0 clusters vanishes.
        uploaded: their :func:`group_columns`, where the device of the mask has them already.
    """

    mask: Bool[Tensor, "groups tokens"]
    sizes: Sequence[int]
    clusters: Sequence[int]
    uploaded: Sequence[Int[Tensor, " chosen"]] | None = None


@dataclass(frozen=True)
class ClusterRule:
    """How groups are clustered.

    Attributes:
        neighbors: most neighbours of the density estimate.
        center_weight: see :func:`~holitom.ops.clustering.merge_clusters`.
        clusters_limit_neighbors: a group uses no more neighbours than it has clusters; otherwise only its number of
            tokens limits them.
        scored: every centre gets a score; otherwise those of a group that keeps all its points have NaN, and no
            distance between them is computed.
    """

    neighbors: int
    center_weight: float | None
    clusters_limit_neighbors: bool = True
    scored: bool = False


def cluster_groups(
    features: Float[Tensor, "frames tokens dim"], groups: TokenGroups, load: Load, rule: ClusterRule
) -> GroupClusters:
    """Cluster many groups of tokens, a bounded batch at a time.

    Args:
        features: token features; the merged vectors are of their width and dtype.
        groups: the groups and their numbers of clusters.
        load: gives the points that are clustered, such as :func:`frame_tokens`.
        rule: the settings.

    Returns:
        All clusters.
    """
    device, dim, total = groups.mask.device, features.shape[-1], sum(groups.clusters)
    columns = group_columns(groups.sizes, groups.clusters, rule.scored)
    order, sizes, clusters = (column.tolist() for column in columns[:3])
    # The last row and column collect what padding writes.
    tables = GroupClusters(
        torch.empty(total + 1, dim, dtype=features.dtype, device=device),
        torch.empty(total + 1, dtype=torch.int64, device=device),
        torch.full((len(groups.mask), groups.mask.shape[1] + 1), -1, device=device),
        torch.full((total + 1,), torch.nan, dtype=torch.float64, device=device),
    )
    uploaded = groups.uploaded or (upload(device, *columns) if order else [])
    parted = sum(rule.scored or size > count for size, count in zip(sizes, clusters, strict=True))
    for first, last in batches(sizes, dim, device.type == "cuda", parted):
        chosen, sized, counts, offsets = (column[first:last] for column in uploaded)
        positions = packed_positions(groups.mask.index_select(0, chosen), sizes[first])
        valid = torch.arange(positions.shape[1], device=device) < sized[:, None]
        points = load(features, order[first:last], chosen, positions)
        width = max(clusters[first:last])
        batch = GroupBatch(points, valid, sized, positions, chosen, counts, offsets, width)
        (keep_batch if first >= parted else cluster_batch)(batch, rule, tables)
    return GroupClusters(
        tables.features[:total], tables.centers[:total], tables.membership[:, :-1], tables.scores[:total]
    )


def group_columns(
    sizes: Sequence[int] | np.ndarray, clusters: Sequence[int] | np.ndarray, scored: bool = False
) -> tuple[np.ndarray, ...]:
    """Numbers, sizes, clusters and first rows of the groups that have clusters, in the order they are worked on.

    Groups of similar size share a batch, so little of it is padding; those that keep all their points come apart.
    """
    sized, counts = np.asarray(sizes, dtype=np.int64), np.asarray(clusters, dtype=np.int64)
    order = np.lexsort((-sized, (sized == counts) & (not scored)))
    order = order[counts[order] > 0]
    return order, sized[order], counts[order], (np.cumsum(counts) - counts)[order]


def batches(sizes: list[int], dim: int, on_gpu: bool = False, parted: int = 0) -> list[tuple[int, int]]:
    """Cut groups, given largest first, into runs whose padded points and distances stay within the budget.

    A run ends at the latest before group ``parted``, from which on sizes begin anew.
    """
    runs, first = [], 0
    budget = GPU_BATCH_ELEMENTS if on_gpu else BATCH_ELEMENTS
    while first < len(sizes):
        room = max(1, budget // (sizes[first] * max(dim, sizes[first])))
        runs.append((first, min(parted if first < parted else len(sizes), first + room)))
        first = runs[-1][1]
    return runs


def cluster_batch(batch: GroupBatch, rule: ClusterRule, tables: GroupClusters) -> None:
    """Cluster a batch of groups and write their rows of the tables."""
    points, valid, counts = batch.points, batch.valid, batch.counts
    limited, most = rule.clusters_limit_neighbors, rule.neighbors
    near = counts.clamp_max(most) if limited else torch.full_like(counts, most)
    most = min(most, batch.width) if limited else most
    if kernel := kernel_for("cluster_batch", points, tables.features):
        kernel(batch, near, most, rule.center_weight, tables)
        return
    squares = squared_distances(points)
    scores = density_peak_scores(squares, valid, near, most)
    peaks = highest(scores, valid, counts)
    merged = merge_clusters(points, squares, valid, peaks, batch.width, rule.center_weight)
    rows = write_clusters(batch, merged, tables)
    tables.scores.index_copy_(0, rows, scores.gather(1, merged.centers).flatten())


def keep_batch(batch: GroupBatch, _: ClusterRule, tables: GroupClusters) -> None:
    """Write a batch of groups whose every point is the centre of a cluster of its own."""
    own = torch.arange(batch.positions.shape[1], device=batch.points.device).expand_as(batch.positions)
    write_clusters(batch, MergedClusters(batch.points, own, own), tables)


def write_clusters(batch: GroupBatch, merged: MergedClusters, tables: GroupClusters) -> Int[Tensor, " slots"]:
    """Write a batch of clusters but for their scores; returns the row of each."""
    slot = torch.arange(merged.centers.shape[1], device=batch.points.device)
    rows = torch.where(slot < batch.counts[:, None], slot + batch.offsets[:, None], len(tables.centers) - 1).flatten()
    tables.features.index_copy_(0, rows, merged.features.flatten(0, 1).to(tables.features.dtype))
    tables.centers.index_copy_(0, rows, batch.positions.gather(1, merged.centers).flatten())
    last = tables.membership.shape[1] - 1
    table = tables.membership.new_full((len(batch.positions), last + 1), -1)
    table.scatter_(1, batch.positions.masked_fill(~batch.valid, last), merged.assignment + batch.offsets[:, None])
    tables.membership.index_copy_(0, batch.chosen, table)
    return rows


def frame_tokens(
    features: Float[Tensor, "frames tokens dim"],
    _: list[int],
    chosen: Int[Tensor, " batch"],
    positions: Int[Tensor, "batch n"],
) -> Float[Tensor, "batch n dim"]:
    """A frame's own tokens, where every frame is a group."""
    rows = chosen[:, None] * features.shape[1] + positions
    return features.flatten(0, 1).index_select(0, rows.flatten()).view(*positions.shape, -1)


def segment_means(
    segments: list[tuple[int, int]], extent: tuple[Int[Tensor, " segments"], Int[Tensor, " segments"]] | None = None
) -> Load:
    """The averages of a segment's tokens over its frames (float32), where every segment is a group.

    Args:
        segments: first and last frame of every segment, inclusive.
        extent: last frame of every segment and its length, where the device of the features has them already.
    """

    def load(features: Tensor, groups: list[int], chosen: Tensor, positions: Tensor) -> Tensor:
        if kernel := kernel_for("segment_means", features):
            ends = [last for _, last in segments], [last - first + 1 for first, last in segments]
            lasts, lengths = extent or upload(features.device, *ends)
            return kernel(features, lasts - lengths + 1, lengths, chosen, positions)
        return average_frames(features, [segments[group] for group in groups], positions)

    return load
