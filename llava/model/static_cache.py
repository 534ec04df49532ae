"""Keys and values of a running generation in tensors that never move, with what a step must know on the device."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from llava.model.decode_attention import bias_dtype
from llava.model.visual_compressor import LayerPrompt

_ROUND = 256  # capacities are multiples of this, so that prompts of similar length share one set of tensors
_SPARE = 2  # steps that warm up a capture; they write behind the prompt and are taken back


@dataclass
class PromptCache:
    """A prefilled prompt: what a static cache is filled from.

    Attributes:
        keys: per layer (batch, kv_heads, cached, head_dim).
        values: the same.
        layers: per layer what is special about it; equal objects stand for equal layers.
        positions: (batch, 1) int64, position of the first new token.
        new_tokens: how many tokens may follow.
    """

    keys: list[Tensor]
    values: list[Tensor]
    layers: Sequence[LayerPrompt]
    positions: Tensor
    new_tokens: int

    def __post_init__(self) -> None:
        for number, (key, layer) in enumerate(zip(self.keys, self.layers, strict=True)):
            cached = key.shape[2]
            if layer.real_tokens is not None and layer.real_tokens.shape[1] != cached:
                raise RuntimeError(
                    f"layer {number} holds {cached} tokens, its padding is known for {layer.real_tokens.shape[1]}: "
                    "the cache was changed after its prefill; prefill again"
                )

    def groups(self) -> tuple[range, ...]:
        """Layers that follow each other and hold the prompt alike."""
        kinds = [
            (key.shape[2], id(layer.real_tokens), id(layer.shift))
            for key, layer in zip(self.keys, self.layers, strict=True)
        ]
        found = [[number for number, _ in run] for _, run in groupby(enumerate(kinds), key=lambda pair: pair[1])]
        return tuple(range(numbers[0], numbers[-1] + 1) for numbers in found)


@dataclass
class LayerGroup:
    """Layers of one length: their tensors, and where the next token goes. All of it stays at its address.

    Attributes:
        layers: indices of the layers.
        keys: per layer (batch * kv_heads, capacity, head_dim).
        values: the same.
        slot: (1,) int64, entry the next token is written to.
        bias: (batch, capacity), 0 for filled entries and minus infinity elsewhere.
        cos: (new_tokens, batch, head_dim) of the positions of the new tokens.
        sin: the same, the first half of each vector negated (see :func:`rotate`).
    """

    layers: range
    keys: list[Tensor]
    values: list[Tensor]
    slot: Tensor
    bias: Tensor
    cos: Tensor
    sin: Tensor
    prompt: int = field(default=0)

    @property
    def capacity(self) -> int:
        """Entries per layer."""
        return self.bias.shape[1]

    def fill(self, prompt: PromptCache, rotary: Any) -> None:
        """Take over the group's layers of a prompt; nothing of an earlier one is left in reach."""
        first = self.layers[0]
        cached, layer = prompt.keys[first].shape[2], prompt.layers[first]
        for number, keys, values in zip(self.layers, self.keys, self.values, strict=True):
            for whole, part in ((keys, prompt.keys[number]), (values, prompt.values[number])):
                whole[:, :cached].copy_(part.flatten(0, 1))
                whole[:, cached:].zero_()  # masked entries still enter products: they must be finite
        self.prompt = cached
        self.slot.fill_(cached)
        self.bias.fill_(-torch.inf)
        self.bias[:, :cached] = 0
        if layer.real_tokens is not None:
            self.bias[:, :cached].masked_fill_(~layer.real_tokens.to(self.bias.device), -torch.inf)
        start = prompt.positions.to(self.bias.device)
        start = start if layer.shift is None else start - layer.shift.to(start.device)
        positions = start + torch.arange(self.cos.shape[0], device=start.device)
        cos, sin = rotary(self.keys[0], positions)
        half = cos.shape[-1] // 2
        self.cos.copy_(cos.transpose(0, 1))
        self.sin.copy_(torch.cat([-sin[..., :half], sin[..., half:]], dim=-1).transpose(0, 1))

    def open_slot(self, step: Tensor) -> tuple[Tensor, Tensor]:
        """Let the entry of the token at hand be attended to; returns its cosines and sines, (batch, 1, head_dim)."""
        self.bias.index_fill_(1, self.slot, 0)
        return tuple(table.index_select(0, step).transpose(0, 1) for table in (self.cos, self.sin))  # type: ignore[return-value]


def rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of (batch, heads, head_dim); bit for bit transformers' with half of the signs in ``sin``."""
    return heads * cos + heads.roll(heads.shape[-1] // 2, dims=-1) * sin


def capacities(prompt: PromptCache) -> list[int]:
    """Entries each group of a prompt needs, rounded up."""
    needed = [prompt.keys[group[0]].shape[2] + prompt.new_tokens + _SPARE for group in prompt.groups()]
    return [-(-count // _ROUND) * _ROUND for count in needed]


def table_length(new_tokens: int) -> int:
    """Rows of the tables that grow with the answer, rounded up."""
    return -(-(new_tokens + _SPARE) // _ROUND) * _ROUND


def allocate(prompt: PromptCache) -> list[LayerGroup]:
    """Groups of tensors that a prompt fits into, not filled yet."""
    groups = []
    rows = table_length(prompt.new_tokens)
    for layers, capacity in zip(prompt.groups(), capacities(prompt), strict=True):
        like = prompt.keys[layers[0]]
        batch, kv_heads, _, head_dim = like.shape
        device, dtype = like.device, like.dtype
        groups.append(
            LayerGroup(
                layers,
                [like.new_zeros(batch * kv_heads, capacity, head_dim) for _ in layers],
                [like.new_zeros(batch * kv_heads, capacity, head_dim) for _ in layers],
                torch.zeros(1, dtype=torch.long, device=device),
                torch.zeros(batch, capacity, dtype=bias_dtype(device, dtype), device=device),
                like.new_zeros(rows, batch, head_dim),
                like.new_zeros(rows, batch, head_dim),
            )
        )
    return groups
