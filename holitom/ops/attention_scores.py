"""How much attention a token receives: the two scores HoliTom ranks visual tokens by, without a full attention map."""

from collections.abc import Sequence
from itertools import groupby

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from holitom.checks import require_integer
from holitom.ops.kernels import kernel_for


def received_attention(
    query: Float[Tensor, "images heads patches head_dim"],
    key: Float[Tensor, "images heads patches head_dim"],
    scale: float,
    chunk: int = 1,
) -> Float[Tensor, "images patches"]:
    """Attention each patch of an image receives, averaged over the heads and over all patches that ask.

    HoliTom, Sec. 3.2: the saliency of a patch in the vision tower's last kept layer.

    Args:
        query: queries, (images, heads, patches, head_dim), any floating dtype.
        key: keys of the same shape.
        scale: factor in front of the dot products, usually ``head_dim ** -0.5``.
        chunk: images whose (heads, patches, patches) fp32 maps are in memory at one time. Less is needed on a CPU (one
            (patches, patches) map) and by the kernel on a GPU (none).

    Returns:
        (images, patches) fp32; every row sums to 1.

    Raises:
        InputError: if ``chunk`` is not a positive integer.
    """
    require_integer("chunk", chunk, 1, "1 uses the least memory")
    if query.shape[0] == 0:
        return query.new_zeros(0, query.shape[2], dtype=torch.float32)
    if kernel := kernel_for("received_attention", query, key):
        return kernel(query, key, scale)
    if query.device.type == "cpu":
        pairs = zip(query, key, strict=True)
        return torch.stack([_received_by_head(part.float(), other.float(), scale) for part, other in pairs])
    pairs = zip(query.split(chunk), key.split(chunk), strict=True)
    return torch.cat([_received_by_chunk(part.float(), other.float(), scale) for part, other in pairs])


def received_by_segment(
    query: Float[Tensor, "heads patches head_dim"],
    key: Float[Tensor, "heads patches head_dim"],
    lengths: Sequence[int],
    scale: float,
    block: int = 256,
) -> Float[Tensor, " patches"]:
    """:func:`received_attention` of frames of any size that are packed into one sequence.

    Args:
        query: queries, rotary embedding applied, any floating dtype.
        key: keys of the same shape.
        lengths: patches of each frame; a patch attends to its own frame alone.
        scale: factor in front of the dot products.
        block: queries whose (heads, block, patches of a frame) fp32 weights are in memory at one time.

    Returns:
        (patches,) fp32; the patches of every frame sum to 1.
    """
    assert sum(lengths) == query.shape[1], f"frames of {sum(lengths)} patches, {query.shape[1]} are given"
    scores, begin = [], 0
    for length, run in groupby(lengths):
        end = begin + length * (count := len(list(run)))
        asking, asked = (part[:, begin:end].unflatten(1, (count, length)).transpose(0, 1) for part in (query, key))
        begin = end
        if kernel_for("received_attention", asking, asked):  # needs no block, and takes equal frames at once
            scores.append(received_attention(asking, asked, scale).flatten())
        else:
            scores += [_received_in_blocks(*frame, scale, block) for frame in zip(asking, asked, strict=True)]
    return torch.cat(scores)


def _received_in_blocks(query: Tensor, key: Tensor, scale: float, block: int) -> Tensor:
    """:func:`received_attention` of one image, (heads, patches, head_dim), ``block`` queries at a time."""
    total = torch.zeros(key.shape[1], dtype=torch.float32, device=key.device)
    for part in query.split(block, dim=1):
        total += _received_by_chunk(part[None].float(), key[None].float(), scale)[0] * part.shape[1]
    return total / key.shape[1]


def _received_by_head(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """:func:`received_attention` of one image, (heads, patches, head_dim), a head at a time.

    A map of one head fits into a CPU's caches, where a pass over it costs a fraction of one over all heads.
    """
    pairs = zip(query * scale, key, strict=True)
    heads = [(asking @ asked.T).softmax(dim=-1).sum(dim=0) for asking, asked in pairs]
    return torch.stack(heads).mean(dim=0) / query.shape[1]


def _received_by_chunk(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """:func:`received_attention` of one chunk: one map, overwritten in place."""
    maps = (query * scale) @ key.transpose(-1, -2)
    maps.sub_(maps.amax(dim=-1, keepdim=True)).exp_()
    # Dividing by the row sums is folded into the average over the queries: normalised rows would be a second map.
    query_weights = maps.sum(dim=-1).reciprocal().unsqueeze(-2)
    return (query_weights @ maps).squeeze(-2).mean(dim=1) / query.shape[2]


def last_query_attention(
    query: Float[Tensor, "batch heads head_dim"],
    key: Float[Tensor, "batch kv_heads seq head_dim"],
    scale: float,
    padding_mask: Shaped[Tensor, "batch seq"] | None,
) -> Float[Tensor, "batch seq"]:
    """Attention of the last position to every position, averaged over the query heads.

    HoliTom, Sec. 3.3: the rank of a visual token inside the language model. The last position of a causal decoder sees
    the whole sequence, so one row of (heads, seq) numbers is all that is computed.

    Args:
        query: query of the last position, (batch, heads, head_dim), rotary embedding applied.
        key: keys of all positions, (batch, kv_heads, seq, head_dim); consecutive query heads share a key head.
        scale: factor in front of the dot products.
        padding_mask: (batch, seq), nonzero or True at real tokens; None if there is no padding.

    Returns:
        (batch, seq) fp32, 0 at padding; every row sums to 1.
    """
    batch, heads, head_dim = query.shape
    kv_heads = key.shape[1]
    if kernel := kernel_for("last_query_attention", query, key):
        return kernel(query, key, scale, padding_mask)
    grouped = query.float().reshape(batch, kv_heads, heads // kv_heads, head_dim)
    logits = (grouped * scale) @ key.float().transpose(-1, -2)
    if padding_mask is not None:
        logits = logits.masked_fill(~padding_mask.bool()[:, None, None, :], float("-inf"))
    return logits.softmax(dim=-1).mean(dim=(1, 2))
