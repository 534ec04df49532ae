"""Attention of one query over all heads: softmax and mean over the heads in two launches.

Launch 1 multiplies, a block of keys and one key head at a time, and leaves each block's largest logit and its sum of
exponentials. Launch 2 joins these into every head's normaliser and averages the heads.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from holitom.ops.kernels import kernel
from holitom.ops.kernels.launching import as_bytes, heads_fit, on_device, packed_rows, precision_of, product

_KEYS = 64


@triton.jit(do_not_specialize=["mask", "logits", "largest", "totals", "seq", "parts", "m_batch"])
def block_logits(
    query, key, mask, logits, largest, totals, scale, seq, parts, head_dim, kv_heads,
    q_batch, q_head, k_batch, k_head, k_row, m_batch,
    GROUP: tl.constexpr, G: tl.constexpr, KEYS: tl.constexpr, D: tl.constexpr,
    MASKED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Logits of the query heads of one key head at ``KEYS`` keys, with their largest and sum of exponentials."""
    pair, part = tl.program_id(0), tl.program_id(1)
    batch, kv_head = (pair // kv_heads).to(tl.int64), (pair % kv_heads).to(tl.int64)
    members, depth = tl.arange(0, G), tl.arange(0, D)
    keys = part * KEYS + tl.arange(0, KEYS)
    real = keys < seq
    if MASKED:
        real = real & (tl.load(mask + batch * m_batch + keys, mask=real, other=0) != 0)
    heads = kv_head * GROUP + members
    q_at = query + batch * q_batch + heads[:, None] * q_head + depth[None, :]
    q = tl.load(q_at, mask=(members[:, None] < GROUP) & (depth[None, :] < head_dim), other=0.0)
    k_at = key + batch * k_batch + kv_head * k_head + keys.to(tl.int64)[None, :] * k_row + depth[:, None]
    k = tl.load(k_at, mask=(keys[None, :] < seq) & (depth[:, None] < head_dim), other=0.0)
    tile = product(q, k, PRECISION) * scale
    tile = tl.where(real[None, :], tile, float("-inf"))
    top = tl.max(tile, 1)
    # A block of padding alone has no largest logit: exp(-inf - 0) is 0, while -inf - -inf is not a number.
    total = tl.sum(tl.exp(tile - tl.where(top == float("-inf"), 0.0, top)[:, None]), 1)
    row = batch * kv_heads * GROUP + heads
    inside = members < GROUP
    tl.store(logits + row[:, None] * seq + keys[None, :], tile, mask=inside[:, None] & (keys[None, :] < seq))
    tl.store(largest + row * parts + part, top, mask=inside)
    tl.store(totals + row * parts + part, total, mask=inside)


@triton.jit(do_not_specialize=["logits", "largest", "totals", "seq", "parts"])
def mean_over_heads(
    logits, largest, totals, scores, seq, parts, heads, H: tl.constexpr, PARTS: tl.constexpr, KEYS: tl.constexpr
):
    """Softmax of ``KEYS`` columns, averaged over the heads."""
    batch, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    head = tl.arange(0, H)
    row = batch * heads + head
    top = tl.full([H], float("-inf"), tl.float32)
    total = tl.zeros([H], tl.float32)
    for start in range(0, parts, PARTS):
        part = start + tl.arange(0, PARTS)
        inside = (head[:, None] < heads) & (part[None, :] < parts)
        at = row[:, None] * parts + part[None, :]
        tops = tl.load(largest + at, mask=inside, other=float("-inf"))
        sums = tl.load(totals + at, mask=inside, other=0.0)
        higher = tl.maximum(top, tl.max(tops, 1))
        shift = tl.where(higher == float("-inf"), 0.0, higher)
        total = total * tl.exp(top - shift) + tl.sum(sums * tl.exp(tops - shift[:, None]), 1)
        top = higher
    keys = block * KEYS + tl.arange(0, KEYS)
    inside = (head[:, None] < heads) & (keys[None, :] < seq)
    tile = tl.load(logits + row[:, None] * seq + keys[None, :], mask=inside, other=float("-inf"))
    weights = tl.where(inside, tl.exp(tile - top[:, None]) / total[:, None], 0.0)
    tl.store(scores + batch * seq + keys, tl.sum(weights, 0) / heads, mask=keys < seq)


@kernel(heads_fit)
def last_query_attention(query: Tensor, key: Tensor, scale: float, padding_mask: Tensor | None) -> Tensor:
    """:func:`~holitom.ops.attention_scores.last_query_attention` in two launches (three if the mask is not Boolean).

    Args:
        query: (batch, heads, head_dim), head_dim at most 256, in float32, float16 or bfloat16.
        key: (batch, kv_heads, seq, head_dim) of the same dtype.
        scale: factor in front of the dot products.
        padding_mask: (batch, seq), nonzero at real tokens, of which every row has one; None without padding.

    Returns:
        (batch, seq) float32.
    """
    batch, heads, head_dim = query.shape
    kv_heads, seq = key.shape[1:3]
    query, key = packed_rows(query), packed_rows(key)
    parts, group = triton.cdiv(seq, _KEYS), heads // kv_heads
    buffer = query.new_empty(batch * heads * (seq + 2 * parts), dtype=torch.float32)
    logits, largest, totals = buffer.split([batch * heads * seq, batch * heads * parts, batch * heads * parts])
    scores = query.new_empty(batch, seq, dtype=torch.float32)
    masked = padding_mask is not None
    # Without a mask the argument is never read.
    mask = as_bytes(padding_mask.bool().contiguous()) if padding_mask is not None else scores
    strides = (*query.stride()[:2], *key.stride()[:3], seq)
    shapes = {"KEYS": _KEYS, "D": max(16, triton.next_power_of_2(head_dim)), "PRECISION": precision_of(query)}
    shapes |= {"GROUP": group, "G": max(16, triton.next_power_of_2(group)), "MASKED": masked}
    with on_device(query):
        block_logits[(batch * kv_heads, parts)](
            query, key, mask, logits, largest, totals, scale, seq, parts, head_dim, kv_heads, *strides, **shapes
        )
        mean_over_heads[(batch, parts)](
            logits, largest, totals, scores, seq, parts, heads, H=triton.next_power_of_2(heads), PARTS=16, KEYS=_KEYS
        )
    return scores
