"""Token maps: what became of every token before the LLM and inside it, one strip of frames per method or stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from holitom.errors import InputError
from holitom.record.saved import SavedRecord, SavedVideo
from holitom.tokens import TokenKind
from holitom.views import words
from holitom.views.colours import colours_of
from holitom.views.page import SWATCH, WIDTH, Page, Strip, columns_for, compose, tile_size
from holitom.views.painting import (
    EARLIER,
    LATER,
    NO_MARK,
    InnerLook,
    TokenLook,
    paint_inner,
    paint_tokens,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Legend = list[tuple[np.ndarray, str]]


def one_video(record: SavedRecord, number: int = 0) -> SavedVideo:
    """A video of a record.

    Raises:
        InputError: if there is none of that number, or its tokens form no square.
    """
    if not 0 <= number < len(record.videos):
        raise InputError(f"the record has {len(record.videos)} video(s), there is no number {number}")
    video = record.videos[number]
    _ = video.side
    return video


def sized(video: SavedVideo, columns: int, page: int = WIDTH) -> list[np.ndarray]:
    """The frames as tiles. The grid lies over the whole picture, for the image processor squashes it to a square."""
    pictures = video.pictures()
    height, width = tile_size(pictures.shape[1], pictures.shape[2], video.side, columns, page)
    return [
        np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS)) for picture in pictures
    ]


def token_tiles(video: SavedVideo, tiles: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Frames marked with what became of their tokens before the LLM; crossed out: gone behind its last stage."""
    merged = np.isin(video.kinds, (TokenKind.DYNAMIC_KEPT, TokenKind.DYNAMIC_DROPPED, TokenKind.STATIC_DROPPED))
    rows = np.where(merged, -1, video.source_map)
    colours = np.append(colours_of(rows, video.side), 0)[rows]
    gone = gone_inside(video)
    return [
        paint_tokens(tile, TokenLook(video.kinds[frame], rows[frame], colours[frame], gone[frame]))
        for frame, tile in enumerate(tiles)
    ]


def gone_inside(video: SavedVideo) -> np.ndarray:
    """Tokens that stand for a row that reached the LLM and is gone behind its last stage, bool (frames, tokens)."""
    gone = np.zeros(video.kinds.size, dtype=bool)
    if video.stages:
        own = video.source_map.ravel()[video.index]  # two rows may stand at one place
        gone[video.index] = ~video.stages[-1].kept[own]
    return gone.reshape(video.kinds.shape)


def token_legend(videos: Sequence[SavedVideo]) -> Legend:
    """A sample of every kind that is there, painted by the same function as the frames; counts for one video alone."""
    entries: Legend = []
    alone = videos[0].counts() if len(videos) == 1 else None
    for kind, meaning in words.labels(videos).items():
        count = "" if alone is None else f": {alone['kinds'][kind.name.lower()]}"
        entries.append((_sample(kind, False), meaning + count))
    gone = [int(gone_inside(video).sum()) for video in videos]
    if any(gone):
        entries.append((_sample(TokenKind.DYNAMIC_KEPT, True), words.GONE_LABEL + (f": {gone[0]}" if alone else "")))
    return entries


