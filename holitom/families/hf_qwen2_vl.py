"""Qwen2-VL as transformers' own, unmodified class: as Qwen2.5-VL, with a tower that has no window attention."""

from typing import Any

from torch import nn
from transformers import Qwen2VLForConditionalGeneration

from holitom.hooks.prompt.entrance import PromptEntrance
from holitom.hooks.prompt.instance_slot import set_slot, slot
from holitom.hooks.prompt.mrope_layout import mrope_entrance
from holitom.hooks.tower.packed_attention import no_tower_places, packed_recorder
from holitom.hooks.tower.parts import Recorder

__all__ = ["NAME", "decoder", "entrance", "matches", "recorder", "set_slot", "slot", "tower_places"]

NAME = "transformers.Qwen2VLForConditionalGeneration"


def matches(model: nn.Module) -> bool:
    """Whether the model is transformers' Qwen2-VL."""
    return isinstance(model, Qwen2VLForConditionalGeneration)


def decoder(model: Qwen2VLForConditionalGeneration) -> nn.Module:
    """The language model."""
    return model.model.language_model


def recorder(model: Qwen2VLForConditionalGeneration, name: str) -> Recorder:
    """Reads the attention of the last block."""
    return packed_recorder(model.model.visual.blocks[-1].attn, name)


tower_places = no_tower_places


def entrance(model: Qwen2VLForConditionalGeneration, compressor: Any) -> PromptEntrance:
    """The hooks by which the videos of a prompt reach the compressor."""
    return mrope_entrance(model, lambda call: None, compressor)
