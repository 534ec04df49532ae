"""How one frame's tokens are marked in a token map: every kind has its own colour, brightness and shape.

Colours are Okabe and Ito's, which the colour-blind can tell apart; kept tokens stay in full colour, all others are grey
or tinted, so that a grey print shows the same.
"""

from __future__ import annotations

import math

import numpy as np

from holitom.tokens import TokenKind

ORANGE, SKY, BLUE = (230, 159, 0), (86, 180, 233), (0, 80, 150)
PINK, PURPLE = (214, 150, 190), (130, 40, 100)
BLACK, WHITE = (0, 0, 0), (255, 255, 255)

# share of the picture that stays visible (as grey) under the colour
VEILS = {
    TokenKind.DYNAMIC_DROPPED: (0.40, (70, 70, 70)),
    TokenKind.STATIC_DROPPED: (0.40, (70, 70, 70)),
    TokenKind.STATIC_MERGED: (0.45, SKY),
    TokenKind.CONTEXTUAL_MERGED: (0.45, PINK),
}


def paint_tokens(picture: np.ndarray, kinds: np.ndarray, merged_inside: np.ndarray) -> np.ndarray:
    """Mark the tokens of one frame.

    Args:
        picture: uint8, (side * cell_height, side * cell_width, 3).
        kinds: values of :class:`~holitom.outer.TokenKind`, (side * side,).
        merged_inside: tokens to cross out, bool, (side * side,).

    Returns:
        The marked picture, uint8, of the same shape.
    """
    side = math.isqrt(len(kinds))
    cell_height, cell_width = picture.shape[0] // side, picture.shape[1] // side

    def spread(values: np.ndarray) -> np.ndarray:
        return values.reshape(side, side).repeat(cell_height, axis=0).repeat(cell_width, axis=1)

    kind = spread(kinds)
    painted = _tinted(picture, kind)
    for shape, colour in _marks(kind, spread(merged_inside), cell_height, cell_width):
        painted[shape] = colour
    return painted


def _marks(
    kind: np.ndarray, crossed: np.ndarray, cell_height: int, cell_width: int
) -> list[tuple[np.ndarray, tuple[int, int, int]]]:
    """Pixels and colour of every line, dot and cross, in the order of painting."""
    height, width = kind.shape
    below, right = (np.arange(height) % cell_height)[:, None], np.arange(width) % cell_width
    edge = np.minimum(np.minimum(below, cell_height - 1 - below), np.minimum(right, cell_width - 1 - right))
    away, aside = np.abs(below - (cell_height - 1) / 2), np.abs(right - (cell_width - 1) / 2)
    from_center = np.hypot(away, aside)
    short = min(cell_height, cell_width)
    thin = max(round(short * 0.06), 1)
    # distance to the diagonals of a square in the middle of the cell, and to one diagonal of the whole cell
    cross = np.where(np.maximum(away, aside) < short * 0.42, np.abs(away - aside), np.inf)
    slash = np.abs(below / cell_height + right / cell_width - 1) * short
    center = kind == TokenKind.STATIC_CENTER
    return [
        ((kind == TokenKind.DYNAMIC_KEPT) & (edge < thin), ORANGE),
        (center & (edge < 3 * thin), BLUE),
        (center & ~crossed & (from_center < short * 0.28), WHITE),
        (center & ~crossed & (from_center < short * 0.20), BLUE),
        ((kind == TokenKind.STATIC_DROPPED) & (slash < 1.5 * thin), SKY),
        ((kind == TokenKind.CONTEXTUAL_CENTER) & (edge < 3 * thin), PURPLE),
        # in a grey print the veil alone would look like that of a merged static token
        ((kind == TokenKind.CONTEXTUAL_MERGED) & (from_center < short * 0.15), PURPLE),
        (crossed & (cross < 2.6 * thin), WHITE),
        (crossed & (cross < 1.2 * thin), BLACK),
    ]


def _tinted(picture: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """The picture with the veil of each pixel's kind; kinds without one stay as they are."""
    grey = picture @ np.array([0.299, 0.587, 0.114])
    tinted = picture.copy()
    for veiled, (visible, colour) in VEILS.items():
        veil = visible * grey[..., None] + (1 - visible) * np.array(colour)
        tinted = np.where((kind == veiled)[..., None], veil.round().astype(np.uint8), tinted)
    return tinted
