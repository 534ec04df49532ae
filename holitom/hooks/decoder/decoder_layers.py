"""What compression inside the LLM asks of a decoder: checks, scores from an attention's input, rotary embeddings."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from holitom.errors import InputError
from holitom.hooks.call_names import causal_mask
from holitom.hooks.decoder.tensor_parallel import over_all_heads
from holitom.ops.attention_scores import last_query_attention


def checked_layers(decoder: Any, layer: int, setting: str) -> Any:
    """The decoder's layers, once it is clear that they can be hooked.

    Args:
        decoder: the decoder.
        layer: index of the layer that is to see fewer tokens; the one before it must exist.
        setting: what the user calls that number.

    Raises:
        InputError: if there are no ``layers[i].self_attn`` with ``q_proj`` and ``k_proj``, or not more than ``layer``
            of them.
        NotImplementedError: if a layer attends to less than the whole sequence.
    """
    layers: Any = getattr(decoder, "layers", None) or ()
    attentions = [getattr(each, "self_attn", None) for each in layers]
    if not attentions or not all(hasattr(module, "q_proj") and hasattr(module, "k_proj") for module in attentions):
        raise InputError(
            f"{type(decoder).__name__} cannot be compressed in: it must have layers[i].self_attn with q_proj and "
            "k_proj; give the decoder, usually model.model"
        )
    if not 1 <= layer < len(attentions):
        raise InputError(
            f"{setting} = {layer} is out of range: it must be in [1, {len(attentions) - 1}] for the "
            f"{len(attentions)} layers of this {type(decoder).__name__}; choose an earlier layer"
        )
    kinds = getattr(decoder.config, "layer_types", None) or ()
    windows = [getattr(module, "sliding_window", None) for module in attentions]
    if any(kind != "full_attention" for kind in kinds) or any(window is not None for window in windows):
        raise NotImplementedError("inner compression needs full attention in every layer; this decoder has other kinds")
    return layers


def check_supported(padding_mask: object, cache: object, what: str = "inner compression") -> None:
    """Raise for masks and caches whose size is fixed before the sequence is shortened.

    Args:
        padding_mask: the caller's mask, or the one that a cache of fixed size made transformers make.
        cache: the cache, or None.
        what: who needs it, for the message.

    Raises:
        NotImplementedError: for a cache whose layers cannot grow to different lengths, and for a mask that is not 2D.
    """
    from transformers import DynamicCache  # noqa: PLC0415

    supported = isinstance(cache, DynamicCache) and not cache.is_compileable and not any(cache.is_sliding)
    if cache is not None and not supported:
        raise NotImplementedError(
            f"{what} needs a DynamicCache of full-attention layers, not {type(cache).__name__}, whose size is fixed: "
            "leave out cache_implementation and past_key_values"
        )
    if padding_mask is not None and (not isinstance(padding_mask, Tensor) or padding_mask.ndim != 2):
        raise NotImplementedError(f"{what} needs a 2D attention_mask; 4D masks have the long sequence's size")


def left_padding(mask: Shaped[Tensor, "batch seq"]) -> tuple[int, ...]:
    """Index of each row's first real token. The one transfer to the host in a prefill.

    Raises:
        NotImplementedError: if a row is padded on the right, in the middle, or altogether.
    """
    real = (mask != 0).long()
    first, count = torch.stack([real.argmax(dim=-1), real.sum(dim=-1)]).tolist()
    if any(begin + length != mask.shape[1] for begin, length in zip(first, count, strict=True)):
        raise NotImplementedError("inner compression asks the last token of each row: only left padding is supported")
    return tuple(first)


def heads_of(
    attention: Any, which: Literal["q", "k"], hidden: Float[Tensor, "batch seq dim"]
) -> Float[Tensor, "batch heads seq head_dim"]:
    """Queries or keys of an attention module before rotary embedding, from its input.

    The projections are called as modules, so that offloaded or quantised weights are in place.
    """
    projection, norm = getattr(attention, f"{which}_proj"), getattr(attention, f"{which}_norm", nn.Identity())
    return norm(projection(hidden).unflatten(-1, (-1, attention.head_dim))).transpose(1, 2)  # Qwen3 has the norms


def rotated(
    heads: Float[Tensor, "batch heads seq head_dim"], position_embeddings: tuple[Tensor, Tensor]
) -> Float[Tensor, "batch heads seq head_dim"]:
    """Queries or keys with the rotary embedding of their positions."""
    from transformers.models.qwen2.modeling_qwen2 import rotate_half  # noqa: PLC0415

    cos, sin = (part.to(heads.device).unsqueeze(1) for part in position_embeddings)
    return heads * cos + rotate_half(heads) * sin


@torch.no_grad()
def score_tokens(
    attention: Any,
    hidden: Float[Tensor, "batch seq dim"],
    position_embeddings: tuple[Tensor, Tensor],
    padding_mask: Shaped[Tensor, "batch seq"] | None,
) -> Float[Tensor, "batch seq"]:
    """Attention of the last position to every position in one layer, fp32, from the input of its attention module.

    HoliTom, Sec. 3.3; FastV, Sec. 4.1; PyramidDrop, Sec. 3.2.
    """
    key = rotated(heads_of(attention, "k", hidden), position_embeddings)
    return ask_keys(attention, hidden, position_embeddings, key, padding_mask)


@torch.no_grad()
def ask_keys(
    attention: Any,
    hidden: Float[Tensor, "batch new dim"],
    position_embeddings: tuple[Tensor, Tensor],
    key: Float[Tensor, "batch kv_heads seq head_dim"],
    padding_mask: Shaped[Tensor, "batch seq"] | None,
) -> Float[Tensor, "batch seq"]:
    """Attention of the last position of ``hidden`` to keys that may come from a cache, fp32."""
    cos, sin = position_embeddings
    query = rotated(heads_of(attention, "q", hidden[:, -1:]), (cos[:, -1:], sin[:, -1:]))
    if padding_mask is not None:
        padding_mask = padding_mask.to(hidden.device)
    return over_all_heads(
        attention, last_query_attention(query.squeeze(2), key, attention.scaling, padding_mask), "mean"
    )


def rotary_of(
    kept: Int[Tensor, "batch short_seq"], position_embeddings: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Cosines and sines at the original positions of the kept tokens, each (batch, short_seq, head_dim)."""
    cos, sin = position_embeddings
    index = kept.clamp(min=0).to(cos.device).unsqueeze(-1).expand(-1, -1, cos.shape[-1])
    batch = kept.shape[0]
    return cos.expand(batch, -1, -1).gather(1, index), sin.expand(batch, -1, -1).gather(1, index)


