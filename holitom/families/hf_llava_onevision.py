"""LLaVA-OneVision as transformers' own, unmodified class: the processor's output in, ``generate`` out."""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from transformers import LlavaOnevisionForConditionalGeneration

from holitom.errors import InputError
from holitom.hooks.prompt.entrance import PromptEntrance
from holitom.hooks.prompt.instance_slot import set_slot, slot
from holitom.hooks.prompt.prompt_layout import TowerCall, VideoGrid
from holitom.hooks.tower.parts import Recorder, TowerPlaces
from holitom.hooks.tower.signals import RECORDERS
from holitom.hooks.tower.video_calls import VideoCalls

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
    """The hooks by which the videos of a prompt reach the compressor."""
    videos = VideoCalls(model.model.multi_modal_projector) if compressor.tower is not None else None
    return PromptEntrance(_Layout(model), compressor, videos).apply(model)


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


class _Layout:
    """See :class:`~holitom.hooks.prompt.prompt_layout.PromptLayout`."""

    newline_mode = "one_token"

    def __init__(self, model: LlavaOnevisionForConditionalGeneration) -> None:
        self.video_token_id: int = model.config.video_token_id
        self.body, self.tower, self.decoder = model.model, model.model.vision_tower, model.model.language_model
        vision = model.config.vision_config
        self.side = vision.image_size // vision.patch_size
        self.tokens = math.ceil(self.side / 2) ** 2

    def grids(self, arguments: dict[str, Any], call: TowerCall) -> list[VideoGrid]:
        """All videos of a batch have equally many frames."""
        pixels = arguments.get("pixel_values_videos")
        if pixels is not None:
            frames = pixels.shape[1]
        else:
            frames = (arguments["mm_encoder_outputs"]["video"].pooler_output[0].shape[0] - 1) // self.tokens
        return [VideoGrid(frames, self.tokens, self.side**2, newlines=1)] * (call.inputs // frames)

    def cut(self, signal: Tensor, call: TowerCall, grids: Sequence[VideoGrid]) -> list[Tensor]:
        """The tower saw the frames of all videos one after the other."""
        return list(signal.split([grid.frames for grid in grids]))

    def pool(self, signal: Tensor, grid: VideoGrid) -> Tensor:
        """As the model pools its features: bilinear to half the side."""
        return self.body.apply_pooling(signal)

    def continued_positions(self, past: int, incoming: int) -> None:
        """Plain positions."""
