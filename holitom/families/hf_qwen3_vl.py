"""Qwen3-VL as transformers' own, unmodified classes, dense or of experts: the processor's output in, ``generate`` out.

The prompt has a timestamp before each temporal step of a video and marks around its tokens; all of them stay where they
are, also those of a step that keeps no token, and a merged token stands in the step of its representative. The features
that the tower gives for the first decoder layers are selected and merged as the tokens are.

Received attention of a token (HoliTom, Sec. 3.2) is the attention its patches receive in the last block of the tower:
mean over the heads and over all patches of the same temporal step that ask, then over the patches that are merged into
the token. It is not the length of a feature, which stands for it in some ports.
"""

from typing import Any

from torch import nn
from transformers import Qwen3VLForConditionalGeneration, Qwen3VLMoeForConditionalGeneration

from holitom.hooks.prompt.entrance import PromptEntrance
from holitom.hooks.prompt.instance_slot import set_slot, slot
from holitom.hooks.prompt.mrope_layout import mrope_entrance
from holitom.hooks.tower.packed_attention import no_tower_places, packed_recorder
from holitom.hooks.tower.parts import Recorder

__all__ = ["NAME", "decoder", "entrance", "matches", "recorder", "set_slot", "slot", "tower_places"]

NAME = "transformers.Qwen3VLForConditionalGeneration"

tower_places = no_tower_places


def matches(model: nn.Module) -> bool:
    """Whether the model is transformers' Qwen3-VL."""
    return isinstance(model, Qwen3VLForConditionalGeneration | Qwen3VLMoeForConditionalGeneration)


def decoder(model: Any) -> nn.Module:
    """The language model."""
    return model.model.language_model


def recorder(model: Any, name: str) -> Recorder:
    """Reads the attention of the last block."""
    return packed_recorder(model.model.visual.blocks[-1].attn, name)


def entrance(model: Any, compressor: Any) -> PromptEntrance:
    """The hooks by which the videos of a prompt reach the compressor."""
    return mrope_entrance(model, lambda call: None, compressor, timestamps=True)
