"""Prompts to which a video is pictures among others, each frame behind a label that holds its number.

Frames and images come in the same pixels, stand in the prompt as the same placeholders, and pass the tower in one call.
The label alone tells a frame from an image, and a model has no tokenizer. So ``model.config.frame_label_ids`` holds the
ids before and behind the number. A picture of one tile so labelled is a frame; an image, or the number that the video
began with, ends a video.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import index
from typing import Any

from torch import Tensor

from holitom.errors import InputError
from holitom.hooks.prompt.prompt_layout import TowerCall, VideoGrid

NUMBER = 6  # most tokens of a frame's number
IMAGE = -1  # stands for an image's placeholders where only videos are looked for


@dataclass(frozen=True)
class _Picture:
    """A picture in a row: where its placeholders stand, its tiles, and its number if it is a frame."""

    start: int
    stop: int
    tiles: int
    number: tuple[int, ...] | None


@dataclass(frozen=True)
class _Clip(VideoGrid):
    """A video whose frames are some of a call's tiles, from ``first`` on."""

    first: int = 0


class PicturesLayout:
    """See :class:`~holitom.hooks.prompt.prompt_layout.PromptLayout`.

    Args:
        model: with ``model.vision_tower``, which sees a class token before each tile, and ``model.language_model``.
        rows: tokens of a tile from top to bottom.
        cols: and from left to right.
        joined: patches of a token along each side.

    Raises:
        InputError: if ``model.config.frame_label_ids`` are missing.
    """

    newline_mode = "no_token"
    pixels = "pixel_values"

    def __init__(self, model: Any, rows: int, cols: int, joined: int) -> None:
        self.before, self.behind = _label(model.config)
        self.video_token_id: int = model.config.image_token_id
        self.body, self.tower, self.decoder = model.model, model.model.vision_tower, model.model.language_model
        self.rows, self.cols, self.joined, self.tokens = rows, cols, joined, rows * cols

    def view(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Frames apart from images, whose placeholders are hidden; with pictures of every row."""
        given, pixels = arguments.get("input_ids"), arguments.get("pixel_values")
        encoded = arguments.get("mm_encoder_outputs") or {}
        if pixels is None and encoded.get("image") is None:
            return arguments
        videos = {"pixel_values_videos": pixels, "mm_encoder_outputs": {**encoded, "video": encoded.get("image")}}
        if given is None:
            return {**arguments, **videos}  # for all that is known
        ids = given.cpu().clone()
        found = [self._pictures(row) for row in ids]
        for row, pictures in zip(ids, found, strict=True):
            for picture in pictures:
                if picture.number is None:
                    row[picture.start : picture.stop] = IMAGE
        view = {**arguments, "input_ids": ids.to(given.device), "pictures": found}
        if any(picture.number for pictures in found for picture in pictures):
            return {**view, **videos}
        alone = max(sum(picture.tiles == 1 for picture in pictures) for pictures in found)
        if alone > 1:  # rightly so for small images, but a wrong label looks the same
            warnings.warn(
                f"{alone} pictures of one tile, and none behind the label of model.config.frame_label_ids: they are "
                "taken for images and not compressed",
                stacklevel=2,
            )
        return view

    def _pictures(self, row: Tensor) -> list[_Picture]:
        """The pictures of a row in reading order; each has its placeholders in one piece."""
        places, ids, found, end = (row == self.video_token_id).nonzero().flatten(), row.tolist(), [], 0
        cuts = (places.diff() > 1).nonzero().flatten() + 1
        for piece in places.tensor_split(cuts) if len(places) else ():
            start, stop = int(piece[0]), int(piece[-1]) + 1
            tiles, rest = divmod(stop - start, self.tokens)
            if rest:
                raise InputError(
                    f"a picture has {stop - start} placeholders: it must be a multiple of the {self.tokens} "
                    "tokens of a tile; let the model's processor write the prompt"
                )
            number = self._number(ids[end:start]) if tiles == 1 else None
            found.append(_Picture(start, stop, tiles, number))
            end = stop
        return found

    def _number(self, text: list[int]) -> tuple[int, ...] | None:
        """A frame's number, if the text before a picture ends with a frame's label."""
        end, length = len(text) - len(self.behind), len(self.before)
        if tuple(text[max(end, 0) :]) != self.behind:
            return None
        for start in range(end - 1, max(end - NUMBER, length) - 1, -1):
            if tuple(text[start - length : start]) == self.before:
                return tuple(text[start:end])
        return None

    def grids(self, arguments: dict[str, Any], call: TowerCall) -> list[VideoGrid]:
        """Frames up to the first number's return; of rows that ``generate`` repeated the first."""
        rows: list[list[_Picture]] = arguments["pictures"]
        repeats = max(sum(picture.tiles for row in rows for picture in row) // call.inputs, 1)
        grids, seen = [], 0
        for row in rows[::repeats]:
            first: tuple[int, ...] | None = None
            for picture in row:
                if picture.number is None:
                    first = None
                elif first is None or picture.number == first:
                    first = picture.number
                    grids.append(_Clip(0, self.tokens, self.tokens * self.joined**2, first=seen))
                if first is not None:
                    frames = grids[-1].frames + 1
                    grids[-1] = replace(grids[-1], frames=frames, pieces=frames)
                seen += picture.tiles
        return list(grids)

    def cut(self, signal: Tensor, call: TowerCall, grids: Sequence[VideoGrid]) -> list[Tensor]:
        """The tower saw all pictures in the order of the prompts, each behind a class token."""
        clips = [grid for grid in grids if isinstance(grid, _Clip)]
        return [signal[clip.first : clip.first + clip.frames, 1:] for clip in clips]

    def pool(self, signal: Tensor, grid: VideoGrid) -> Tensor:
        """Mean of the patches that pixel shuffle joins."""
        return signal.unflatten(1, (self.rows, self.joined, self.cols, self.joined)).mean((2, 4)).flatten(1, 2)

    def continued_positions(self, past: int, incoming: int) -> None:
        """Plain positions."""


def _label(config: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids that stand before and behind the number of a frame."""
    label: Any = getattr(config, "frame_label_ids", None)
    try:
        before, behind = (tuple(map(index, part)) for part in label)
    except (TypeError, ValueError):
        before = behind = ()
    if not before or not behind:
        raise InputError(
            f"model.config.frame_label_ids = {label!r}: a call does not tell a video's frames from images; set it to "
            "[tokenizer.encode(text, add_special_tokens=False) for text in ('Frame', ': <img>')], two lists of ids: "
            "what the processor writes around a frame's number"
        )
    return before, behind