def both_ways_mask(
    config: Any,
    hidden: Float[Tensor, "batch seq dim"],
    padding_mask: Shaped[Tensor, "batch seq"] | None,
    with_video: Sequence[bool],
) -> Tensor | None:
    """Mask of a prefill in which the rows ``with_video`` see later tokens too and the other rows do not.

    The released code runs the layer before the merge like this, and only on prompts with a video; a text-only row must
    not answer differently because of its neighbours.

    Raises:
        NotImplementedError: if rows differ and the attention implementation has no mask per row.
    """
    from transformers.masking_utils import create_bidirectional_mask  # noqa: PLC0415

    arguments = {"config": config, "inputs_embeds": hidden, "attention_mask": padding_mask}
    if all(with_video):
        # With padding the library is not asked whether the mask may be left out: it would wait for the device.
        return create_bidirectional_mask(**arguments, allow_is_bidirectional_skip=padding_mask is None)
    rows = torch.tensor(with_video, device=hidden.device)
    mask = causal_mask(None, **arguments, or_mask_function=lambda row, head, query, key: rows[row])
    if mask is None or mask.ndim != 4:
        raise NotImplementedError(
            f"causal = False with video and text-only rows in one batch needs masks per row, which "
            f"{config._attn_implementation} attention has not; use sdpa or batches of one kind"
        )
    return mask
