"""LLaVA-OneVision as transformers' own, unmodified class: the processor's output in, ``generate`` out."""

import math
from typing import Any

from torch import nn
from transformers import LlavaOnevisionForConditionalGeneration

from holitom.errors import InputError
from holitom.hooks.prompt.entrance import PromptEntrance
from holitom.hooks.prompt.frames_layout import frames_entrance, patches_per_side
from holitom.hooks.prompt.instance_slot import set_slot, slot
from holitom.hooks.tower.parts import Recorder, TowerPlaces
from holitom.hooks.tower.signals import RECORDERS

__all__ = ["NAME", "decoder", "entrance", "matches", "recorder", "set_slot", "slot", "tower_places"]

NAME = "transformers.LlavaOnevisionForConditionalGeneration"


def matches(model: nn.Module) -> bool:
    """Whether the model is transformers' LLaVA-OneVision."""
    return isinstance(model, LlavaOnevisionForConditionalGeneration)


def decoder(model: LlavaOnevisionForConditionalGeneration) -> nn.Module:
    """The language model."""
    return model.model.language_model


def recorder(model: LlavaOnevisionForConditionalGeneration, name: str) -> Recorder:
    """Reads the tower's layer whose output the model uses, or its attention."""
    layer = _last_layer(model)
    return RECORDERS[name]().apply(layer if name == "tower_output" else layer.self_attn)


def tower_places(model: LlavaOnevisionForConditionalGeneration) -> TowerPlaces:
    """The tower sees all frames of a batch in one call, so that they meet in every layer."""
    used = list(model.model.vision_tower.encoder.layers)
    used = used[: used.index(_last_layer(model)) + 1]
    return TowerPlaces(used, [layer.self_attn for layer in used])


def entrance(model: LlavaOnevisionForConditionalGeneration, compressor: Any) -> PromptEntrance:
    """The hooks by which the videos of a prompt reach the compressor; pooling is bilinear to half the side."""
    tokens = math.ceil(patches_per_side(model) / 2) ** 2
    return frames_entrance(model, compressor, tokens, model.model.apply_pooling, newline=True)


def _last_layer(model: LlavaOnevisionForConditionalGeneration) -> Any:
    """The tower's layer whose output is projected.

    Raises:
        InputError: if the model joins several layers, or leaves patches out.
    """
    chosen, strategy = model.config.vision_feature_layer, model.config.vision_feature_select_strategy
    layers = model.model.vision_tower.encoder.layers
    if not isinstance(chosen, int) or not -len(layers) <= chosen <= len(layers) or chosen == 0 or strategy != "full":
        raise InputError(
            f"vision_feature_layer = {chosen!r} with strategy {strategy!r} is not supported: it must be one layer of "
            f"the {len(layers)} and 'full', as published"
        )
    return layers[chosen if chosen < 0 else chosen - 1]
