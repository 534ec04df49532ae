"""Many questions behind one video in one pass: they share the prefix, and each sees the prefix and itself.

The decoder's own modules are used; only the order of computation differs from asking each question alone. Tests compare
the two.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Qwen2Config
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer, Qwen2Model, apply_rotary_pos_emb


def rotary(positions: Tensor, config: Qwen2Config) -> tuple[Tensor, Tensor]:
    """Cosine and sine of rotary positions, ``(positions, head_dim)`` each.

    The decoder's own ``rotary_emb`` rounds the frequencies another way: the last bit of every weight that the recipe
    trains would change.
    """
    size = config.hidden_size // config.num_attention_heads
    theta = config.rope_parameters["rope_theta"]
    angles = positions[:, None].float() * theta ** (-torch.arange(0, size, 2, device=positions.device).float() / size)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def _norm(states: Tensor, module: Any) -> Tensor:
    return F.rms_norm(states.float(), (states.shape[-1],), module.weight, module.variance_epsilon)


def _projections(layer: Qwen2DecoderLayer, states: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries ``(rows, heads, seq, size)``, rotated and scaled, keys and values ``(rows, kv heads, seq, size)``."""
    attention = layer.self_attn
    size = attention.head_dim
    normed = _norm(states, layer.input_layernorm)
    query, key, value = (
        projection(normed).unflatten(-1, (-1, size)).transpose(1, 2)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    cos, sin = cos.to(query.dtype), sin.to(query.dtype)
    query, key = apply_rotary_pos_emb(query * size**-0.5, key, cos, sin, unsqueeze_dim=0)
    return query, key, value


def _finished(layer: Qwen2DecoderLayer, states: Tensor, mixed: Tensor) -> Tensor:
    """Output projection and feed-forward network; ``mixed`` is ``(rows, heads, seq, size)``."""
    states = states + layer.self_attn.o_proj(mixed.transpose(1, 2).flatten(2)).float()
    return states + layer.mlp(_norm(states, layer.post_attention_layernorm)).float()


def _by_groups(query: Tensor, kv_heads: int) -> Tensor:
    """``(rows, heads, seq, size)`` to ``(rows, kv heads, group * seq, size)``: no copies of keys are needed."""
    return query.unflatten(1, (kv_heads, -1)).flatten(2, 3)


def _mask(length: int, device: torch.device) -> Tensor:
    return torch.full((length, length), -torch.inf, device=device).triu(1)


def prefix_pass(
    decoder: Qwen2Model, states: Tensor, tap: int | None = None
) -> tuple[list[tuple[Tensor, Tensor]], Tensor | None]:
    """Run the shared prefix.

    Args:
        decoder: the Qwen2 decoder.
        states: embeddings ``(videos, prefix, dim)``.
        tap: also return the states that enter this layer.

    Returns:
        Keys and values of every layer, ``(videos, kv heads, prefix, size)``, and the tapped states.
    """
    length = states.shape[1]
    cos, sin = rotary(torch.arange(length, device=states.device), decoder.config)
    mask = _mask(length, states.device)
    heads, kv_heads = decoder.config.num_attention_heads, decoder.config.num_key_value_heads
    cache, tapped = [], None
    for number, layer in enumerate(decoder.layers):
        tapped = states if number == tap else tapped
        query, key, value = _projections(layer, states, cos, sin)
        cache.append((key, value))
        if number == len(decoder.layers) - 1:
            break  # nothing reads the prefix's last states
        grouped = _by_groups(query, kv_heads)
        scores = grouped @ key.transpose(-1, -2)
        scores = scores.unflatten(2, (heads // kv_heads, length)) + mask.to(scores.dtype)
        mixed = scores.softmax(-1).to(value.dtype).flatten(2, 3) @ value
        states = _finished(layer, states, mixed.unflatten(2, (heads // kv_heads, length)).flatten(1, 2))
    return cache, tapped


def _question_layer(
    layer: Qwen2DecoderLayer, states: Tensor, shared: tuple[Tensor, Tensor], turn: tuple[Tensor, Tensor], mask: Tensor
) -> Tensor:
    """One layer on ``(videos, questions, length, dim)``."""
    videos, questions, length, _ = states.shape
    key_before, value_before = shared
    kv_heads = key_before.shape[1]
    query, key, value = _projections(layer, states.flatten(0, 1), *turn)
    group, size = query.shape[1] // kv_heads, query.shape[-1]
    split = query.unflatten(0, (videos, questions)).unflatten(2, (kv_heads, group))  # videos questions kv group length
    over_videos = split.permute(0, 2, 1, 3, 4, 5).reshape(videos, kv_heads, -1, size)
    before = over_videos @ key_before.transpose(-1, -2)
    before = before.view(videos, kv_heads, questions, group, length, -1).transpose(1, 2).flatten(0, 1)
    inside = _by_groups(query, kv_heads) @ key.transpose(-1, -2)
    inside = inside.unflatten(2, (group, length)) + mask.to(inside.dtype)
    weights = torch.cat([before, inside], dim=-1).softmax(-1).to(value.dtype)
    before, inside = weights.split([key_before.shape[2], length], dim=-1)
    before = before.unflatten(0, (videos, questions)).transpose(1, 2).flatten(2, 4) @ value_before
    before = before.view(videos, kv_heads, questions, group, length, size).transpose(1, 2).flatten(0, 1)
    mixed = before + (inside.flatten(2, 3) @ value).unflatten(2, (group, length))
    return _finished(layer, states.flatten(0, 1), mixed.flatten(1, 2)).unflatten(0, (videos, questions))


def question_pass(
    decoder: Qwen2Model, cache: list[tuple[Tensor, Tensor]], tokens: Tensor, tap: int | None = None
) -> tuple[Tensor, Tensor | None]:
    """Final hidden states of questions behind their videos.

    Args:
        decoder: the Qwen2 decoder.
        cache: of :func:`prefix_pass`.
        tokens: ``(videos, questions, length)``, padded on the right.
        tap: also return the states that enter this layer.

    Returns:
        ``(videos, questions, length, dim)`` after the last norm, and the tapped states.
    """
    states = decoder.embed_tokens(tokens).float()
    prefix, length = cache[0][0].shape[2], tokens.shape[2]
    turn = rotary(prefix + torch.arange(length, device=tokens.device), decoder.config)
    mask = _mask(length, tokens.device)
    tapped = None
    for number, (layer, shared) in enumerate(zip(decoder.layers, cache, strict=True)):
        tapped = states if number == tap else tapped
        states = _question_layer(layer, states, shared, turn, mask)
    return _norm(states, decoder.norm), tapped
