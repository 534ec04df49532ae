"""Prompts and towers like Qwen2-VL's: dynamic resolution, merged patches, positions on three axes.

A frame of a method is one temporal step of the video's grid, which holds two pictures; its tokens are the merged
patches. Kept tokens hold their positions on all three axes (time, height, width), a merged token those of its
representative, and later text goes on where it would have gone on.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from holitom.errors import InputError
from holitom.hooks.prompt.entrance import PromptEntrance
from holitom.hooks.prompt.prompt_layout import TellsVideos, TowerCall, VideoGrid

Order = Callable[[TowerCall], Tensor | None]


class MRopeLayout(TellsVideos):
    """See :class:`~holitom.hooks.prompt.prompt_layout.PromptLayout`.

    Args:
        model: with ``model.visual``, ``model.language_model`` and ``model.rope_deltas``.
        order: for a call of the tower, the order in which it keeps its merged patches, (tokens,); None for their own.
        timestamps: the prompt has a timestamp before each frame of a video, which stays where it is.
    """

    newline_mode = "no_token"

    def __init__(self, model: Any, order: Order, timestamps: bool = False) -> None:
        self.video_token_id: int = model.config.video_token_id
        self.body, self.tower, self.decoder = model.model, model.model.visual, model.model.language_model
        self.merged = self.tower.spatial_merge_size**2
        self.order = order
        self.timestamps = timestamps

    def grids(self, arguments: dict[str, Any], call: TowerCall) -> list[VideoGrid]:
        """The tower is told the steps, rows and columns of patches of every video."""
        grid_thw = call.arguments["grid_thw"].tolist()
        return [
            VideoGrid(steps, rows * cols // self.merged, rows * cols, pieces=steps if self.timestamps else 1)
            for steps, rows, cols in grid_thw
        ]

    def cut(self, signal: Tensor, call: TowerCall, grids: Sequence[VideoGrid]) -> list[Tensor]:
        """Merged patches back in raster order, then one part per video."""
        order = self.order(call)
        if order is not None:
            signal = signal.unflatten(0, (-1, self.merged))[order.argsort().to(signal.device)].flatten(0, 1)
        parts = signal.split([grid.frames * grid.patches for grid in grids])
        return [part.unflatten(0, (grid.frames, grid.patches)) for part, grid in zip(parts, grids, strict=True)]

    def pool(self, signal: Tensor, grid: VideoGrid) -> Tensor:
        """Mean of the patches that are merged, which follow one another."""
        return signal.unflatten(1, (grid.tokens, self.merged)).mean(2)

    def continued_positions(self, past: int, incoming: int) -> Tensor | None:
        """After a video the text's positions do not go on at its number of tokens; the difference is the model's."""
        deltas = self.body.rope_deltas
        if deltas is None:
            return None
        counted = torch.arange(past, past + incoming, device=deltas.device)
        return (counted + deltas).expand(3, -1, -1)


def mrope_entrance(model: nn.Module, order: Order, compressor: Any, timestamps: bool = False) -> PromptEntrance:
    """The hooks by which the videos of a prompt reach the compressor; see :class:`MRopeLayout`.

    Raises:
        InputError: for an inner stage that numbers tokens anew.
    """
    if any(stage.renumbers for stage in getattr(compressor.inner, "stages", ())):
        raise InputError(
            "the method numbers the tokens it keeps anew inside the LLM, which positions on three axes do not allow: "
            "use holitom or fastv, whose tokens keep their positions"
        )
    return PromptEntrance(MRopeLayout(model, order, timestamps), compressor).apply(model)
