"""The same maps as an animated GIF: one picture per sampled frame, one row per method."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from holitom.errors import InputError
from holitom.files import whole_file
from holitom.record.saved import SavedRecord, SavedVideo
from holitom.views import words
from holitom.views.heat import RECEIVED, heat_tiles, heat_values, short_heat_legend
from holitom.views.maps import Legend, inner_legend, inner_tiles, one_video, same_clip, sized, token_legend, token_tiles
from holitom.views.page import Page, Strip, compose

WIDTH = 1700
MILLISECONDS = 900  # of each frame


def _panels(video: SavedVideo, method: str, tiles: list[np.ndarray]) -> dict[str, list[np.ndarray]]:
    """What is shown of every frame, one column each."""
    maps = heat_values(video, method)
    empty = [np.full_like(tile, 245) for tile in tiles]
    panels = {"frame": list(tiles), "tokens before the LLM": token_tiles(video, tiles)}
    panels["inside the LLM"] = inner_tiles(video, len(video.stages) - 1, tiles) if video.stages else empty
    panels[RECEIVED] = heat_tiles(maps[RECEIVED], tiles) if RECEIVED in maps else empty
    panels["scores inside the LLM"] = heat_tiles(list(maps.values())[-1], tiles) if video.stages else empty
    return panels


def animation(records: Mapping[str, SavedRecord], video: int = 0) -> list[Image.Image]:
    """One picture per sampled frame: the frame, its tokens before and inside the LLM, and the heat maps.

    Args:
        records: name of each method -> its record, all of one clip.
        video: number of the video in the prompt.

    Raises:
        InputError: as :func:`~holitom.views.maps.side_by_side`.
    """
    shown = {name: one_video(record, video) for name, record in records.items()}
    same_clip(shown)
    first = next(iter(shown.values()))
    panels = {
        name: _panels(one, str(records[name].meta.get("method")), sized(one, 5, WIDTH)) for name, one in shown.items()
    }
    meta, captions = next(iter(records.values())).meta, words.captions(first)
    legend, notes = _legend(list(shown.values())), words.notes(meta)
    pictures = []
    for frame in range(first.frames):
        strips = [_strip(name, shown[name], panels[name], frame) for name in shown]
        clip = words.clip_name(meta) or "one clip"
        _, _, time = captions[frame].partition(": ")
        heading = f"{clip}: frame {frame + 1} of {first.frames}" + (f", {time}" if time else "")
        pictures.append(_rendered(Page([heading], strips, legend, notes, WIDTH, 5)))
    return pictures


def _legend(videos: list[SavedVideo]) -> Legend:
    """Every mark of every column; a meaning that several methods share stands there once."""
    inside = {f"inside: {said}": sample for one in videos if one.stages for sample, said in inner_legend(one)}
    return [*token_legend(videos), *((sample, said) for said, sample in inside.items()), *short_heat_legend(videos)]


def _strip(name: str, video: SavedVideo, panels: Mapping[str, list[np.ndarray]], frame: int) -> Strip:
    number = int((video.segments[:, 0] <= frame).sum())
    first, last = video.segments[number - 1].tolist()
    where = f"S{number} of {len(video.segments)}: frames {first + 1}-{last + 1}"
    return Strip(
        [tiles[frame] for tiles in panels.values()], list(panels), (), [name, where, *words.stage_lines(video)]
    )


def _rendered(page: Page) -> Image.Image:
    canvas = compose(page).canvas
    canvas.draw()  # type: ignore[attr-defined]
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())  # type: ignore[attr-defined]


def save_animation(pictures: list[Image.Image], path: str | os.PathLike[str]) -> None:
    """Write a GIF that runs for ever; it is there as a whole or not at all.

    Args:
        pictures: all of one size.
        path: ending in ``.gif``.

    Raises:
        InputError: for another ending, or a path that cannot be written.
    """
    target = Path(path)
    if target.suffix.lower() != ".gif":
        raise InputError(f"the animation is a GIF, but its path is {str(target)!r}; end it with .gif")
    first, *rest = [picture.quantize(255, dither=Image.Dither.NONE) for picture in pictures]
    with whole_file(target) as part:
        first.save(part, "GIF", save_all=True, append_images=rest, duration=MILLISECONDS, loop=0)
