"""Density-peak clustering of a padded batch of groups.

One program works on one row of distances, which it holds whole, so groups are limited to ``LARGEST_GROUP`` points. The
arithmetic is that of :mod:`holitom.ops.clustering`: distances in float32, everything that is compared in float64.
"""

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from holitom.ops.clustering import SAME_POINT
from holitom.ops.group_clustering import GroupBatch, GroupClusters
from holitom.ops.kernels import kernel
from holitom.ops.kernels.launching import as_bytes, on_device, packed_rows
from holitom.ops.kernels.products import shared_products
from holitom.ops.kernels.ranking import highest

LARGEST_GROUP = 2048  # points
_SLICE = 512


def row_width(n: int) -> int:
    """Size of the blocks that hold a row of ``n`` distances; few different ones, as each is compiled apart."""
    return max(128, triton.next_power_of_2(n))


@triton.jit(do_not_specialize=["lengths", "chosen", "width"])
def mean_over_frames(
    features, firsts, lengths, chosen, positions, out, width, dim, f_frame, f_token, SLICE: tl.constexpr
):
    """Average of one position over the frames of one segment."""
    point, depth = tl.program_id(0), tl.program_id(1) * SLICE + tl.arange(0, SLICE)
    segment = tl.load(chosen + point // width)
    token, first, length = tl.load(positions + point), tl.load(firsts + segment), tl.load(lengths + segment)
    at = features + first * f_frame + token * f_token + depth
    total = tl.zeros([SLICE], tl.float32)
    for _ in range(0, length):
        total += tl.load(at, mask=depth < dim, other=0.0).to(tl.float32)
        at += f_frame
    tl.store(out + point.to(tl.int64) * dim + depth, total / length.to(tl.float32), mask=depth < dim)


@kernel()
def segment_means(features: Tensor, firsts: Tensor, lengths: Tensor, chosen: Tensor, positions: Tensor) -> Tensor:
    """Averages of tokens over the frames of their segments, in one launch.

    Args:
        features: (frames, tokens, dim) in float32, float16 or bfloat16.
        firsts: (segments,) int64, first frame of each segment.
        lengths: (segments,) int64, frames of each segment.
        chosen: (batch,) int64, segments to average.
        positions: (batch, n) int64, tokens of each.

    Returns:
        (batch, n, dim) float32.
    """
    features, positions = packed_rows(features), positions.contiguous()
    (batch, width), dim = positions.shape, features.shape[2]
    means = torch.empty(batch, width, dim, dtype=torch.float32, device=features.device)
    strides = features.stride()[:2]
    with on_device(features):
        mean_over_frames[(batch * width, triton.cdiv(dim, _SLICE))](
            features, firsts, lengths, chosen, positions, means, width, dim, *strides, SLICE=_SLICE
        )
    return means


@triton.jit(do_not_specialize=["sizes", "n", "parts", "most"])
def distances_and_density(
    products, sizes, neighbors, squares, density, n, parts, dim, most, same_point, N: tl.constexpr
):
    """A row of squared distances, and minus the mean of its smallest ones."""
    batch, row = tl.program_id(0) // n, tl.program_id(0) % n
    other = tl.arange(0, N)
    inside = other < n
    products += batch.to(tl.int64) * parts * n * n
    # Of a pair's two products only one is there, and both of its points take that one.
    pair = tl.maximum(row, other) * n + tl.minimum(row, other)
    product, own, theirs = tl.zeros([N], tl.float64), tl.zeros([1], tl.float64), tl.zeros([N], tl.float64)
    for _ in range(0, parts):
        product += tl.load(products + pair, mask=inside, other=0.0)
        own += tl.load(products + row * n + row)
        theirs += tl.load(products + other * n + other, mask=inside, other=0.0)
        products += n * n
    lengths = own + theirs
    square = lengths - 2 * product
    square = tl.where(square > same_point * lengths, square / dim, 0.0).to(tl.float32)
    tl.store(squares + (batch.to(tl.int64) * n + row) * n + other, square, mask=inside)
    size = tl.load(sizes + batch)
    count = tl.maximum(tl.minimum(tl.load(neighbors + batch), size), 1)
    left = tl.where(other < size, square, float("inf"))
    total = tl.zeros([1], tl.float64)
    for taken in range(0, most):
        smallest = tl.min(left, 0)
        total += tl.where(taken < count, smallest, 0.0).to(tl.float64)
        at = tl.min(tl.where(left == smallest, other, N), 0)
        left = tl.where(other == at, float("inf"), left)
    mean = tl.where(row < size, -(total / count.to(tl.float64)), float("-inf"))
    tl.store(density + tl.program_id(0) + tl.arange(0, 1), mean)


@triton.jit(do_not_specialize=["n"])
def peak_scores(squares, density, scores, n, N: tl.constexpr):
    """Density plus logarithm of the distance to the nearest denser point, of one point."""
    batch, row = tl.program_id(0) // n, tl.program_id(0) % n
    other = tl.arange(0, N)
    inside = other < n
    own = tl.load(density + tl.program_id(0))
    theirs = tl.load(density + batch * n + other, mask=inside, other=float("-inf"))
    denser = inside & ((theirs > own) | ((theirs == own) & (other < row)))
    square = tl.load(squares + (batch.to(tl.int64) * n + row) * n + other, mask=inside, other=float("inf"))
    separation = tl.min(tl.where(denser, square, float("inf")), 0).to(tl.float64)
    # A separation of zero must still come before points that do not exist: the lowest number, not minus infinity.
    score = tl.maximum(own + 0.5 * tl.log(separation), -1.7976931348623157e308)
    tl.store(scores + tl.program_id(0), score)


@triton.jit(do_not_specialize=["sizes", "offsets", "chosen", "n", "m_row"])
def join_nearest(
    squares, peaks, sizes, offsets, chosen, positions, assignment, heads, membership, n, m_row, N: tl.constexpr
):
    """Cluster of one point; a peak leads its own cluster, even where another peak is the same vector."""
    batch, row = tl.program_id(0) // n, tl.program_id(0) % n
    other = tl.arange(0, N)
    inside = other < n
    peak = tl.load(peaks + batch * n + other, mask=inside, other=0).to(tl.int32)
    number = tl.cumsum(peak, 0) - peak
    square = tl.load(squares + (batch.to(tl.int64) * n + row) * n + other, mask=inside, other=float("inf"))
    square = tl.where(peak != 0, square, float("inf"))
    nearest = tl.min(tl.where(square == tl.min(square, 0), other, N), 0)
    own = tl.sum(tl.where(other == row, peak, 0), 0)
    cluster = tl.sum(tl.where(other == tl.where(own != 0, row, nearest), number, 0), 0).to(tl.int64)
    real = row < tl.load(sizes + batch)
    tl.store(assignment + tl.program_id(0), tl.where(real, cluster, -1))
    tl.store(heads + batch * n + cluster, row.to(tl.int64), mask=own != 0)
    column = membership + tl.load(chosen + batch) * m_row + tl.load(positions + tl.program_id(0))
    tl.store(column, cluster + tl.load(offsets + batch), mask=real)


@triton.jit(do_not_specialize=["counts", "offsets", "n", "width"])
def merge_members(
    points, assignment, heads, counts, offsets, positions, scores, features, centers, center_scores,
    n, width, dim, weight, rest_of_weight, PLAIN: tl.constexpr, CHUNK: tl.constexpr, SLICE: tl.constexpr,
):  # fmt: skip
    """Merged vector of one cluster, its centre and the centre's score."""
    batch, slot = tl.program_id(0) // width, tl.program_id(0) % width
    depth = tl.program_id(1) * SLICE + tl.arange(0, SLICE)
    if slot < tl.load(counts + batch):
        points += batch.to(tl.int64) * n * dim
        head = tl.load(heads + batch * n + slot)
        leader = tl.load(points + head * dim + depth, mask=depth < dim, other=0.0).to(tl.float64)
        total = tl.zeros([SLICE], tl.float64)
        members = 0
        for first in range(0, n, CHUNK):
            at = first + tl.arange(0, CHUNK)
            mine = tl.load(assignment + batch * n + at, mask=at < n, other=-1) == slot
            mine = mine & (at != head)
            left = tl.sum(mine.to(tl.int32), 0)
            members += left
            while left > 0:
                earliest = tl.min(tl.where(mine, at, n), 0)
                member = points + earliest.to(tl.int64) * dim + depth
                total += tl.load(member, mask=depth < dim, other=0.0).to(tl.float64)
                mine = mine & (at != earliest)
                left -= 1
        if PLAIN:
            merged = (total + leader) / (members + 1)
        else:
            # Numbers arrive as float32; two of them make up for a float64.
            share = tl.full([1], 0.0, tl.float64) + weight + rest_of_weight
            mixed = share * leader + (1.0 - share) * (total / tl.maximum(members, 1))
            merged = tl.where(members > 0, mixed, leader)
        row = tl.load(offsets + batch) + slot
        tl.store(features + row * dim + depth, merged.to(tl.float32).to(features.dtype.element_ty), mask=depth < dim)
        if tl.program_id(1) == 0:
            tl.store(centers + row, tl.load(positions + batch * n + head))
            tl.store(center_scores + row, tl.load(scores + batch * n + head))


def score_points(points: Tensor, sizes: Tensor, neighbors: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """:func:`holitom.ops.clustering.squared_distances` and ``density_peak_scores`` in three launches.

    Args:
        points: (batch, n, dim) float32 or float64, contiguous.
        sizes: (batch,) int64, points that exist, which come first.
        neighbors: (batch,) int64, k of the density.
        most: largest k.

    Returns:
        (batch, n, n) float32 and (batch, n) float64.
    """
    batch, n, dim = points.shape
    products = shared_products(points)
    squares = torch.empty(batch, n, n, dtype=torch.float32, device=points.device)
    density, scores = (torch.empty(batch, n, dtype=torch.float64, device=points.device) for _ in range(2))
    width = row_width(n)
    with on_device(points):
        distances_and_density[(batch * n,)](
            products, sizes, neighbors, squares, density, n, products.shape[1], dim, min(most, n), SAME_POINT, N=width
        )
        peak_scores[(batch * n,)](squares, density, scores, n, N=width)
    return squares, scores


@kernel(lambda points, features: points.shape[1] <= LARGEST_GROUP)
def cluster_batch(
    batch: GroupBatch, near: Tensor, most: int, center_weight: float | None, tables: GroupClusters
) -> None:
    """One padded batch of :func:`holitom.ops.group_clustering.cluster_groups` in seven launches.

    Args:
        batch: the groups; at most ``LARGEST_GROUP`` points each.
        near: (batch,) int64, k of the density per group.
        most: largest k, known on the host.
        center_weight: see :func:`holitom.ops.clustering.merge_clusters`.
        tables: where the clusters go; what padding would write is not written at all.
    """
    points, sizes, positions = batch.points.contiguous(), batch.sizes, batch.positions.contiguous()
    if points.dtype != torch.float64:
        points = points.float()  # Triton turns no halves into factors of a product in float64
    (count, n), dim, device = positions.shape, points.shape[2], points.device
    squares, scores = score_points(points, sizes, near, most)
    peaks = highest(scores, batch.valid, batch.counts)
    assignment, heads = (torch.empty(count, n, dtype=torch.int64, device=device) for _ in range(2))
    weight = center_weight or 0.0
    nearest_float = float(np.float32(weight))
    with on_device(points):
        join_nearest[(count * n,)](
            squares, as_bytes(peaks), sizes, batch.offsets, batch.chosen, positions, assignment, heads,
            tables.membership, n, tables.membership.stride(0), N=row_width(n),
        )  # fmt: skip
        merge_members[(count * batch.width, triton.cdiv(dim, _SLICE))](
            points, assignment, heads, batch.counts, batch.offsets, positions, scores,
            tables.features, tables.centers, tables.scores, n, batch.width, dim, nearest_float, weight - nearest_float,
            PLAIN=center_weight is None, CHUNK=64, SLICE=_SLICE,
        )  # fmt: skip
