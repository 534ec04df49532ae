"""How the tokens of one frame are marked: every kind has its own shape and brightness, besides its colour.

So the picture stays readable for the colour-blind and in a grey print: solid tints are static, stripes are clustered,
clear ones are kept as they are, dark ones are gone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from holitom.tokens import TokenKind
from holitom.views.colours import BLACK, DARK, ORANGE, PALE, PALETTE, WHITE

_GREY = np.array([0.299, 0.587, 0.114])
_VISIBLE = 0.4  # share of the grey picture below the colour of a merged token


class Cells:
    """Pixels of a frame by the cell of the token grid that they are in.

    Args:
        picture: uint8, (side * cell_height, side * cell_width, 3); it is left alone.
        side: tokens along one side.
    """

    def __init__(self, picture: np.ndarray, side: int) -> None:
        self.painted, self.side = picture.copy(), side
        self.height, self.width = picture.shape[0] // side, picture.shape[1] // side
        self._luminance = picture @ _GREY
        short = min(self.height, self.width)
        self.short, self.thin = short, max(round(short * 0.06), 1)
        below = (np.arange(picture.shape[0]) % self.height)[:, None]
        right = (np.arange(picture.shape[1]) % self.width)[None]
        self.below, self.right = np.broadcast_arrays(below, right)
        self.edge = np.minimum(np.minimum(below, self.height - 1 - below), np.minimum(right, self.width - 1 - right))
        self.away, self.aside = np.abs(below - (self.height - 1) / 2), np.abs(right - (self.width - 1) / 2)
        self.radius = np.hypot(self.away, self.aside)
        self.stripe = (self.below * 1.0 + self.right) % max(short / 2, 4) < max(short / 4, 2)
        # from the diagonals of a square in the middle, and from one diagonal of the whole cell
        self.cross = np.where(np.maximum(self.away, self.aside) < short * 0.42, np.abs(self.away - self.aside), np.inf)
        self.slash = np.abs(below / self.height + right / self.width - 1) * short

    def spread(self, values: np.ndarray) -> np.ndarray:
        """One value per token, (side * side, ...), as one per pixel."""
        grid = values.reshape(self.side, self.side, *values.shape[1:])
        return grid.repeat(self.height, axis=0).repeat(self.width, axis=1)

    def tint(self, where: np.ndarray, colour: np.ndarray | tuple[int, int, int], visible: float) -> None:
        """Lay a colour over pixels, of which ``visible`` of the grey picture stays."""
        laid = visible * self._luminance[..., None] + (1 - visible) * np.asarray(colour)
        self.painted[where] = np.broadcast_to(laid, self.painted.shape)[where].round().astype(np.uint8)

    def fill(self, where: np.ndarray, colour: np.ndarray | tuple[int, int, int]) -> None:
        """Colour pixels; the colour is one, or one per pixel of the frame."""
        self.painted[where] = np.broadcast_to(np.asarray(colour, dtype=np.uint8), self.painted.shape)[where]

    def borders(self, groups: np.ndarray, where: np.ndarray) -> None:
        """Dark lines between neighbouring tokens of different groups, where ``where`` holds; both per token."""
        grid, wanted = groups.reshape(self.side, self.side), where.reshape(self.side, self.side)
        for axis, at, size in ((0, self.below, self.height), (1, self.right, self.width)):
            for step, line in ((1, at < self.thin), (-1, at >= size - self.thin)):
                beside = np.roll(grid, step, axis=axis)
                differs = wanted & (beside != grid)
                np.moveaxis(differs, axis, 0)[0 if step == 1 else -1] = False  # roll looks round the frame's end
                self.fill(self.spread(differs.ravel()) & line, BLACK)


@dataclass(frozen=True)
class TokenLook:
    """What is painted of the tokens of one frame before the LLM; all (side * side,).

    Attributes:
        kinds: values of :class:`~holitom.tokens.TokenKind`.
        rows: merged token that each belongs to, -1 for none.
        colours: of each token, a place in :data:`~holitom.views.colours.PALETTE`.
        gone: tokens that reached the LLM and are gone behind its last stage.
    """

    kinds: np.ndarray
    rows: np.ndarray
    colours: np.ndarray
    gone: np.ndarray


def paint_tokens(picture: np.ndarray, look: TokenLook) -> np.ndarray:
    """Mark what became of the tokens of one frame before the LLM.

    Args:
        picture: uint8, (side * cell_height, side * cell_width, 3).
        look: see :class:`TokenLook`.

    Returns:
        The marked picture, uint8, of the same shape.
    """
    cells = Cells(picture, int(len(look.kinds) ** 0.5))
    kind, crossed = cells.spread(look.kinds), cells.spread(look.gone)
    colour = np.array(PALETTE)[cells.spread(look.colours)]
    static = np.isin(look.kinds, (TokenKind.STATIC_MERGED, TokenKind.STATIC_CENTER))
    clear = kind == TokenKind.DYNAMIC_KEPT
    center, clustered = kind == TokenKind.STATIC_CENTER, kind == TokenKind.CONTEXTUAL_CENTER
    cells.tint(np.isin(kind, (TokenKind.DYNAMIC_DROPPED, TokenKind.STATIC_DROPPED)), DARK, 0.30)
    cells.tint(np.isin(kind, (TokenKind.STATIC_MERGED, TokenKind.STATIC_CENTER)), colour, _VISIBLE)
    striped = kind == TokenKind.CONTEXTUAL_MERGED
    cells.tint(striped, DARK, 0.60)
    cells.fill(striped & cells.stripe, colour)
    cells.borders(look.rows, static)
    cells.tint(clear & crossed, DARK, 0.55)
    cells.fill(clear & ~crossed & (cells.edge < 2 * cells.thin), ORANGE)
    cells.fill(clustered & (cells.edge < 3 * cells.thin), colour)
    cells.fill(clustered & (cells.edge < cells.thin), BLACK)
    cells.fill((center | clustered) & ~crossed & (cells.radius < cells.short * 0.30), BLACK)
    cells.fill(center & ~crossed & (cells.radius < cells.short * 0.20), WHITE)
    cells.fill(clustered & ~crossed & (cells.radius < cells.short * 0.22), colour)
    cells.fill((kind == TokenKind.STATIC_DROPPED) & (cells.slash < 1.5 * cells.thin), PALETTE[0])
    _cross(cells, crossed)
    return cells.painted


def _cross(cells: Cells, where: np.ndarray) -> None:
    cells.fill(where & (cells.cross < 2.6 * cells.thin), WHITE)
    cells.fill(where & (cells.cross < 1.2 * cells.thin), BLACK)


@dataclass(frozen=True)
class InnerLook:
    """What is painted of the tokens of one frame from a stage inside the LLM on; all (side * side,).

    Attributes:
        places: row that stands for each token from the stage on, -1 dropped, -2 in a newline token.
        reached: whether it reached the LLM at all, on its own or merged.
        kept: whether its own row is still there.
        colours: of each token's row, a place in the palette.
        targets: whether tokens were merged into its row.
        points: of tokens that stand for their row and were merged: flat position of the target in this frame; -1 for
            one in an earlier frame, -2 for one in a later frame, -3 for tokens without a mark.
    """

    places: np.ndarray
    reached: np.ndarray
    kept: np.ndarray
    colours: np.ndarray
    targets: np.ndarray
    points: np.ndarray


EARLIER, LATER, NO_MARK = -1, -2, -3


def paint_inner(picture: np.ndarray, look: InnerLook) -> np.ndarray:
    """Mark which tokens of one frame are still there from a layer on, and where the others went.

    Args:
        picture: uint8, (side * cell_height, side * cell_width, 3).
        look: see :class:`InnerLook`.
    """
    cells = Cells(picture, int(len(look.places) ** 0.5))
    reached, kept, places = cells.spread(look.reached), cells.spread(look.kept), cells.spread(look.places)
    colour, points = np.array(PALETTE)[cells.spread(look.colours)], cells.spread(look.points)
    target = cells.spread(look.targets) & kept
    cells.tint(~reached, DARK, 0.30)
    cells.tint(reached & ~kept & (places >= 0), colour, _VISIBLE)
    cells.tint(reached & (places == -2), PALE, 0.25)
    cells.tint(reached & (places == -1), DARK, 0.30)
    _cross(cells, reached & (places == -1))
    cells.fill(kept & ~target & (cells.edge < 2 * cells.thin), ORANGE)
    cells.fill(target & (cells.edge < 3 * cells.thin), colour)
    cells.fill(target & (cells.edge < cells.thin), BLACK)
    half = cells.short * 0.3
    across = cells.right - (cells.width - 1) / 2
    for mark, sign in ((EARLIER, 1), (LATER, -1)):
        tip = sign * across + half  # 0 at the tip, 2 * half at the base
        triangle = (points == mark) & (tip >= 0) & (tip <= 2 * half)
        cells.fill(triangle & (cells.away <= tip / 2), WHITE)
        cells.fill(triangle & (cells.away <= tip / 2 - 1.2 * cells.thin) & (tip <= 2 * half - cells.thin), BLACK)
    return _with_arrows(cells, look.points)


def _with_arrows(cells: Cells, points: np.ndarray) -> np.ndarray:
    """A line from each merged token to its target in the same frame, with a dot at the target."""
    from PIL import Image, ImageDraw  # noqa: PLC0415

    starts = np.nonzero(points >= 0)[0]
    if len(starts) == 0:
        return cells.painted
    image = Image.fromarray(cells.painted)
    draw = ImageDraw.Draw(image)

    def middle(position: int) -> tuple[float, float]:
        row, column = divmod(position, cells.side)
        return (column + 0.5) * cells.width, (row + 0.5) * cells.height

    lines = [(middle(int(start)), middle(int(points[start]))) for start in starts]
    for colour, width, radius in ((WHITE, 3 * cells.thin, 0.22), (BLACK, cells.thin, 0.15)):
        for line in lines:
            draw.line(line, fill=colour, width=width)
            (x, y), reach = line[1], radius * cells.short
            draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=colour)
    return np.asarray(image)


def paint_heat(picture: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """One colour per token, uint8 (side * side, 3), in place of the picture; pale grey ones get a slash."""
    cells = Cells(picture, int(len(colours) ** 0.5))
    per_pixel = cells.spread(colours)
    everywhere = np.ones(per_pixel.shape[:2], dtype=bool)
    cells.fill(everywhere, per_pixel)
    empty = (per_pixel == np.array(PALE)).all(axis=-1)
    cells.fill(empty & (cells.slash < 1.5 * cells.thin), (170, 170, 170))
    return cells.painted
