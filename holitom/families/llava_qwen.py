"""LLaVA-OneVision and LLaVA-Video in this project's runtime."""

from typing import Any

from torch import nn

from llava.model.language_model.llava_qwen import LlavaQwenForCausalLM

NAME = "llava.LlavaQwenForCausalLM"


def matches(model: nn.Module) -> bool:
    """Whether the model is this runtime's LLaVA."""
    return isinstance(model, LlavaQwenForCausalLM)


def decoder(model: LlavaQwenForCausalLM) -> nn.Module:
    """The Qwen2 decoder."""
    return model.get_model()


def signal_source(model: LlavaQwenForCausalLM, name: str) -> nn.Module:
    """Attention of the last tower layer that runs, or the tower for signals of its output."""
    tower = model.get_vision_tower()
    return tower if name == "tower_output" else tower.last_attention


def slot(model: LlavaQwenForCausalLM) -> Any:
    """The compressor the model asks, or None."""
    return model.visual_compressor


def set_slot(model: LlavaQwenForCausalLM, compressor: Any) -> None:
    """Make the model ask this compressor for every video, or none."""
    model.visual_compressor = compressor
