"""Where things are in a picture: strips of frames with their segments, headings, a legend and notes, all in pixels."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from holitom.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 2200  # pixels of a page
COLUMNS = 8
MARGIN, GAP, BAR, BORDER, LINE, SWATCH, LABEL = 24, 14, 34, 5, 34, 30, 300
DPI = 100
POINTS = 13.0  # 18 pixels at 100 dpi
CHARACTER = 10.6  # pixels of an average character, rounded up
SEGMENT_TONES = ((30, 30, 30), (185, 185, 185))  # in turn; colours mean merged tokens


@dataclass(frozen=True)
class Strip:
    """One row of pictures per block of the page.

    Attributes:
        tiles: pictures, uint8 (height, width, 3), all of one size.
        captions: one short line above each tile.
        segments: first and last tile of each segment; none if tiles are no frames.
        label: lines to the left of the strip.
    """

    tiles: Sequence[np.ndarray]
    captions: Sequence[str]
    segments: Sequence[tuple[int, int]]
    label: Sequence[str]


@dataclass(frozen=True)
class Page:
    """Strips that are shown block by block, each block with as many tiles of every strip as fit beside one another.

    Attributes:
        headings: lines above.
        strips: all with equally many tiles.
        legend: samples, uint8 (height, width, 3), with their meaning.
        notes: lines below.
        width: of the page in pixels.
        columns: tiles beside one another.
    """

    headings: Sequence[str]
    strips: Sequence[Strip]
    legend: Sequence[tuple[np.ndarray, str]] = ()
    notes: Sequence[str] = ()
    width: int = WIDTH
    columns: int = COLUMNS


@dataclass(frozen=True)
class Caption:
    """Words at a place in pixels; ``role`` is heading, segment, frame, label, legend or note."""

    left: float
    middle: float
    words: str
    role: str
    align: str = "left"
    colour: tuple[int, int, int] = (0, 0, 0)


@dataclass
class _Drawing:
    canvas: np.ndarray
    texts: list[Caption] = field(default_factory=list)


def columns_for(count: int) -> int:
    """Frames beside one another; at most four are shown larger."""
    return COLUMNS if count > COLUMNS // 2 else COLUMNS // 2


def tile_size(height: int, width: int, side: int, columns: int, page: int = WIDTH) -> tuple[int, int]:
    """Height and width of a tile in pixels, whole numbers of cells.

    Args:
        height, width: of a frame.
        side: tokens along one side of the grid.
        columns: tiles beside one another.
        page: width of the page.
    """
    room = page - 2 * MARGIN - 2 * BORDER - LABEL
    cell_width = max(((room + GAP) // columns - GAP) // side, 4)
    cell_height = max(round(cell_width * height / width), 4)
    return cell_height * side, cell_width * side


def compose(page: Page) -> Figure:
    """A figure of exactly the page's size; pyplot and its global state are not touched.

    Raises:
        InputError: if matplotlib is not installed.
    """
    headings = [line for heading in page.headings for line in _wrapped(heading, page.width)]
    notes = [line for note in page.notes for line in _wrapped(note, page.width)]
    top = MARGIN + len(headings) * LINE + GAP
    blocks = _blocks(page)
    per_block = sum(BAR + strip.tiles[0].shape[0] + GAP for strip in page.strips) + GAP
    legend_top = top + len(blocks) * per_block + GAP // 2
    notes_top = legend_top + _legend_rows(page) * LINE + GAP
    drawing = _Drawing(np.full((notes_top + len(notes) * LINE + MARGIN, page.width, 3), 255, dtype=np.uint8))
    for number, line in enumerate(headings):
        drawing.texts.append(Caption(MARGIN, MARGIN + (number + 0.5) * LINE, line, "heading"))
    for number, line in enumerate(notes):
        drawing.texts.append(Caption(MARGIN, notes_top + (number + 0.5) * LINE, line, "note"))
    for block in blocks:
        for strip in page.strips:
            _paint_strip(drawing, page, strip, block, top)
            top += BAR + strip.tiles[0].shape[0] + GAP
        top += GAP
    _paint_legend(drawing, page, legend_top)
    return _figure(drawing)


def _wrapped(text: str, width: int) -> list[str]:
    """At most two lines that fit into the page."""
    room = int((width - 2 * MARGIN) / CHARACTER)
    return textwrap.wrap(" ".join(text.split()), room, max_lines=2, placeholder=" …") or [""]


def _blocks(page: Page) -> list[range]:
    count = len(page.strips[0].tiles)
    return [range(start, min(start + page.columns, count)) for start in range(0, count, page.columns)]


def _legend_columns(page: Page) -> int:
    longest = max((len(words) for _, words in page.legend), default=1)
    widest = max((sample.shape[1] for sample, _ in page.legend), default=SWATCH)
    return max(1, int((page.width - 2 * MARGIN) // (widest + 12 + longest * CHARACTER + GAP)))


def _legend_rows(page: Page) -> int:
    return -(-len(page.legend) // _legend_columns(page))


def _paint_legend(drawing: _Drawing, page: Page, top: int) -> None:
    columns = _legend_columns(page)
    step = (page.width - 2 * MARGIN) // columns
    for number, (sample, words) in enumerate(page.legend):
        row, column = divmod(number, columns)
        up, left = top + row * LINE, MARGIN + column * step
        height, width = sample.shape[:2]
        drawing.canvas[up : up + height, left : left + width] = sample
        drawing.texts.append(Caption(left + width + 10, up + height / 2, words, "legend"))


def _paint_strip(drawing: _Drawing, page: Page, strip: Strip, block: range, top: int) -> None:
    """The tiles of one block with their captions, the bars of their segments and the strip's label."""
    height, width = strip.tiles[0].shape[:2]
    first_left = MARGIN + BORDER + LABEL
    lefts = {tile: first_left + (tile - block.start) * (width + GAP) for tile in block}
    up = top + BAR
    for number, first, last in _within(strip.segments, block):
        left, right = lefts[first], lefts[last] + width
        tone = SEGMENT_TONES[number % len(SEGMENT_TONES)]
        drawing.canvas[top : up + height + BORDER, left - BORDER : right + BORDER] = tone
        name = f"S{number + 1}" + ("" if first == strip.segments[number][0] else " cont.")
        ink = (255, 255, 255) if tone[0] < 128 else (0, 0, 0)
        drawing.texts.append(Caption(left + 3, top + BAR / 2, name, "segment", colour=ink))
        drawing.texts += [_caption(strip, tile, lefts[tile] + width - 3, top, ink) for tile in range(first, last + 1)]
    if not strip.segments:
        drawing.texts += [_caption(strip, tile, lefts[tile] + width - 3, top, (0, 0, 0)) for tile in block]
    for tile in block:
        drawing.canvas[up : up + height, lefts[tile] : lefts[tile] + width] = strip.tiles[tile]
    for number, line in enumerate(strip.label):
        drawing.texts.append(
            Caption(MARGIN, top + (number + 0.5) * 0.8 * LINE, line, "title" if number == 0 else "label")
        )


