"""LLaVA-NeXT-Video as transformers' own, unmodified class: the processor's output in, ``generate`` out.

The tower is CLIP, whose class token is no token of a video: it asks like any patch, its own score is left out. Signals
come from the layer whose output the model uses, the last but one as published, and are pooled like the features.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from transformers import LlavaNextVideoForConditionalGeneration

from holitom.errors import InputError
from holitom.hooks.prompt.entrance import PromptEntrance
from holitom.hooks.prompt.instance_slot import set_slot, slot
from holitom.hooks.prompt.prompt_layout import TowerCall, VideoGrid
from holitom.hooks.tower.parts import Recorder, TowerPlaces
from holitom.hooks.tower.signals import RECORDERS
from holitom.hooks.tower.video_calls import VideoCalls

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
    """The hooks by which the videos of a prompt reach the compressor."""
    videos = VideoCalls(model.model.multi_modal_projector) if compressor.tower is not None else None
    return PromptEntrance(_Layout(model), compressor, videos).apply(model)


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


class _Layout:
    """See :class:`~holitom.hooks.prompt.prompt_layout.PromptLayout`."""

    newline_mode = "no_token"

    def __init__(self, model: LlavaNextVideoForConditionalGeneration) -> None:
        _used_layers(model)
        self.video_token_id: int = model.config.video_token_id
        self.body, self.tower, self.decoder = model.model, model.model.vision_tower, model.model.language_model
        vision = model.config.vision_config
        self.side = vision.image_size // vision.patch_size
        self.tokens = (self.side // model.config.spatial_pool_stride) ** 2

    def grids(self, arguments: dict[str, Any], call: TowerCall) -> list[VideoGrid]:
        """All videos of a batch have equally many frames."""
        pixels = arguments.get("pixel_values_videos")
        if pixels is not None:
            frames = pixels.shape[1]
        else:
            frames = arguments["mm_encoder_outputs"]["video"].pooler_output[0].shape[0] // self.tokens
        return [VideoGrid(frames, self.tokens, self.side**2)] * (call.inputs // frames)

    def cut(self, signal: Tensor, call: TowerCall, grids: Sequence[VideoGrid]) -> list[Tensor]:
        """The tower saw the frames of all videos one after the other."""
        return list(signal.split([grid.frames for grid in grids]))

    def pool(self, signal: Tensor, grid: VideoGrid) -> Tensor:
        """As the model pools its features, without the class token."""
        return self.body.vision_resampler(signal[:, -grid.patches :])

    def continued_positions(self, past: int, incoming: int) -> None:
        """Plain positions."""