def _gradient(columns: int = 1) -> np.ndarray:
    down, right = np.mgrid[0:SWATCH, 0 : columns * SWATCH]
    return np.stack([110 + 3 * right // columns, 190 - 2 * down, 60 + 2 * right // columns], axis=-1).astype(np.uint8)


def _sample(kind: TokenKind, gone: bool) -> np.ndarray:
    one = np.array([0])
    return paint_tokens(_gradient(), TokenLook(np.array([kind]), one, one, np.array([gone])))


def token_map(record: SavedRecord, video: int = 0) -> Figure:
    """The frames as a strip with segments and times, and what became of every token before the LLM.

    Static tokens have the colour of the token they were merged into, through all frames of their segment.

    Args:
        record: of one prompt.
        video: its number in the prompt.

    Raises:
        InputError: if there is no such video, its tokens form no square, or matplotlib is not installed.
    """
    shown = one_video(record, video)
    columns, captions, segments = columns_for(shown.frames), words.captions(shown), shown.segments.tolist()
    tiles = sized(shown, columns)
    marked = Strip(token_tiles(shown, tiles), captions, segments, ["tokens", *words.stage_lines(shown)])
    headings = [words.title(record), words.counts_line(shown), *words.question_line(record.meta)]
    strips = [Strip(tiles, captions, segments, ["frames"]), marked]
    return compose(Page(headings, strips, token_legend([shown]), words.notes(record.meta), columns=columns))


def side_by_side(records: Mapping[str, SavedRecord], video: int = 0) -> Figure:
    """Token maps of several methods on one clip, the same frames under one another.

    Args:
        records: name of each method -> its record.
        video: number of the video in the prompt.

    Raises:
        InputError: as :func:`token_map`, and if the records are not of the same frames.
    """
    shown = {name: one_video(record, video) for name, record in records.items()}
    same_clip(shown)
    first = next(iter(shown.values()))
    columns = columns_for(first.frames)
    tiles = sized(first, columns)
    plain = Strip(tiles, words.captions(first), (), ["frames"])
    strips = [
        Strip(token_tiles(one, tiles), words.captions(one), one.segments.tolist(), [name, *words.stage_lines(one)])
        for name, one in shown.items()
    ]
    meta = next(iter(records.values())).meta
    count = f"{first.frames} frames x {first.tokens_per_frame} tokens = {first.kinds.size}"
    clip = words.clip_name(meta) or "one clip"
    headings = [f"{clip}: {len(shown)} methods on the same frames; {count}"]
    return compose(
        Page(headings, [plain, *strips], token_legend(list(shown.values())), words.notes(meta), columns=columns)
    )


def same_clip(videos: Mapping[str, SavedVideo]) -> None:
    """Raise :class:`~llava.errors.InputError` unless all videos have the same frames and tokens."""
    if not videos:
        raise InputError("there is no record to show: name at least one")
    shapes = {name: video.kinds.shape for name, video in videos.items()}
    if len(set(shapes.values())) > 1 or len({video.thumbnails for video in videos.values()}) > 1:
        listed = ", ".join(f"{name} {frames} x {tokens}" for name, (frames, tokens) in shapes.items())
        raise InputError(f"the records are not of the same frames ({listed}): compare methods on one clip")


def inner_tiles(video: SavedVideo, stage: int, tiles: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Frames marked with what is still there from a stage inside the LLM on, and where the rest went."""
    places, tokens = video.place_of_stage(stage), video.tokens_per_frame
    reached = video.source_map >= 0
    kept_rows, source = video.stages[stage].kept, video.stages[stage].source
    is_target = np.bincount(source[source >= 0], minlength=len(source)) > 1
    kept = np.append(kept_rows, False)[video.source_map]
    targets = np.append(is_target, False)[video.source_map]
    # a row that nothing joined needs no colour of its own
    coloured = np.where((places >= 0) & np.append(is_target, False)[places], places, -1)
    colours = np.append(colours_of(coloured, video.side), 0)[coloured]
    points = np.full(places.size, NO_MARK)
    moved = np.nonzero(~kept_rows & (source >= 0))[0]
    from_at, to_at = video.index[moved], video.index[source[moved]]
    apart = to_at // tokens - from_at // tokens
    points[from_at] = np.where(apart == 0, to_at % tokens, np.where(apart < 0, EARLIER, LATER))
    by_frame = points.reshape(places.shape)
    return [
        paint_inner(
            tile, InnerLook(places[frame], reached[frame], kept[frame], colours[frame], targets[frame], by_frame[frame])
        )
        for frame, tile in enumerate(tiles)
    ]


def _inner_sample(side: int = 1, **changes: object) -> np.ndarray:
    base = {
        "places": np.zeros(side, int),
        "reached": np.ones(side, bool),
        "kept": np.ones(side, bool),
        "colours": np.zeros(side, int),
        "targets": np.zeros(side, bool),
        "points": np.full(side, NO_MARK),
    }
    return paint_inner(_gradient(), InnerLook(**{**base, **changes}))  # type: ignore[arg-type]


def inner_legend(video: SavedVideo) -> Legend:
    """Samples of what :func:`inner_tiles` shows."""
    no = np.array([False])
    entries: Legend = [
        (_inner_sample(), "survives, nothing merged into it"),
        (_inner_sample(kept=no, reached=no, places=np.array([-1])), "never reached the LLM"),
    ]
    sources = np.concatenate([stage.source[~stage.kept] for stage in video.stages])
    if (sources >= 0).any():
        entries[1:1] = [
            (_inner_sample(targets=~no), "survives, others merged into it (its colour)"),
            (_inner_sample(kept=no), "merged: colour of its target; line to it"),
            (_inner_sample(kept=no, points=np.array([EARLIER])), "target in an earlier frame"),
            (_inner_sample(kept=no, points=np.array([LATER])), "target in a later frame"),
        ]
    if (sources == -2).any():
        entries.append((_inner_sample(kept=no, places=np.array([-2])), "merged into a newline token"))
    if (sources == -1).any():
        entries.append((_inner_sample(kept=no, places=np.array([-1])), "dropped inside the LLM"))
    return entries


def inner_map(record: SavedRecord, video: int = 0) -> Figure:
    """Which tokens survive each stage inside the LLM, and into which the others were merged; one strip per stage.

    Args:
        record: of one prompt.
        video: its number in the prompt.

    Raises:
        InputError: as :func:`token_map`, and if nothing was compressed inside the LLM.
    """
    shown = one_video(record, video)
    if not shown.stages:
        raise InputError("nothing was compressed inside the LLM: this record has no map of its stages")
    columns = columns_for(shown.frames)
    tiles, total = sized(shown, columns), shown.kinds.size
    strips = [
        Strip(
            inner_tiles(shown, number, tiles),
            words.captions(shown),
            shown.segments.tolist(),
            [
                f"from layer {stage['layer']}",
                f"kept: {words.share(stage['kept'], total)}",
                *([f"merged: {stage['merged']}"] if stage["merged"] else []),
                *([f"dropped: {stage['dropped']}"] if stage["dropped"] else []),
            ],
        )
        for number, stage in enumerate(shown.counts()["stages"])
    ]
    headings = [f"{words.title(record)}, inside the LLM", words.counts_line(shown), *words.question_line(record.meta)]
    return compose(Page(headings, strips, inner_legend(shown), words.notes(record.meta), columns=columns))
