"""LLaVA-NeXT-Video as transformers' own, unmodified class: the processor's output in, ``generate`` out.

The tower is CLIP, whose class token is no token of a video: it asks like any patch, its own score is left out. Signals
come from the layer whose output the model uses, the last but one as published, and are pooled like the features.
"""

from typing import Any

from torch import Tensor, nn
from transformers import LlavaNextVideoForConditionalGeneration

from holitom.errors import InputError
from holitom.hooks.prompt.entrance import PromptEntrance
from holitom.hooks.prompt.frames_layout import frames_entrance, patches_per_side
from holitom.hooks.prompt.instance_slot import set_slot, slot
from holitom.hooks.tower.parts import Recorder, TowerPlaces
from holitom.hooks.tower.signals import RECORDERS

__all__ = ["NAME", "decoder", "entrance", "matches", "recorder", "set_slot", "slot", "tower_places"]

NAME = "transformers.LlavaNextVideoForConditionalGeneration"


def matches(model: nn.Module) -> bool:
    """Whether the model is transformers' LLaVA-NeXT-Video."""
    return isinstance(model, LlavaNextVideoForConditionalGeneration)


def decoder(model: LlavaNextVideoForConditionalGeneration) -> nn.Module:
    """The language model."""
    return model.model.language_model


def recorder(model: LlavaNextVideoForConditionalGeneration, name: str) -> Recorder:
    """Reads the attention or the keys of the layer whose output the model uses.

    Raises:
        InputError: for what a pooling head of SigLIP reads.
    """
    if name == "tower_output":
        raise InputError(
            f"the method needs {name} for a pooling head of SigLIP, which CLIP has not: leave the head out"
        )
    return RECORDERS[name]().apply(_used_layers(model)[-1].self_attn)


def tower_places(model: LlavaNextVideoForConditionalGeneration) -> TowerPlaces:
    """The tower sees all frames of a batch in one call, so that they meet in every layer."""
    used = _used_layers(model)
    return TowerPlaces(used, [layer.self_attn for layer in used])


def entrance(model: LlavaNextVideoForConditionalGeneration, compressor: Any) -> PromptEntrance:
    """The hooks by which the videos of a prompt reach the compressor.

    Raises:
        InputError: if the model joins several layers, or pools otherwise than published.
    """
    _used_layers(model)
    side, stride = patches_per_side(model), model.config.spatial_pool_stride

    def pool(signal: Tensor) -> Tensor:
        """As the model pools its features, without the class token."""
        return model.model.vision_resampler(signal[:, -(side**2) :])

    return frames_entrance(model, compressor, (side // stride) ** 2, pool, newline=False)


def _used_layers(model: LlavaNextVideoForConditionalGeneration) -> list[Any]:
    """The tower's layers up to the one whose output is pooled and projected.

    Raises:
        InputError: if the model joins several layers, keeps the class token, or pools otherwise than by the mean.
    """
    config, layers = model.config, list(model.model.vision_tower.encoder.layers)
    chosen, strategy, pooling = (
        config.vision_feature_layer,
        config.vision_feature_select_strategy,
        config.spatial_pool_mode,
    )
    one = isinstance(chosen, int) and -len(layers) <= chosen <= len(layers) and chosen != 0
    if not one or strategy != "default" or pooling != "average":
        raise InputError(
            f"vision_feature_layer = {chosen!r} with strategy {strategy!r} and pooling {pooling!r} is not supported: "
            f"it must be one layer of the {len(layers)}, 'default' and 'average', as published"
        )
    return layers[: chosen + 1] if chosen < -1 else layers[: chosen if chosen > 0 else None]
