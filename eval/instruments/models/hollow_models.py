"""A tower layer and a decoder that do nothing but offer, at true size, what compression reads from them.

Attention and feed-forward layers are left out, so the time of a call is what the hooks on it add.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen2Config
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm, Qwen2RotaryEmbedding

TOWER_DIM, TOWER_HEADS = 1152, 16  # SigLIP so400m
HEAD_DIM, QUERY_HEADS_PER_KEY_HEAD = 128, 7  # Qwen2-7B: 28 query heads and 4 key heads at a width of 3584


class HollowTower(nn.Module):
    """The vision tower's last attention, or the tower itself, for a recorder: returns what it is given."""

    def __init__(self, dim: int = TOWER_DIM, heads: int = TOWER_HEADS) -> None:
        super().__init__()
        self.num_heads, self.scale = heads, (dim // heads) ** -0.5
        self.q_proj, self.k_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(images, patches, dim), unchanged; called as SigLIP's attention is."""
        return hidden_states


class _HollowAttention(nn.Module):
    """Projections that scores are computed from; shared by all layers, since only their sizes matter."""

    sliding_window = None

    def __init__(self, q_proj: nn.Linear, k_proj: nn.Linear) -> None:
        super().__init__()
        self.q_proj, self.k_proj = q_proj, k_proj
        self.head_dim, self.scaling = HEAD_DIM, HEAD_DIM**-0.5

    def forward(self, hidden_states: Tensor, **_: Any) -> Tensor:
        return hidden_states


class _HollowLayer(nn.Module):
    """A decoder layer without attention and feed-forward part; its norm runs only if a hook asks for it."""

    def __init__(self, attention: _HollowAttention, dim: int) -> None:
        super().__init__()
        self.self_attn, self.input_layernorm = attention, Qwen2RMSNorm(dim)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> Tensor:
        return self.self_attn(hidden_states=hidden_states, attention_mask=attention_mask, **kwargs)


class HollowDecoder(nn.Module):
    """Qwen2's decoder as far as inner stages know it, without cache.

    Args:
        dim: width; a multiple of 128.
        layers: number of layers.
    """

    def __init__(self, dim: int = 3584, layers: int = 28) -> None:
        super().__init__()
        heads = dim // HEAD_DIM
        key_heads = max(1, heads // QUERY_HEADS_PER_KEY_HEAD)
        self.config = Qwen2Config(
            hidden_size=dim,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=key_heads,
            attn_implementation="sdpa",
        )
        self.rotary_emb = Qwen2RotaryEmbedding(self.config)
        q_proj, k_proj = nn.Linear(dim, heads * HEAD_DIM), nn.Linear(dim, key_heads * HEAD_DIM)
        attentions = [_HollowAttention(q_proj, k_proj) for _ in range(layers)]
        self.layers = nn.ModuleList(_HollowLayer(attention, dim) for attention in attentions)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        video_spans: Tensor | None = None,
    ) -> Tensor:
        """(batch, seq, dim) through all layers; the arguments are those of Qwen2's decoder."""
        assert inputs_embeds is not None
        hidden = inputs_embeds
        if position_ids is None:
            position_ids = torch.arange(hidden.shape[1], device=hidden.device)[None]
        rotary = self.rotary_emb(hidden, position_ids)
        for layer in self.layers:
            hidden = layer(
                hidden,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=past_key_values,
                position_embeddings=rotary,
            )
        return hidden
