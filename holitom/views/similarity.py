"""Similarity over time, with the threshold and the chosen segmentation under it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from holitom.errors import InputError
from holitom.methods import facts_of
from holitom.record.saved import SavedRecord, SavedVideo
from holitom.views import words
from holitom.views.maps import one_video
from holitom.views.page import SEGMENT_TONES, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SKY, _BLUE, _VERMILLION = "#56B4E9", "#0072B2", "#D55E00"


def threshold_of(meta: dict[str, Any]) -> float | None:
    """``similarity_threshold`` of a record's configuration; None where it has none."""
    settings = _mapping(_mapping(meta.get("config")).get("compressor"))
    outer = _mapping(settings.get("outer"))
    found = outer.get("similarity_threshold", settings.get("similarity_threshold"))
    return float(found) if isinstance(found, int | float) else None


def _mapping(value: Any) -> dict[str, Any]:
    """The value if it is a mapping: a record's meta may hold anything that JSON can say."""
    return value if isinstance(value, dict) else {}


def similarity_chart(record: SavedRecord, video: int = 0) -> Figure:
    """Similarity of every token to the next frame: mean, spread and share above the threshold, over the segments.

    Args:
        record: of one prompt.
        video: its number in the prompt.

    Raises:
        InputError: as :func:`~holitom.views.maps.token_map`, and if the record holds no similarity.
    """
    shown = one_video(record, video)
    if shown.similarity is None:
        raise InputError("the record holds no similarity: record it with holitom.watching.watched")
    figure = new_figure(2200, 1000)
    grid = figure.add_gridspec(4, 1, height_ratios=(1.1, 3.4, 1.6, 0.9), hspace=0.12)
    grid.update(left=0.07, right=0.985, top=0.88, bottom=0.13)
    strip, lines, shares, bars = (figure.add_subplot(grid[row]) for row in range(4))
    for axes in (strip, lines, shares, bars):
        axes.set_xlim(0.5, shown.frames + 0.5)
        axes.tick_params(labelsize=12)
    threshold = threshold_of(record.meta)
    _frames(strip, shown)
    _lines(lines, shown.similarity, threshold, str(record.meta.get("method")))
    _shares(shares, shown.similarity, threshold)
    _segments(bars, shown)
    heading = f"{words.title(record)}, similarity of tokens to the same position one frame later"
    figure.text(0.012, 0.965, heading, size=15, weight="bold", va="center", gid="heading", parse_math=False)
    figure.text(0.012, 0.92, words.counts_line(shown), size=13, va="center", gid="heading", parse_math=False)
    for number, note in enumerate(words.notes(record.meta)):
        figure.text(0.012, 0.045 - 0.03 * number, note, size=11, va="center", gid="note", parse_math=False)
    return figure


def _frames(axes: Axes, video: SavedVideo) -> None:
    """The middle of every frame, over its number."""
    pictures = video.pictures()
    height, width = pictures.shape[1:3]
    shape = axes.get_window_extent()
    room = shape.width / (video.frames * shape.height)  # width of a frame's place by its height
    across, down = min(width, max(1, round(height * room))), min(height, max(1, round(width / room)))
    left, top = (width - across) // 2, (height - down) // 2
    for number, picture in enumerate(pictures[:, top : top + down, left : left + across], 1):
        axes.imshow(picture, extent=(number - 0.46, number + 0.46, 0, 1), aspect="auto", interpolation="bilinear")
    axes.set_xlim(0.5, video.frames + 0.5)
    axes.set_ylim(0, 1)
    axes.axis("off")


def _lines(axes: Axes, similarity: np.ndarray, threshold: float | None, method: str) -> None:
    between = np.arange(len(similarity)) + 1.5
    if len(similarity):
        low, middle, high = np.quantile(similarity, (0.1, 0.5, 0.9), axis=1)
        axes.fill_between(between, low, high, color=_SKY, alpha=0.4, label="10 to 90 % of the tokens")
        axes.plot(between, middle, color=_SKY, marker="s", linewidth=1.5, linestyle="--", label="median")
        axes.plot(between, similarity.mean(axis=1), color=_BLUE, marker="o", linewidth=2.5, label="mean", gid="mean")
    if threshold is not None:
        meaning = f"similarity_threshold = {threshold:g} ({facts_of(method).threshold})"
        axes.axhline(threshold, color=_VERMILLION, linewidth=2.5, linestyle=(0, (6, 3)), label=meaning, gid="threshold")
    axes.set_ylabel("cosine", size=13)
    axes.grid(alpha=0.3)
    axes.tick_params(labelbottom=False)
    if len(similarity) or threshold is not None:
        axes.legend(loc="lower right", fontsize=12, ncols=4, framealpha=0.9)
    low, high = axes.dataLim.y0, axes.dataLim.y1
    low, high = (min(low, threshold), max(high, threshold)) if threshold is not None else (low, high)
    if not np.isfinite((low, high)).all():  # one frame alone has no similarity
        low, high = 0.0, 1.0
    room = max(high - low, 0.02)
    axes.set_ylim(low - 0.35 * room, high + 0.1 * room)  # the legend stands below the curves


def _shares(axes: Axes, similarity: np.ndarray, threshold: float | None) -> None:
    """Share of the tokens above the threshold, pair by pair."""
    axes.set_ylim(0, 1.3)
    axes.tick_params(labelbottom=False)
    if threshold is None:
        axes.text(0.5, 0.5, "the method has no threshold", transform=axes.transAxes, ha="center", va="center", size=12)
        return
    above = (similarity > threshold).mean(axis=1)
    axes.bar(np.arange(len(above)) + 1.5, above, width=0.7, color=_BLUE)
    for place, value in enumerate(above):
        axes.text(place + 1.5, value + 0.04, f"{value:.0%}", ha="center", size=11, gid="share")
    axes.set_ylabel("above", size=13)


def _segments(axes: Axes, video: SavedVideo) -> None:
    """A bar from the first to the last frame of every segment."""
    for number, (first, last) in enumerate(video.segments.tolist()):
        tone = np.array(SEGMENT_TONES[number % len(SEGMENT_TONES)]) / 255
        axes.barh(0, last - first + 0.92, left=first + 0.54, color=tuple(tone), height=0.8)
        ink = "white" if tone[0] < 0.5 else "black"
        axes.text(
            (first + last) / 2 + 1,
            0,
            f"S{number + 1}",
            color=ink,
            ha="center",
            va="center",
            size=12,
            weight="bold",
            gid="segment",
        )
    axes.set_yticks([])
    axes.set_ylabel("segments", size=13)
    step = 1 if video.frames <= 40 else 5
    marks = np.arange(1, video.frames + 1, step)
    names = [str(mark) if video.times is None else f"{mark}\n{video.times[mark - 1]:.1f} s" for mark in marks]
    axes.set_xticks(marks, names)
