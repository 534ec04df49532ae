"""A decoder run the naive way with positions spelled out: one sequence, no cache, no mask, in float64."""

import torch
from torch import Tensor, nn

from tests.references.decoder import NaiveDecoder, _linear, _rms


@torch.no_grad()
def logits_at(model: nn.Module, embeds: Tensor, positions: list[int]) -> Tensor:
    """Logits (seq, vocab) of a sequence (seq, dim) whose tokens stand at ``positions``."""
    naive, states = NaiveDecoder(model, 0, 0.0), embeds.double()
    for layer in model.model.layers:
        output, _ = naive.attention(layer.self_attn, _rms(states, layer.input_layernorm), positions)
        states = states + output
        normed = _rms(states, layer.post_attention_layernorm)
        gate = nn.functional.silu(_linear(normed, layer.mlp.gate_proj))
        states = states + _linear(gate * _linear(normed, layer.mlp.up_proj), layer.mlp.down_proj)
    return _linear(_rms(states, model.model.norm), model.lm_head)
