"""The token map: every kind of token is told from every other, the legend says what is there, bad input is refused."""

from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from holitom.token_map import draw_token_map, token_map_figure
from holitom.token_painting import paint_tokens
from holitom.tokens import TokenKind
from llava.errors import InputError

matplotlib = pytest.importorskip("matplotlib")

DROPPED = (TokenKind.DYNAMIC_DROPPED, TokenKind.STATIC_DROPPED)


def example(count: int = 10, side: int = 4, height: int = 60, width: int = 80) -> dict[str, Any]:
    """Frames of one colour each, whose tokens go through all kinds, in segments of four frames."""
    frames = np.empty((count, height, width, 3), np.uint8)
    frames[:] = np.linspace((60, 200, 90), (220, 120, 160), count).astype(np.uint8)[:, None, None]
    kinds = np.arange(count * side**2).reshape(count, side**2) % len(TokenKind)
    source_map = np.where(np.isin(kinds, DROPPED), -1, np.arange(kinds.size).reshape(kinds.shape))
    segments = [(first, min(first + 3, count - 1)) for first in range(0, count, 4)]
    return {"frames": frames, "kinds": kinds, "source_map": source_map, "segments": segments}


def texts(figure: Any, role: str) -> list[str]:
    return [text.get_text() for text in figure.texts if text.get_gid() == role]


