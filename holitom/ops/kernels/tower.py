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


@triton.jit
def _logits(
    query, key, rows, columns, patches, head_dim, q_row, k_row, scale, D: tl.constexpr, PRECISION: tl.constexpr
):
    """Tile of scaled dot products; 0 beyond the patches."""
    depth = tl.arange(0, D)
    q_mask = (rows[:, None] < patches) & (depth[None, :] < head_dim)
    k_mask = (columns[None, :] < patches) & (depth[:, None] < head_dim)
    q = tl.load(query + rows[:, None] * q_row + depth[None, :], mask=q_mask, other=0.0)
    k = tl.load(key + columns[None, :] * k_row + depth[:, None], mask=k_mask, other=0.0)
    return product(q, k, PRECISION) * scale


@triton.jit(do_not_specialize=["patches", "blocks"])
def row_log_sums(
    query, key, log_sums, patches, heads, head_dim, blocks, scale,
    q_image, q_head, q_row, k_image, k_head, k_row,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Pass 1: logarithm of the sum of exponentials of ``ROWS`` rows of one (image, head)."""
    pair, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    image, head = (pair // heads).to(tl.int64), (pair % heads).to(tl.int64)
    query += image * q_image + head * q_head
    key += image * k_image + head * k_head
    rows = block * ROWS + tl.arange(0, ROWS)
    largest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    for start in range(0, patches, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        logits = _logits(query, key, rows, columns, patches, head_dim, q_row, k_row, scale, D, PRECISION)
        logits = tl.where(columns[None, :] < patches, logits, float("-inf"))
        larger = tl.maximum(largest, tl.max(logits, 1))
        total = total * tl.exp(largest - larger) + tl.sum(tl.exp(logits - larger[:, None]), 1)
        largest = larger
    tl.store(log_sums + pair.to(tl.int64) * patches + rows, largest + tl.log(total), mask=rows < patches)


@triton.jit(do_not_specialize=["patches", "blocks"])
def column_sums(
    query, key, log_sums, received, patches, heads, head_dim, blocks, scale,
    q_image, q_head, q_row, k_image, k_head, k_row,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Pass 2: mean of the normalised weights of ``COLUMNS`` columns of one (image, head)."""
    pair, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    image, head = (pair // heads).to(tl.int64), (pair % heads).to(tl.int64)
    query += image * q_image + head * q_head
    key += image * k_image + head * k_head
    log_sums += pair.to(tl.int64) * patches
    columns = block * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros([COLUMNS], tl.float32)
    for start in range(0, patches, ROWS):
        rows = start + tl.arange(0, ROWS)
        logits = _logits(query, key, rows, columns, patches, head_dim, q_row, k_row, scale, D, PRECISION)
        log_sum = tl.load(log_sums + rows, mask=rows < patches, other=float("inf"))
        total += tl.sum(tl.exp(logits - log_sum[:, None]), 0)
    tl.store(received + pair.to(tl.int64) * patches + columns, total / patches, mask=columns < patches)


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
    sizes = (patches, heads, head_dim, blocks, scale, *query.stride()[:3], *key.stride()[:3])
    shapes = {"ROWS": small, "COLUMNS": small, "D": max(16, triton.next_power_of_2(head_dim))}
    with on_device(query):
        for kernel, outputs in ((row_log_sums, (log_sums,)), (column_sums, (log_sums, received))):
            kernel[(images * heads * blocks,)](query, key, *outputs, *sizes, **shapes, PRECISION=precision_of(query))
    return received.mean(1)
