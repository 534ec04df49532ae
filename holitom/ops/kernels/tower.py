"""Attention that patches receive in one layer of the vision tower: two passes, no map in memory.

The column mean of a softmax cannot be had in one pass, because every row must be normalised first. So pass 1 finds the
logarithm of every row's sum of exponentials, pass 2 adds up ``exp(logit - log_sum)`` along the columns.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from holitom.ops.kernels import kernel
from holitom.ops.kernels.launching import heads_fit, on_device, packed_rows, precision_of, product

_LEAST = 16  # depth of a tile that tensor cores multiply
_SIZES = ["patches", "blocks", "q_image", "q_head", "q_row", "k_image", "k_head", "k_row"]  # one variant serves all


@triton.jit
def _vectors(base, places, patches, row, FIRST: tl.constexpr, WIDTH: tl.constexpr, HEAD: tl.constexpr):
    """(places, ``WIDTH``): values of some patches from depth ``FIRST`` on; 0 beyond the patches and the head."""
    depth = FIRST + tl.arange(0, WIDTH)
    inside = places[:, None] < patches
    if FIRST + WIDTH > HEAD:
        inside = inside & (depth[None, :] < HEAD)
    return tl.load(base + places[:, None] * row + depth[None, :], mask=inside, other=0.0)


@triton.jit
def _logits(q, q_rest, k, k_rest, scale, REST: tl.constexpr, PRECISION: tl.constexpr):
    """Tile of scaled dot products; 0 beyond the patches."""
    tile = product(q, k.T, PRECISION)
    if REST:
        tile += product(q_rest, k_rest.T, PRECISION)
    return tile * scale


@triton.jit(do_not_specialize=_SIZES)
def row_log_sums(
    query, key, log_sums, patches, heads, blocks, scale, q_image, q_head, q_row, k_image, k_head, k_row,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, HEAD: tl.constexpr, D: tl.constexpr, REST: tl.constexpr,
    UNIT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Pass 1: logarithm of the sum of exponentials of ``ROWS`` rows of one (image, head)."""
    pair, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    image, head = (pair // heads).to(tl.int64), (pair % heads).to(tl.int64)
    query += (image * q_image + head * q_head) * UNIT
    key += (image * k_image + head * k_head) * UNIT
    rows = block * ROWS + tl.arange(0, ROWS)
    largest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    q = _vectors(query, rows, patches, q_row * UNIT, 0, D, HEAD)
    q_rest = _vectors(query, rows, patches, q_row * UNIT, D, REST, HEAD) if REST else q
    for start in range(0, patches, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        k = _vectors(key, columns, patches, k_row * UNIT, 0, D, HEAD)
        k_rest = _vectors(key, columns, patches, k_row * UNIT, D, REST, HEAD) if REST else k
        logits = _logits(q, q_rest, k, k_rest, scale, REST, PRECISION)
        logits = tl.where(columns[None, :] < patches, logits, float("-inf"))
        larger = tl.maximum(largest, tl.max(logits, 1))
        total = total * tl.exp(largest - larger) + tl.sum(tl.exp(logits - larger[:, None]), 1)
        largest = larger
    tl.store(log_sums + pair.to(tl.int64) * patches + rows, largest + tl.log(total), mask=rows < patches)


@triton.jit(do_not_specialize=_SIZES)
def column_sums(
    query, key, log_sums, received, patches, heads, blocks, scale, q_image, q_head, q_row, k_image, k_head, k_row,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, HEAD: tl.constexpr, D: tl.constexpr, REST: tl.constexpr,
    UNIT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Pass 2: mean of the normalised weights of ``COLUMNS`` columns of one (image, head)."""
    pair, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    image, head = (pair // heads).to(tl.int64), (pair % heads).to(tl.int64)
    query += (image * q_image + head * q_head) * UNIT
    key += (image * k_image + head * k_head) * UNIT
    log_sums += pair.to(tl.int64) * patches
    columns = block * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros([COLUMNS], tl.float32)
    k = _vectors(key, columns, patches, k_row * UNIT, 0, D, HEAD)
    k_rest = _vectors(key, columns, patches, k_row * UNIT, D, REST, HEAD) if REST else k
    for start in range(0, patches, ROWS):
        rows = start + tl.arange(0, ROWS)
        q = _vectors(query, rows, patches, q_row * UNIT, 0, D, HEAD)
        q_rest = _vectors(query, rows, patches, q_row * UNIT, D, REST, HEAD) if REST else q
        logits = _logits(q, q_rest, k, k_rest, scale, REST, PRECISION)
        log_sum = tl.load(log_sums + rows, mask=rows < patches, other=float("inf"))
        total += tl.sum(tl.exp(logits - log_sum[:, None]), 0)
    tl.store(received + pair.to(tl.int64) * patches + columns, total / patches, mask=columns < patches)


def split_head(head_dim: int) -> tuple[int, int]:
    """Depth of the two tiles that hold a head, powers of two from 16 on; the second is 0 if one holds it as well."""
    padded = max(_LEAST, triton.next_power_of_2(head_dim))
    whole = padded // 2
    rest = max(_LEAST, triton.next_power_of_2(head_dim - whole))
    return (whole, rest) if whole >= _LEAST and whole + rest < padded else (padded, 0)


@kernel(heads_fit)
def received_attention(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """:func:`holitom.ops.attention_scores.received_attention` in three launches.

    Args:
        query: (images, heads, patches, head_dim), head_dim at most 256, in float32, float16 or bfloat16.
        key: the same.
        scale: factor in front of the dot products.

    Returns:
        (images, patches) float32.
    """
    images, heads, patches, head_dim = query.shape
    query, key = packed_rows(query), packed_rows(key)
    log_sums, received = (query.new_empty(images, heads, patches, dtype=torch.float32) for _ in range(2))
    # float32 tiles are twice as large; both fit into 100 KB of shared memory.
    small = 32 if query.dtype == torch.float32 or head_dim > 128 else 64
    blocks = triton.cdiv(patches, small)
    strides = (*query.stride()[:3], *key.stride()[:3])
    # Triton finds multiples of 16 by itself, and a head of 72 is none: with the unit it reads 16 bytes at a time.
    unit = 8 if all(stride % 8 == 0 for stride in strides) else 1
    whole, rest = split_head(head_dim)
    sizes = (patches, heads, blocks, scale, *(stride // unit for stride in strides))
    shapes = {"ROWS": small, "COLUMNS": small, "HEAD": head_dim, "D": whole, "REST": rest, "UNIT": unit}
    with on_device(query):
        for kernel, outputs in ((row_log_sums, (log_sums,)), (column_sums, (log_sums, received))):
            kernel[(images * heads * blocks,)](query, key, *outputs, *sizes, **shapes, PRECISION=precision_of(query))
    return received.mean(1)