def _caption(strip: Strip, tile: int, right: int, top: int, ink: tuple[int, int, int]) -> Caption:
    return Caption(right, top + BAR / 2, strip.captions[tile], "frame", "right", ink)


def _within(segments: Sequence[tuple[int, int]], block: range) -> Iterator[tuple[int, int, int]]:
    """Number, first and last tile of the part of every segment that is in a block."""
    for number, (first, last) in enumerate(segments):
        first, last = max(first, block.start), min(last, block.stop - 1)
        if first <= last:
            yield number, first, last


def new_figure(width: int, height: int) -> Figure:
    """An empty figure of so many pixels, for the Agg canvas.

    Raises:
        InputError: if matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise InputError("pictures of tokens need matplotlib: pip install 'holitom[show]'") from error
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def _figure(drawing: _Drawing) -> Figure:
    height, width = drawing.canvas.shape[:2]
    figure = new_figure(width, height)
    _lay(figure, drawing.canvas)
    for text in drawing.texts:
        placed = figure.text(
            text.left / width,
            1 - text.middle / height,
            text.words,
            size=POINTS,
            va="center_baseline",
            color=tuple(channel / 255 for channel in text.colour),
            parse_math=False,
        )
        bold = text.role in ("segment", "heading", "title")
        placed.set(ha=text.align, gid=text.role, weight="bold" if bold else "normal")
    return figure


def _lay(figure: Figure, canvas: np.ndarray) -> None:
    """Lay pixels over the whole figure; matplotlib would resample them in floats, which takes longer than the words."""
    from matplotlib.image import FigureImage  # noqa: PLC0415

    class Pixels(FigureImage):
        def make_image(self, renderer: Any, magnification: float = 1.0, unsampled: bool = False) -> Any:
            if magnification != 1.0 or unsampled or renderer.dpi != DPI:
                return super().make_image(renderer, magnification, unsampled)  # a figure saved at another size
            opaque = np.full((*canvas.shape[:2], 1), 255, dtype=np.uint8)
            return np.concatenate([canvas, opaque], axis=2)[::-1], 0, 0, None

    image = Pixels(figure, origin="upper")
    image.set_data(canvas)
    figure.images.append(image)
