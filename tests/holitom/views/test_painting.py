"""Marks of tokens: every kind is told from every other, colours mean one merged token, marks stay in their cells."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from holitom.tokens import TokenKind
from holitom.views.colours import BLACK, ORANGE, PALE, PALETTE, colours_of, heat_colours
from holitom.views.painting import EARLIER, LATER, NO_MARK, InnerLook, TokenLook, paint_heat, paint_inner, paint_tokens

pytest.importorskip("matplotlib")
CELL = np.full((20, 20, 3), (90, 140, 110), np.uint8)
GREY = np.array([0.299, 0.587, 0.114])


def one_token(kind: TokenKind, gone: bool = False, colour: int = 0) -> np.ndarray:
    look = TokenLook(np.array([kind]), np.array([0]), np.array([colour]), np.array([gone]))
    return paint_tokens(CELL, look)


def inner_token(place: int = 0, reached: bool = True, kept: bool = True, target: bool = False, point: int = NO_MARK):
    columns = (place, reached, kept, 0, target, point)
    return paint_inner(CELL, InnerLook(*(np.array([value]) for value in columns)))


def told_apart(marked: dict[str, np.ndarray]) -> None:
    """Any two differ in many pixels, also in a grey print."""
    for (one, first), (other, second) in combinations(marked.items(), 2):
        assert (first != second).any(axis=-1).sum() >= 30, (one, other)
        assert (np.abs(first @ GREY - second @ GREY) > 20).sum() >= 20, (one, other)


def test_pixels_tell_every_kind_from_every_other() -> None:
    told_apart({kind.name: one_token(kind) for kind in TokenKind} | {"gone": one_token(TokenKind.DYNAMIC_KEPT, True)})


def test_pixels_tell_what_happened_inside() -> None:
    told_apart({
        "alone": inner_token(),
        "target": inner_token(target=True),
        "merged": inner_token(kept=False),
        "earlier": inner_token(kept=False, point=EARLIER),
        "later": inner_token(kept=False, point=LATER),
        "newline": inner_token(-2, kept=False),
        "dropped": inner_token(-1, kept=False),
        "never": inner_token(-1, reached=False, kept=False),
    })  # fmt: skip


def test_what_each_kind_looks_like() -> None:
    kept, dropped = one_token(TokenKind.DYNAMIC_KEPT), one_token(TokenKind.DYNAMIC_DROPPED)
    assert (kept[2:-2, 2:-2] == CELL[2:-2, 2:-2]).all()  # clear inside its outline
    assert tuple(kept[0, 0]) == ORANGE
    assert np.ptp(dropped[10, 10]) == 0  # grey and dark
    assert dropped[10, 10, 0] < 70
    for number, colour in enumerate(PALETTE):
        merged = one_token(TokenKind.STATIC_MERGED, colour=number)
        want = 0.4 * (CELL[0, 0] @ GREY) + 0.6 * np.array(colour)
        assert (merged == want.round()).all(), "one flat tint"
        center = one_token(TokenKind.STATIC_CENTER, colour=number)
        assert tuple(center[10, 10]) == (255, 255, 255)
        assert tuple(center[0, 10]) == tuple(merged[0, 10])
        striped = one_token(TokenKind.CONTEXTUAL_MERGED, colour=number)
        assert 0.3 < (striped == colour).all(axis=-1).mean() < 0.7
        clustered = one_token(TokenKind.CONTEXTUAL_CENTER, colour=number)
        assert tuple(clustered[1, 10]) == tuple(clustered[10, 10]) == colour
        assert tuple(clustered[4, 4]) == tuple(CELL[4, 4])


@pytest.mark.parametrize("kind", list(TokenKind))
@pytest.mark.parametrize("position", [0, 5, 6, 15])
def test_a_mark_stays_inside_its_own_cell(kind: TokenKind, position: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (4 * 15, 4 * 20, 3), dtype=np.uint8)
    untouched = picture.copy()
    base = TokenKind.CONTEXTUAL_MERGED if kind != TokenKind.CONTEXTUAL_MERGED else TokenKind.DYNAMIC_DROPPED
    kinds, gone, zeros = np.full(16, base), np.zeros(16, bool), np.zeros(16, int)
    before = paint_tokens(picture, TokenLook(kinds, zeros, zeros, gone))
    kinds, gone = kinds.copy(), gone.copy()
    kinds[position], gone[position] = kind, True
    changed = (paint_tokens(picture, TokenLook(kinds, zeros, zeros, gone)) != before).any(axis=-1)
    row, column = divmod(position, 4)
    inside = np.zeros_like(changed)
    inside[row * 15 : (row + 1) * 15, column * 20 : (column + 1) * 20] = True
    assert changed[inside].mean() > 0.3
    assert not changed[~inside].any()
    assert (picture == untouched).all(), "the picture given is left alone"


def test_lines_run_between_different_static_clusters_only() -> None:
    """Tokens 0 and 1 are one cluster, 2 and 3 two others: a line below the first row, and between 2 and 3."""
    kinds, zeros = np.full(4, TokenKind.STATIC_MERGED), np.zeros(4, int)
    picture = np.repeat(np.repeat(CELL, 2, 0), 2, 1)
    painted = paint_tokens(picture, TokenLook(kinds, np.array([7, 7, 8, 9]), zeros, zeros.astype(bool)))
    dark = (painted == BLACK).all(axis=-1)
    assert dark[19:21].all()
    assert dark[20:, 19:21].all()
    assert not dark[:19].any()
    assert not dark[21:, :19].any()
    assert not dark[21:, 21:].any()


def test_a_line_leads_from_a_merged_token_to_its_target() -> None:
    """From the upper left to the lower right token: black on the way between their middles, nowhere else."""
    picture = np.full((60, 60, 3), 128, np.uint8)
    columns = [np.zeros(9, int), np.ones(9, bool), np.ones(9, bool), np.zeros(9, int), np.zeros(9, bool)]
    points = np.full(9, NO_MARK)
    plain = paint_inner(picture, InnerLook(*columns, points))
    points = points.copy()
    points[0] = 8
    changed = (paint_inner(picture, InnerLook(*columns, points)) != plain).any(axis=-1)
    for step in np.linspace(0, 1, 20):
        assert changed[round(10 + 40 * step), round(10 + 40 * step)]
    rows, columns_hit = np.nonzero(changed)
    assert np.abs(rows - columns_hit).max() < 10
    assert changed[45:56, 45:56].sum() > changed[5:16, 5:16].sum(), "the dot is at the target"


def test_triangles_point_to_where_the_target_is() -> None:
    earlier, later = inner_token(kept=False, point=EARLIER), inner_token(kept=False, point=LATER)
    black = [(picture == BLACK).all(axis=-1) for picture in (earlier, later)]
    assert black[0].sum(axis=0)[:9].sum() < black[0].sum(axis=0)[11:].sum(), "its tip is at the left"
    assert (black[0][:, ::-1] == black[1]).all()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 6), st.integers(1, 12))
def test_neighbours_have_different_colours(seed: int, frames: int, side: int, rows: int) -> None:
    """Where fewer neighbours than colours came before; the oracle looks at every pair of tokens."""
    targets = np.random.default_rng(seed).integers(-1, rows, (frames, side**2))
    colours = colours_of(targets, side)
    beside: dict[int, set[int]] = {number: set() for number in range(rows)}
    cells = [(f, r, c) for f in range(frames) for r in range(side) for c in range(side)]
    for (f, r, c), (g, s, d) in combinations(cells, 2):
        one, other = int(targets[f, r * side + c]), int(targets[g, s * side + d])
        if abs(f - g) + abs(r - s) + abs(c - d) == 1 and one != other and min(one, other) >= 0:
            beside[one].add(other)
            beside[other].add(one)
    for number in np.unique(targets[targets >= 0]).tolist():
        others = beside[number]
        earlier = {other for other in others if other < number}
        if len({int(colours[other]) for other in earlier}) < len(PALETTE):
            assert int(colours[number]) not in {int(colours[other]) for other in earlier}
    assert len(colours) == targets.max(initial=-1) + 1
    assert set(np.unique(colours)) <= set(range(len(PALETTE)))


def test_heat_is_cividis_by_rank() -> None:
    from matplotlib import colormaps  # noqa: PLC0415

    values = np.random.default_rng(0).integers(0, 30, (3, 16)).astype(np.float32) ** 3
    values[0, 3] = np.nan
    colours = heat_colours(values)
    known = ~np.isnan(values)
    ranks = (rankdata(values[known]) - 1) / (known.sum() - 1)
    np.testing.assert_array_equal(colours[known], (colormaps["cividis"](ranks)[:, :3] * 255).round())
    assert tuple(colours[0, 3]) == PALE
    brightness = heat_colours(np.arange(100.0)) @ GREY
    assert (np.diff(brightness) >= -1).all(), "light is high, in print too"
    painted = paint_heat(np.zeros((40, 40, 3), np.uint8), colours[0, :4])
    for position in range(4):
        row, column = divmod(position, 2)
        assert tuple(painted[20 * row + 1, 20 * column + 1]) == tuple(colours[0, position])
    assert (painted[20:, 20:] != PALE).any(), "a slash where there is no value"


@pytest.mark.parametrize("values", [np.full((2, 4), 0.5), np.full((2, 4), np.nan), np.array([[1.0]])])
def test_heat_without_differences(values: np.ndarray) -> None:
    colours = heat_colours(values)
    assert colours.shape == (*values.shape, 3)
    assert len(np.unique(colours.reshape(-1, 3), axis=0)) == 1