@pytest.mark.parametrize(("count", "height", "width"), [(1, 60, 80), (8, 80, 60), (10, 60, 80), (32, 64, 64)])
def test_the_file_is_a_png_2200_pixels_wide(tmp_path: Path, count: int, height: int, width: int) -> None:
    path = tmp_path / "new folder" / "map.png"
    draw_token_map(**example(count, height=height, width=width), path=path, title="a clip")
    with Image.open(path) as image:
        assert image.format == "PNG"
        rows, per_row = (1, 4) if count <= 4 else (-(-count // 8), 8)
        frame_height = 2200 / per_row * height / width
        assert image.size[0] == 2200
        assert 0.9 * rows * frame_height < image.size[1] < rows * (frame_height + 50) + 300


def test_frames_are_in_reading_order_eight_a_row(tmp_path: Path) -> None:
    """Kept tokens show the frame's own colour: find each frame's picture by it."""
    data = example(10)
    data["kinds"][:] = TokenKind.DYNAMIC_KEPT
    data["source_map"] = np.arange(data["kinds"].size).reshape(data["kinds"].shape)
    draw_token_map(**data, path=tmp_path / "map.png")
    picture = np.asarray(Image.open(tmp_path / "map.png").convert("RGB"))
    places = []
    for frame in data["frames"]:
        rows, columns = np.nonzero((picture == frame[0, 0]).all(axis=-1))
        assert len(rows) > 20_000
        places.append((rows.mean(), columns.mean()))
    assert np.ptp([row for row, _ in places[:8]]) < 2
    assert np.all(np.diff([column for _, column in places[:8]]) > 200)
    assert places[8][0] > places[0][0] + 150
    assert places[8][1] == pytest.approx(places[0][1], abs=2)


def test_every_frame_shows_its_own_tokens(tmp_path: Path) -> None:
    data = example(2)
    data["kinds"][:] = np.array([[TokenKind.DYNAMIC_DROPPED], [TokenKind.DYNAMIC_KEPT]])
    data["source_map"] = np.where(data["kinds"] == TokenKind.DYNAMIC_KEPT, 0, -1)
    draw_token_map(**data, path=tmp_path / "map.png")
    picture = np.asarray(Image.open(tmp_path / "map.png").convert("RGB"))
    clear = [int((picture == frame[0, 0]).all(axis=-1).sum()) for frame in data["frames"]]
    assert clear[0] == 0
    assert clear[1] > 100_000


def test_pixels_tell_every_kind_from_every_other() -> None:
    """Outlines, dots and veils: any two kinds differ in many pixels, also in a grey print."""
    cell = np.full((20, 20, 3), (90, 140, 110), np.uint8)
    marked = {kind.name: paint_tokens(cell, np.array([kind]), np.array([False])) for kind in TokenKind}
    marked["crossed"] = paint_tokens(cell, np.array([TokenKind.DYNAMIC_KEPT]), np.array([True]))
    for (one, first), (other, second) in combinations(marked.items(), 2):
        assert (first != second).any(axis=-1).sum() >= 30, (one, other)
        grey = [picture @ np.array([0.299, 0.587, 0.114]) for picture in (first, second)]
        assert (np.abs(grey[0] - grey[1]) > 20).sum() >= 20, (one, other)


def test_what_each_kind_looks_like() -> None:
    cell = np.full((20, 20, 3), (90, 140, 110), np.uint8)

    def marked(kind: TokenKind) -> np.ndarray:
        return paint_tokens(cell, np.array([kind]), np.array([False]))

    kept, dropped, merged = (
        marked(kind) for kind in (TokenKind.DYNAMIC_KEPT, TokenKind.DYNAMIC_DROPPED, TokenKind.STATIC_MERGED)
    )
    assert (kept[1:-1, 1:-1] == cell[1:-1, 1:-1]).all()  # clear inside its outline
    assert tuple(kept[0, 0]) == (230, 159, 0)
    assert np.ptp(dropped[10, 10]) == 0  # grey
    assert dropped[10, 10, 0] < 110
    assert merged[10, 10, 2] > merged[10, 10, 0] + 50  # blue
    center = marked(TokenKind.STATIC_CENTER)
    assert tuple(center[1, 10]) == tuple(center[10, 10]) == (0, 80, 150)
    assert tuple(center[5, 5]) == tuple(cell[5, 5])


@pytest.mark.parametrize("kind", list(TokenKind))
@pytest.mark.parametrize("position", [0, 5, 6, 15])
def test_a_mark_stays_inside_its_own_cell(kind: TokenKind, position: int) -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (4 * 15, 4 * 20, 3), dtype=np.uint8)
    base = TokenKind.STATIC_MERGED if kind != TokenKind.STATIC_MERGED else TokenKind.DYNAMIC_DROPPED
    kinds, crossed = np.full(16, base), np.zeros(16, bool)
    before = paint_tokens(picture, kinds, crossed)
    kinds[position], crossed[position] = kind, True
    changed = (paint_tokens(picture, kinds, crossed) != before).any(axis=-1)
    row, column = divmod(position, 4)
    inside = np.zeros_like(changed)
    inside[row * 15 : (row + 1) * 15, column * 20 : (column + 1) * 20] = True
    assert changed[inside].mean() > 0.3
    assert not changed[~inside].any()


def test_the_picture_given_is_left_alone() -> None:
    picture = np.full((20, 20, 3), 100, np.uint8)
    paint_tokens(picture, np.array([TokenKind.STATIC_CENTER]), np.array([True]))
    assert (picture == 100).all()


def test_legend_and_labels() -> None:
    data = example(10)
    figure = token_map_figure(**data)
    assert len(texts(figure, "legend")) == len(TokenKind)
    count = int((data["kinds"] == TokenKind.STATIC_MERGED).sum())
    assert f"static, merged into a centre: {count}" in texts(figure, "legend")
    assert texts(figure, "segment") == ["S1", "S2", "S3"]
    assert texts(figure, "frame") == [f"frame {number}" for number in range(1, 11)]
    reached = int((data["source_map"] >= 0).sum())
    assert texts(figure, "heading") == [f"10 frames x 16 tokens = 160; {reached} reach the LLM ({reached / 160:.1%})"]


def test_the_legend_has_only_the_kinds_present() -> None:
    data = example(3)
    data["kinds"] = np.where(np.arange(48).reshape(3, 16) % 3 == 0, TokenKind.DYNAMIC_KEPT, TokenKind.DYNAMIC_DROPPED)
    data["source_map"] = np.where(data["kinds"] == TokenKind.DYNAMIC_KEPT, 0, -1)
    assert texts(token_map_figure(**data), "legend") == ["dynamic, kept: 16", "dynamic, dropped: 32"]


def test_the_inner_stage_crosses_out_tokens_that_had_reached_the_llm() -> None:
    data = example(3)
    kept = np.isin(data["kinds"], [TokenKind.DYNAMIC_KEPT, TokenKind.STATIC_CENTER, TokenKind.CONTEXTUAL_CENTER])
    inner_kept = np.arange(48).reshape(3, 16) % 2 == 0
    crossed = int((kept & ~inner_kept).sum())
    figure = token_map_figure(**data, inner_kept=inner_kept, title="a clip")
    assert texts(figure, "legend")[-1] == f"merged away inside the LLM: {crossed}"
    title, counts = texts(figure, "heading")
    outer = len(np.unique(data["source_map"])) - 1
    assert title == "a clip"
    assert counts.endswith(f"; {outer - crossed} remain after its inner stage ({(outer - crossed) / 48:.1%})")
    assert len(texts(token_map_figure(**data, inner_kept=np.ones((3, 16), bool)), "legend")) == len(TokenKind)


def test_a_segment_over_two_rows_is_labelled_again() -> None:
    data = example(20)
    data["segments"] = [(0, 2), (3, 19)]
    assert texts(token_map_figure(**data), "segment") == ["S1", "S2", "S2 (cont.)", "S2 (cont.)"]


def test_neighbouring_segments_have_bars_of_different_colours(tmp_path: Path) -> None:
    data = example(8)
    data["segments"] = [(number, number) for number in range(8)]
    draw_token_map(**data, path=tmp_path / "map.png")
    picture = np.asarray(Image.open(tmp_path / "map.png").convert("RGB"))
    row = picture[picture.shape[0] // 2]  # the borders of the frames
    borders = [(0, 158, 115), (240, 228, 66), (213, 94, 0), (187, 187, 187)]
    seen = [number for pixel in row for number, colour in enumerate(borders) if tuple(pixel) == colour]
    changes = [number for index, number in enumerate(seen) if index == 0 or seen[index - 1] != number]
    assert changes == [0, 1, 2, 3, 0, 1, 2, 3]


BAD = {
    "frames are float": ({"frames": np.zeros((3, 8, 8, 3))}, r"frames are float64 \(3, 8, 8, 3\); give uint8"),
    "frames are grey": ({"frames": np.zeros((3, 8, 8), np.uint8)}, "give uint8 .frames, height, width, 3"),
    "no frame": ({"frames": np.zeros((0, 8, 8, 3), np.uint8)}, "give uint8"),
    "tokens are no square": ({"kinds": np.ones((3, 15), int)}, "square number of tokens"),
    "kinds of other frames": ({"kinds": np.ones((4, 16), int)}, r"give \(3, tokens\)"),
    "an unknown kind": ({"kinds": np.full((3, 16), 9)}, "kinds hold .*9.*values of TokenKind"),
    "a source map of another size": ({"source_map": np.ones((3, 9), int)}, r"give the shape of kinds, \(3, 16\)"),
    "a source map of another video": ({"source_map": np.ones((3, 16), int)}, "disagree on the dropped tokens"),
    "inner_kept is no bool": ({"inner_kept": np.ones((3, 16), int)}, "give bool"),
    "inner_kept of another size": ({"inner_kept": np.ones((3, 9), bool)}, "give bool"),
    "segments overlap": ({"segments": [(0, 1), (1, 2)]}, "cover frames 0 to 2 once"),
    "segments leave a frame out": ({"segments": [(0, 1)]}, "cover frames 0 to 2 once"),
    "segments run on": ({"segments": [(0, 3)]}, "cover frames 0 to 2 once"),
    "a segment is empty": ({"segments": [(0, 1), (2, 1), (2, 2)]}, "cover frames 0 to 2 once"),
    "the path is no PNG": ({"path": "map.jpg"}, "end it with .png"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        draw_token_map(**{**example(3), "path": tmp_path / "map.png", **changes})
    assert not (tmp_path / "map.png").exists()


def test_matplotlib_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match="pip install matplotlib"):
        draw_token_map(**example(1), path=tmp_path / "map.png")


def test_pyplot_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    draw_token_map(**example(1), path=tmp_path / "map.png")
