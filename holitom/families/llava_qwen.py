"""LLaVA-OneVision and LLaVA-Video in this project's runtime."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from torch import nn

from holitom.errors import runtime_is_ours
from holitom.hooks.tower.parts import Recorder, TowerPlaces
from holitom.hooks.tower.signals import RECORDERS

if TYPE_CHECKING:
    from llava.model.language_model.llava_qwen import LlavaQwenForCausalLM

NAME = "llava.LlavaQwenForCausalLM"


def matches(model: nn.Module) -> bool:
    """Whether the model is this runtime's LLaVA."""
    defined = sys.modules.get("llava.model.language_model.llava_qwen")  # imported by whoever made such a model
    return defined is not None and runtime_is_ours() and isinstance(model, defined.LlavaQwenForCausalLM)


def decoder(model: LlavaQwenForCausalLM) -> nn.Module:
    """The Qwen2 decoder."""
    return model.get_model()


def recorder(model: LlavaQwenForCausalLM, name: str) -> Recorder:
    """Reads the attention of the last tower layer that runs, or the tower for signals of its output."""
    tower = model.get_vision_tower()
    return RECORDERS[name]().apply(tower if name == "tower_output" else tower.last_attention)


def tower_places(model: LlavaQwenForCausalLM) -> TowerPlaces:
    """All frames of a video meet at the tower's gates."""
    tower = model.get_vision_tower()
    return TowerPlaces(list(tower.gates), [layer.self_attn for layer in tower.vision_tower.encoder.layers])


def entrance(model: LlavaQwenForCausalLM, compressor: Any) -> None:
    """None: the model asks its slot while it splices a prompt."""


def slot(model: LlavaQwenForCausalLM) -> Any:
    """The compressor the model asks, or None."""
    return model.visual_compressor


def set_slot(model: LlavaQwenForCausalLM, compressor: Any) -> None:
    """Make the model ask this compressor for every video, or none."""
    model.visual_compressor = compressor
