"""Prompts of LLaVA's kind: pictures of one size, whose frames the tower sees one after the other."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from holitom.hooks.prompt.entrance import PromptEntrance
from holitom.hooks.prompt.prompt_layout import TellsVideos, TowerCall, VideoGrid
from holitom.hooks.tower.video_calls import VideoCalls


class FramesLayout(TellsVideos):
    """See :class:`~holitom.hooks.prompt.prompt_layout.PromptLayout`.

    Args:
        model: with ``model.vision_tower`` and ``model.language_model``.
        tokens: of a frame after pooling.
        pool: the pooling of a video's features for a signal, (frames, patches, channels) to (frames, tokens, channels).
        newline: one newline token stands behind a video.
    """

    def __init__(self, model: Any, tokens: int, pool: Callable[[Tensor], Tensor], newline: bool) -> None:
        self.video_token_id: int = model.config.video_token_id
        self.body, self.tower, self.decoder = model.model, model.model.vision_tower, model.model.language_model
        self.tokens, self.newlines, self.pooling = tokens, int(newline), pool
        self.newline_mode = "one_token" if newline else "no_token"
        self.patches = patches_per_side(model) ** 2

    def grids(self, arguments: dict[str, Any], call: TowerCall) -> list[VideoGrid]:
        """All videos of a batch have equally many frames."""
        pixels = arguments.get("pixel_values_videos")
        if pixels is not None:
            frames = pixels.shape[1]
        else:
            encoded = arguments["mm_encoder_outputs"]["video"].pooler_output[0]
            frames = (encoded.shape[0] - self.newlines) // self.tokens
        return [VideoGrid(frames, self.tokens, self.patches, self.newlines)] * (call.inputs // frames)

    def cut(self, signal: Tensor, call: TowerCall, grids: Sequence[VideoGrid]) -> list[Tensor]:
        """The tower saw the frames of all videos one after the other."""
        return list(signal.split([grid.frames for grid in grids]))

    def pool(self, signal: Tensor, grid: VideoGrid) -> Tensor:
        """As the model pools its features."""
        return self.pooling(signal)

    def continued_positions(self, past: int, incoming: int) -> None:
        """Plain positions."""


def patches_per_side(model: Any) -> int:
    """Of a picture in the tower."""
    vision = model.config.vision_config
    return int(vision.image_size // vision.patch_size)


def frames_entrance(
    model: nn.Module, compressor: Any, tokens: int, pool: Callable[[Tensor], Tensor], newline: bool
) -> PromptEntrance:
    """The hooks by which the videos of a prompt reach the compressor; see :class:`FramesLayout`."""
    videos = VideoCalls(model.model.multi_modal_projector) if compressor.tower is not None else None  # type: ignore[union-attr,arg-type] # a family's
    return PromptEntrance(FramesLayout(model, tokens, pool, newline), compressor, videos).apply(model)
