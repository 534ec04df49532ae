"""Inner products of a few groups of points with thousands of channels, in enough programs to fill a GPU.

They are cut into tiles of points and shares of the channels; what reads them adds up the shares, always in the same
order.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from holitom.ops.kernels.launching import on_device

_TILE = 32  # points
_DEPTH = 32  # channels that a program multiplies at once
_PROGRAMS = 256  # enough for two on each multiprocessor of an H100; fixed, so that no sum depends on the device


def product_grid(batch: int, n: int, dim: int) -> tuple[tuple[int, int, int], int]:
    """Programs of :func:`partial_products`, and channels of a share; all by the shapes alone.

    Returns:
        Tiles on and below the diagonal, shares of the channels and groups; and channels, a multiple of the depth.
    """
    across = triton.cdiv(n, _TILE)
    tiles = across * (across + 1) // 2
    share = _DEPTH * triton.cdiv(dim, _DEPTH * triton.cdiv(_PROGRAMS, tiles * batch))
    return (tiles, triton.cdiv(dim, share), batch), share


@triton.jit(do_not_specialize=["n"])
def partial_products(points, products, n, dim, share, TILE: tl.constexpr, DEPTH: tl.constexpr):
    """Inner products of two tiles of points over a share of the channels."""
    tile, part, batch = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    across = 0
    while (across + 1) * (across + 2) // 2 <= tile:
        across += 1
    row = across * TILE + tl.arange(0, TILE)
    column = (tile - across * (across + 1) // 2) * TILE + tl.arange(0, TILE)
    points += batch * n * dim
    total = tl.zeros([TILE, TILE], tl.float64)
    for first in range(part * share, tl.minimum((part + 1) * share, dim), DEPTH):
        depth = first + tl.arange(0, DEPTH)
        inside = (depth < dim)[None, :]
        left = tl.load(points + row[:, None] * dim + depth[None, :], mask=inside & (row < n)[:, None], other=0.0)
        right = tl.load(points + column[:, None] * dim + depth[None, :], mask=inside & (column < n)[:, None], other=0.0)
        total = tl.dot(left.to(tl.float64), tl.trans(right.to(tl.float64)), total, out_dtype=tl.float64)
    products += (batch * tl.num_programs(1) + part) * n * n
    within = (row < n)[:, None] & (column < n)[None, :]
    tl.store(products + row[:, None] * n + column[None, :], total, mask=within)


def shared_products(points: Tensor) -> Tensor:
    """Inner products of all pairs of points in shares to be added up, in one launch.

    Args:
        points: (batch, n, dim) float32 or float64, contiguous.

    Returns:
        (batch, shares, n, n) float64, of which what lies above the diagonal is not to be read.
    """
    batch, n, dim = points.shape
    grid, share = product_grid(batch, n, dim)
    products = torch.empty(batch, grid[1], n, n, dtype=torch.float64, device=points.device)
    with on_device(points):
        partial_products[grid](points, products, n, dim, share, TILE=_TILE, DEPTH=_DEPTH)
    return products
