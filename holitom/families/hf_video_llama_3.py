"""VideoLLaMA3 as transformers' own, unmodified class: the processor's output in, ``generate`` out.

The prompt has a time before each frame of a video, which stays where it is. Received attention of a token (HoliTom,
Sec. 3.2) is the attention its patches receive in the last layer of the tower, which attends within frames. The
processor's own pruning of videos (``use_token_compression``, by the difference of neighbouring frames) must have left
all tokens.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from transformers import VideoLlama3ForConditionalGeneration

from holitom.errors import InputError
from holitom.hooks.prompt.entrance import PromptEntrance
from holitom.hooks.prompt.instance_slot import set_slot, slot
from holitom.hooks.prompt.prompt_layout import TellsVideos, TowerCall, VideoGrid
from holitom.hooks.tower.packed_attention import no_tower_places, packed_recorder
from holitom.hooks.tower.parts import Recorder

__all__ = ["NAME", "decoder", "entrance", "matches", "recorder", "set_slot", "slot", "tower_places"]

NAME = "transformers.VideoLlama3ForConditionalGeneration"
POOLED = (1, 2)  # merge sizes at which the tower's bilinear resizing is the plain mean

tower_places = no_tower_places


def matches(model: nn.Module) -> bool:
    """Whether the model is transformers' VideoLLaMA3."""
    return isinstance(model, VideoLlama3ForConditionalGeneration)


def decoder(model: VideoLlama3ForConditionalGeneration) -> nn.Module:
    """The language model."""
    return model.model.language_model


def recorder(model: VideoLlama3ForConditionalGeneration, name: str) -> Recorder:
    """Reads the attention of the last layer."""
    return packed_recorder(model.model.vision_model.encoder.layers[-1].self_attn, name)


def entrance(model: VideoLlama3ForConditionalGeneration, compressor: Any) -> PromptEntrance:
    """The hooks by which the videos of a prompt reach the compressor."""
    return PromptEntrance(_Layout(model), compressor).apply(model)


class _Layout(TellsVideos):
    """See :class:`~holitom.hooks.prompt.prompt_layout.PromptLayout`."""

    newline_mode = "no_token"

    def __init__(self, model: VideoLlama3ForConditionalGeneration) -> None:
        self.video_token_id: int = model.config.video_token_id
        self.body, self.tower, self.decoder = model.model, model.model.vision_model, model.model.language_model

    def grids(self, arguments: dict[str, Any], call: TowerCall) -> list[VideoGrid]:
        """The tower is told the frames, rows and columns of patches of every video, and how many become one token.

        Raises:
            InputError: if the processor left tokens out, or the tokens of a video are no plain means of its patches.
        """
        mask = arguments.get("video_compression_mask")
        if mask is not None and not bool(mask.all()):
            raise InputError(
                f"video_compression_mask leaves {int(mask.sum())} of {mask.numel()} tokens: videos that the processor "
                "pruned are not compressed again; give it use_token_compression=False"
            )
        grids = []
        for (frames, rows, cols), side in zip(
            call.arguments["grid_thw"].tolist(), call.arguments["merge_sizes"].tolist(), strict=True
        ):
            if side not in POOLED:
                raise InputError(f"video_merge_sizes holds {side}: it must be 1 or 2; the processor gives videos 2")
            grids.append(VideoGrid(frames, rows * cols // side**2, rows * cols, pieces=frames))
        return grids

    def cut(self, signal: Tensor, call: TowerCall, grids: Sequence[VideoGrid]) -> list[Tensor]:
        """The tower saw the frames of all videos one after the other."""
        parts = signal.split([grid.frames * grid.patches for grid in grids])
        return [part.unflatten(0, (grid.frames, grid.patches)) for part, grid in zip(parts, grids, strict=True)]

    def pool(self, signal: Tensor, grid: VideoGrid) -> Tensor:
        """Mean of the patches that become one token, which follow one another."""
        return signal.unflatten(1, (grid.tokens, -1)).mean(2)

    def continued_positions(self, past: int, incoming: int) -> None:
        """Plain positions."""
