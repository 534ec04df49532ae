"""Where things are in a token map: rows of frames, segment bars, headings and the legend, all in pixels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from holitom.token_painting import paint_tokens
from holitom.tokens import TokenKind
from llava.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LegendEntry = tuple[TokenKind | None, str]  # None: merged away inside the LLM

WIDTH = 2200  # pixels of the whole picture
COLUMNS = 8
MARGIN, GAP, BAR, BORDER, LINE, SWATCH = 24, 14, 32, 5, 46, 34
LEGEND_COLUMNS = 4
DPI = 100
TEXT_POINTS = 15.0  # 21 pixels at 100 dpi

# dark and light in turn, so that neighbours differ in grey too
SEGMENT_COLOURS = ((0, 158, 115), (240, 228, 66), (213, 94, 0), (187, 187, 187))


@dataclass(frozen=True)
class Text:
    """Words at a place in pixels; ``role`` is heading, segment, frame or legend."""

    left: int
    middle: int
    words: str
    align: str
    role: str


@dataclass(frozen=True)
class Layout:
    """Sizes and places in pixels."""

    frames: int
    columns: int
    cell_height: int
    cell_width: int
    side: int
    header: int
    legend_rows: int

    @property
    def rows(self) -> int:
        return -(-self.frames // self.columns)

    @property
    def frame_height(self) -> int:
        return self.cell_height * self.side

    @property
    def frame_width(self) -> int:
        return self.cell_width * self.side

    @property
    def legend_top(self) -> int:
        return self.header + self.rows * (BAR + self.frame_height + GAP) + GAP

    @property
    def height(self) -> int:
        return self.legend_top + self.legend_rows * LINE + MARGIN

    def corner(self, frame: int) -> tuple[int, int]:
        """Top and left of a frame's picture; its segment bar lies above."""
        row, column = divmod(frame, self.columns)
        used = self.columns * self.frame_width + (self.columns - 1) * GAP
        left = (WIDTH - used) // 2 + column * (self.frame_width + GAP)
        return self.header + row * (BAR + self.frame_height + GAP) + BAR, left


def lay_out(frames: np.ndarray, kinds: np.ndarray, legend_entries: int, header_lines: int) -> Layout:
    """Place everything; at most four frames are shown larger."""
    count, height, width = frames.shape[:3]
    side = math.isqrt(kinds.shape[1])
    columns = COLUMNS if count > COLUMNS // 2 else COLUMNS // 2
    cell_width = max(((WIDTH - 2 * MARGIN + GAP) // columns - GAP) // side, 4)
    return Layout(
        frames=count,
        columns=columns,
        cell_height=max(round(cell_width * height / width), 4),
        cell_width=cell_width,
        side=side,
        header=MARGIN + header_lines * LINE,
        legend_rows=-(-legend_entries // LEGEND_COLUMNS),
    )


def _spans(segments: Sequence[tuple[int, int]], layout: Layout) -> Iterator[tuple[int, int, int]]:
    """Number, first and last frame of every stretch of a segment within one row of the picture."""
    for number, (first, last) in enumerate(segments):
        for row in range(first // layout.columns, last // layout.columns + 1):
            yield number, max(first, row * layout.columns), min(last, (row + 1) * layout.columns - 1)


def paint_segments(canvas: np.ndarray, segments: Sequence[tuple[int, int]], layout: Layout) -> None:
    """A bar above each stretch of a segment, and a frame of its colour around its pictures."""
    for number, first, last in _spans(segments, layout):
        (top, left), (_, right) = layout.corner(first), layout.corner(last)
        right += layout.frame_width
        bottom = top + layout.frame_height
        for rows, columns in (
            (slice(top - BAR, top), slice(left - BORDER, right + BORDER)),
            (slice(bottom, bottom + BORDER), slice(left - BORDER, right + BORDER)),
            (slice(top, bottom), slice(left - BORDER, left)),
            (slice(top, bottom), slice(right, right + BORDER)),
        ):
            canvas[rows, columns] = SEGMENT_COLOURS[number % len(SEGMENT_COLOURS)]


def paint_legend(canvas: np.ndarray, entries: Sequence[LegendEntry], layout: Layout) -> None:
    """One token of each kind, painted by the same function as those of the frames, over a piece of a gradient."""
    rows, columns = np.mgrid[0:SWATCH, 0:SWATCH]
    sample = np.stack([110 + 3 * columns, 190 - 2 * rows, 60 + 2 * columns], axis=-1).astype(np.uint8)
    for index, (kind, _) in enumerate(entries):
        top, left = _legend_corner(index, layout)
        shown = np.array([TokenKind.DYNAMIC_KEPT if kind is None else kind])
        canvas[top : top + SWATCH, left : left + SWATCH] = paint_tokens(sample, shown, np.array([kind is None]))


def _legend_corner(index: int, layout: Layout) -> tuple[int, int]:
    row, column = divmod(index, LEGEND_COLUMNS)
    first_left = layout.corner(0)[1]
    return layout.legend_top + row * LINE, first_left + column * ((WIDTH - 2 * first_left) // LEGEND_COLUMNS)


def texts(
    segments: Sequence[tuple[int, int]],
    headings: Sequence[str],
    entries: Sequence[LegendEntry],
    layout: Layout,
) -> Iterator[Text]:
    """All words of the picture."""
    left = layout.corner(0)[1]
    for line, heading in enumerate(headings):
        yield Text(left, MARGIN + line * LINE + LINE // 3, heading, "left", role="heading")
    continued: set[int] = set()
    for number, first, last in _spans(segments, layout):
        for frame in range(first, last + 1):
            top, frame_left = layout.corner(frame)
            middle = top - BAR // 2
            yield Text(frame_left + layout.frame_width - 4, middle, f"frame {frame + 1}", "right", role="frame")
            if frame == first:
                name = f"S{number + 1}" + (" (cont.)" if number in continued else "")
                yield Text(frame_left + 4, middle, name, "left", role="segment")
        continued.add(number)
    for index, (_, text) in enumerate(entries):
        top, entry_left = _legend_corner(index, layout)
        yield Text(entry_left + SWATCH + 12, top + SWATCH // 2, text, "left", role="legend")


def with_text(canvas: np.ndarray, words: Iterable[Text]) -> Figure:
    """A figure of exactly the canvas's size with the words on it; pyplot and its global state are not touched."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise InputError("drawing the token map needs matplotlib; pip install matplotlib") from error

    height, width = canvas.shape[:2]
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    figure.figimage(canvas, origin="upper")
    for text in words:
        placed = figure.text(
            text.left / width, 1 - text.middle / height, text.words, size=TEXT_POINTS, va="center_baseline"
        )
        placed.set(ha=text.align, gid=text.role, weight="bold" if text.role in ("segment", "heading") else "normal")
    return figure
