"""Heat maps: attention received in the vision tower, and attention of the last query inside the LLM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from holitom.errors import InputError
from holitom.methods import facts_of
from holitom.record.saved import SavedRecord, SavedVideo
from holitom.views import words
from holitom.views.colours import PALE, heat_colours
from holitom.views.maps import Legend, one_video, sized
from holitom.views.page import SWATCH, Page, Strip, columns_for, compose
from holitom.views.painting import paint_heat

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RECEIVED = "received attention"


def heat_values(video: SavedVideo, method: str | None) -> dict[str, np.ndarray]:
    """Every heat map that a record has: name -> float32 (frames, tokens), NaN for tokens without a value.

    A merged token's value is shown at all tokens it was merged from. The scores of the stages inside the LLM come last.

    Args:
        video: what was recorded.
        method: the method's name, which tells what it ranks by.
    """
    found = {} if video.received_attention is None else {RECEIVED: video.received_attention}
    for stage in video.stages:
        scores = np.append(stage.scores, np.float32(np.nan))
        found[f"{facts_of(str(method)).ranked_by} before layer {stage.layer}"] = scores[video.source_map]
    return found


def heat_tiles(values: np.ndarray, tiles: Sequence[np.ndarray]) -> list[np.ndarray]:
    """One colour per token in place of the frames, by its rank in the whole video."""
    colours = heat_colours(values)
    return [paint_heat(tile, colours[frame]) for frame, tile in enumerate(tiles)]


def heat_legend(maps: dict[str, np.ndarray]) -> Legend:
    """One colour bar per map with its range, and the sample of tokens without a value."""
    entries: Legend = []
    for name, values in maps.items():
        known = values[~np.isnan(values)]
        low, middle, high = np.quantile(known, (0, 0.5, 1)) if len(known) else (0.0, 0.0, 0.0)
        entries.append((_ramp(), f"{name}, by rank: {low:.2g} to {high:.2g}, median {middle:.2g}"))
    return entries + _gap_legend(maps)


def short_heat_legend(videos: Sequence[SavedVideo]) -> Legend:
    """What the heat maps of several methods have in common: one colour bar without numbers, and the empty sample."""
    maps = {
        f"{name}, {number}": values
        for number, video in enumerate(videos)
        for name, values in heat_values(video, None).items()
    }
    return [(_ramp(), "attention and scores by rank, low to high"), *_gap_legend(maps)] if maps else []


def _ramp() -> np.ndarray:
    return np.repeat(heat_colours(np.arange(8.0 * SWATCH))[None], SWATCH, axis=0)


def _gap_legend(maps: dict[str, np.ndarray]) -> Legend:
    if not any(np.isnan(values).any() for values in maps.values()):
        return []
    empty = np.full((SWATCH, SWATCH, 3), 0, dtype=np.uint8)
    return [(paint_heat(empty, np.array([PALE], dtype=np.uint8)), "gone before")]


def attention_map(record: SavedRecord, video: int = 0) -> Figure:
    """Received attention and the scores of every stage inside the LLM as heat maps under the frames.

    Args:
        record: of one prompt.
        video: its number in the prompt.

    Raises:
        InputError: as :func:`~holitom.views.maps.token_map`, and if the record holds neither.
    """
    shown = one_video(record, video)
    maps = heat_values(shown, record.meta.get("method"))
    if not maps:
        raise InputError("the record holds no attention: record it with holitom.watching.watched")
    columns = columns_for(shown.frames)
    tiles = sized(shown, columns)
    captions, segments = words.captions(shown), shown.segments.tolist()
    strips = [Strip(tiles, captions, segments, ["frames"])]
    for name, values in maps.items():
        first, _, rest = name.partition(" before ")
        explained = f"ranks tokens before {rest}" if rest else "vision tower, last layer"
        strips.append(Strip(heat_tiles(values, tiles), captions, segments, [first, explained]))
    headings = [f"{words.title(record)}, attention", words.counts_line(shown), *words.question_line(record.meta)]
    return compose(Page(headings, strips, heat_legend(maps), words.notes(record.meta), columns=columns))
