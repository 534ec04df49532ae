"""Attention of one new token to a cache of fixed size, without a copy of its keys and values for grouped heads."""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

_SPLIT = 256  # cache entries that one program of the weighted sum walks through; all splits run side by side


def attend_to_cache(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor, scaling: float) -> Tensor:
    """Attention of one token per row to the open entries of the cache.

    Query heads that share a key head are taken as its queries, so nothing is repeated for them. On CUDA the cache is
    cut into splits: a kernel that gave one program to each key head would leave most of the GPU idle.

    Args:
        query: (batch, heads, head_dim), with rotary embedding.
        keys: (batch * kv_heads, capacity, head_dim), contiguous; every entry finite.
        values: the same for the values.
        bias: (batch, capacity), 0 for entries to attend to, minus infinity for the others; see :func:`bias_dtype`.
        scaling: factor of the scores.

    Returns:
        (batch, heads * head_dim) in the query's dtype.
    """
    if query.device.type == "cuda":
        return split_attention(query, keys, values, bias, scaling)
    batch, heads, head_dim = query.shape
    kv_heads = keys.shape[0] // batch
    attended = scaled_dot_product_attention(
        query.view(batch, kv_heads, heads // kv_heads, head_dim),
        keys.view(batch, kv_heads, -1, head_dim),
        values.view(batch, kv_heads, -1, head_dim),
        attn_mask=bias[:, None, None, :],
        scale=scaling,
    )
    return attended.reshape(batch, heads * head_dim)


def bias_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """Dtype of the bias: what the scores are added to."""
    return torch.float32 if device.type == "cuda" else dtype


def split_attention(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor, scaling: float) -> Tensor:
    """:func:`attend_to_cache` with matrix products: scores and sums in fp32, weights in the dtype of the values.

    The scores are one product whose columns are the entries; the weighted sum is one product per split.
    """
    batch, heads, head_dim = query.shape
    rows, capacity, _ = keys.shape
    group = batch * heads // rows
    scores = _product(query.reshape(rows, group, head_dim), keys.transpose(1, 2))
    scores = torch.add(bias.view(batch, 1, 1, capacity), scores.view(batch, -1, group, capacity), alpha=scaling)
    split = _SPLIT if capacity % _SPLIT == 0 else capacity
    weights = scores.softmax(dim=-1).view(rows, group, -1, split).transpose(1, 2)
    parts = weights.to(values.dtype, copy=True, memory_format=torch.contiguous_format)
    sums = _product(parts.view(-1, group, split), values.view(-1, split, head_dim))
    return sums.view(rows, -1, group, head_dim).sum(dim=1).to(query.dtype).view(batch, heads * head_dim)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Batched matrix product in fp32; the operands keep their dtype, so that no cache is copied."""
    if left.dtype == torch.float32:
        return torch.bmm(left, right)
    if left.device.type == "cuda":
        return torch.bmm(left, right, out_dtype=torch.float32)
    return torch.bmm(left.float(), right.float())
