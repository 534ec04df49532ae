"""Qwen2.5-VL as transformers' own, unmodified class: the processor's output in, ``generate`` out.

Received attention of a token (HoliTom, Sec. 3.2) is the attention its patches receive in the last block of the tower
that attends to whole frames: mean over the heads and over all patches of the same temporal step that ask, then over the
patches that are merged into the token. Blocks with window attention do not compare the patches of different windows.
"""

from typing import Any

from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.vision_utils import get_vision_window_index

from holitom.hooks.prompt.entrance import PromptEntrance
from holitom.hooks.prompt.instance_slot import set_slot, slot
from holitom.hooks.prompt.mrope_layout import mrope_entrance
from holitom.hooks.prompt.prompt_layout import TowerCall
from holitom.hooks.tower.packed_attention import no_tower_places, packed_recorder
from holitom.hooks.tower.parts import Recorder

__all__ = ["NAME", "decoder", "entrance", "matches", "recorder", "set_slot", "slot", "tower_places"]

NAME = "transformers.Qwen2_5_VLForConditionalGeneration"


def matches(model: nn.Module) -> bool:
    """Whether the model is transformers' Qwen2.5-VL."""
    return isinstance(model, Qwen2_5_VLForConditionalGeneration)


def decoder(model: Qwen2_5_VLForConditionalGeneration) -> nn.Module:
    """The language model."""
    return model.model.language_model


def recorder(model: Qwen2_5_VLForConditionalGeneration, name: str) -> Recorder:
    """Reads the attention of the last block without windows."""
    tower = model.model.visual
    return packed_recorder(tower.blocks[max(tower.fullatt_block_indexes)].attn, name)


tower_places = no_tower_places


def entrance(model: Qwen2_5_VLForConditionalGeneration, compressor: Any) -> PromptEntrance:
    """The hooks by which the videos of a prompt reach the compressor; the tower sorts its patches by windows."""
    tower = model.model.visual

    def order(call: TowerCall) -> Tensor:
        sizes = tower.spatial_merge_size, tower.window_size, tower.patch_size
        return get_vision_window_index(call.arguments["grid_thw"], *sizes, kwargs=dict(call.arguments))[0]

    return mrope_entrance(model, order, compressor)
