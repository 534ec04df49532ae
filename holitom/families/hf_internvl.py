"""InternVL as transformers' own, unmodified class: the processor's output in, ``generate`` out.

To this class a video is pictures among others, so the user says once what the processor writes around the number of a
frame (``Frame1: <img>``), in ``model.config.frame_label_ids``; see :mod:`holitom.hooks.prompt.pictures_layout`. Labels
stay where they are.

Received attention of a token (HoliTom, Sec. 3.2) is the attention its patches receive in the last layer: mean over the
heads and over all that ask, the class token too, then over the patches that pixel shuffle joins.
"""

from typing import Any

from torch import nn
from transformers import InternVLForConditionalGeneration

from holitom.errors import InputError
from holitom.hooks.prompt.entrance import PromptEntrance
from holitom.hooks.prompt.instance_slot import set_slot, slot
from holitom.hooks.prompt.pictures_layout import PicturesLayout
from holitom.hooks.tower.parts import Recorder, TowerPlaces
from holitom.hooks.tower.signals import RECORDERS

__all__ = ["NAME", "decoder", "entrance", "matches", "recorder", "set_slot", "slot", "tower_places"]

NAME = "transformers.InternVLForConditionalGeneration"


def matches(model: nn.Module) -> bool:
    """Whether the model is transformers' InternVL."""
    return isinstance(model, InternVLForConditionalGeneration)


def decoder(model: InternVLForConditionalGeneration) -> nn.Module:
    """The language model."""
    return model.model.language_model


def recorder(model: InternVLForConditionalGeneration, name: str) -> Recorder:
    """Reads the attention or the keys of the last layer.

    Raises:
        InputError: for what a pooling head of SigLIP reads.
    """
    if name == "tower_output":
        raise InputError(f"the method needs {name} for a pooling head of SigLIP, which InternViT has not: leave it out")
    return RECORDERS[name]().apply(model.model.vision_tower.encoder.layer[-1].attention)


def tower_places(model: InternVLForConditionalGeneration) -> TowerPlaces:
    """None: the tower is not told which pictures are frames.

    Raises:
        InputError: always.
    """
    raise InputError(
        "the method merges frames inside the tower, which sees InternVL's images and frames in one call: use holitom, "
        "or another method without a stage inside the tower"
    )


def entrance(model: InternVLForConditionalGeneration, compressor: Any) -> PromptEntrance:
    """The hooks by which the videos of a prompt reach the compressor.

    Raises:
        InputError: if ``frame_label_ids`` are missing, or features are chosen otherwise than published.
    """
    config, vision = model.config, model.config.vision_config
    chosen = config.vision_feature_layer, config.vision_feature_select_strategy
    if chosen != (-1, "default"):
        raise InputError(
            f"vision_feature_layer = {chosen[0]!r} with strategy {chosen[1]!r} is not supported: it must be -1 and "
            "'default', as published"
        )
    joined = round(1 / config.downsample_ratio)
    rows, cols = (size // patch // joined for size, patch in zip(vision.image_size, vision.patch_size, strict=True))
    return PromptEntrance(PicturesLayout(model, rows, cols, joined), compressor).apply(model)
