"""Flash attention's contract on CPU: no kernel, but the same demands on masks, positions and ``is_causal``.

A mask is None or 2D, (batch, cached + new tokens), as ``flash_attention_mask`` makes it; gaps in ``position_ids`` of a
single row mean packed sequences; without padding and packing every row is causal, aligned to the last token.
"""

from itertools import pairwise

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import flash_attention_mask
from transformers.modeling_flash_attention_utils import _is_packed_sequence

NAME = "varlen_contract"  # transformers looks for a kernel on the hub if the name contains "flash"


def _attend(query: Tensor, key: Tensor, value: Tensor, scaling: float, causal: bool) -> Tensor:
    """Attention of one sequence, (heads, queries, head_dim), causal from the last token backwards."""
    logits = query @ key.transpose(-1, -2) * scaling
    if causal:
        n_query, n_key = logits.shape[-2:]
        future = torch.arange(n_key) > torch.arange(n_query)[:, None] + n_key - n_query
        logits = logits.masked_fill(future, float("-inf"))
    return logits.float().softmax(-1).to(value.dtype) @ value


def varlen_attention(module, query, key, value, attention_mask, scaling, is_causal=None, position_ids=None, **kwargs):
    """Attention function of transformers: (batch, heads, seq, head_dim) in, (batch, seq, heads, head_dim) out."""
    assert "video_spans" not in kwargs, "no attention function may see the spans"
    causal = module.is_causal if is_causal is None else is_causal
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    value = value.repeat_interleave(query.shape[1] // value.shape[1], dim=1)
    n_query, n_key = query.shape[2], key.shape[2]
    output = torch.zeros_like(query)
    if attention_mask is not None:
        assert attention_mask.shape == (query.shape[0], n_key), "flash attention needs a 2D mask of the cache's length"
        for row, real in enumerate(attention_mask.bool()):
            asked = real[-n_query:]
            parts = query[row][:, asked], key[row][:, real], value[row][:, real]
            output[row][:, asked] = _attend(*parts, scaling, causal)
    elif _is_packed_sequence(position_ids, query.shape[0]):
        cuts = [0, *(torch.nonzero(position_ids[0].diff() != 1).flatten() + 1).tolist(), n_query]
        for start, stop in pairwise(cuts):
            parts = (part[0][:, start:stop] for part in (query, key, value))
            output[0][:, start:stop] = _attend(*parts, scaling, causal)
    else:
        for row in range(query.shape[0]):
            output[row] = _attend(query[row], key[row], value[row], scaling, causal)
    return output.transpose(1, 2).contiguous(), None


def register() -> str:
    """Make the attention function known to transformers; returns its name."""
    AttentionInterface.register(NAME, varlen_attention)
    AttentionMaskInterface.register(NAME, flash_attention_mask)
    return NAME
