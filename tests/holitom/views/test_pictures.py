"""Pictures: their numbers and painted cells are those of the record, words do not overlap, bad input is refused."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from holitom.record.saved import SavedRecord, SavedVideo
from holitom.tokens import TokenKind
from holitom.views import (
    animation,
    attention_map,
    inner_map,
    save_animation,
    save_picture,
    side_by_side,
    similarity_chart,
    token_map,
    words,
)
from holitom.views.colours import ORANGE, PALETTE, heat_colours
from holitom.views.heat import heat_values
from holitom.views.maps import gone_inside, inner_legend, inner_tiles, sized, token_tiles
from holitom.views.page import compose
from llava.errors import InputError
from tests.holitom.made_records import made_record, made_stage, made_video

pytest.importorskip("matplotlib")
FLAT = 128
TINTS = [np.round(0.4 * FLAT + 0.6 * np.array(colour)) for colour in PALETTE]


def words_of(figure: Any, role: str) -> list[str]:
    return [text.get_text() for text in figure.texts if text.get_gid() == role]


def flat_tiles(video: SavedVideo, cell: int = 20) -> list[np.ndarray]:
    return [np.full((cell * video.side, cell * video.side, 3), FLAT, np.uint8)] * video.frames


def cell(tile: np.ndarray, position: int, side: int) -> np.ndarray:
    size = tile.shape[0] // side
    row, column = divmod(position, side)
    return tile[row * size : (row + 1) * size, column * size : (column + 1) * size]


def canvas_of(figure: Any) -> np.ndarray:
    [image] = figure.images
    return np.asarray(image.get_array())


def contains(canvas: np.ndarray, tile: np.ndarray) -> bool:
    """Whether a picture lies somewhere on the canvas, pixel by pixel."""
    height, width = tile.shape[:2]
    rows, columns = np.nonzero((canvas[: -height + 1, : -width + 1] == tile[0, 0]).all(axis=-1))
    corners = zip(rows.tolist(), columns.tolist(), strict=True)
    return any(
        (canvas[row : row + height, left] == tile[:, 0]).all()
        and np.array_equal(canvas[row : row + height, left : left + width], tile)
        for row, left in corners
    )


@pytest.mark.parametrize("seed", range(3))
def test_every_token_bears_the_mark_of_its_kind(seed: int) -> None:
    """Cell by cell against the record: tint, stripes or border in the colour of the row that the token belongs to."""
    video = made_video(seed, stages=0)
    tiles, of_row = token_tiles(video, flat_tiles(video)), {}
    for frame, position in np.ndindex(video.kinds.shape):
        kind, row = TokenKind(video.kinds[frame, position]), int(video.source_map[frame, position])
        found = cell(tiles[frame], position, video.side)
        if kind in (TokenKind.DYNAMIC_KEPT, TokenKind.DYNAMIC_DROPPED, TokenKind.STATIC_DROPPED):
            assert ((found == ORANGE).all(axis=-1).any()) == (kind == TokenKind.DYNAMIC_KEPT)
            assert ((found == FLAT).all(axis=-1).mean() > 0.5) == (kind == TokenKind.DYNAMIC_KEPT)
            continue
        looks = TINTS if kind in (TokenKind.STATIC_MERGED, TokenKind.STATIC_CENTER) else PALETTE
        shares = [(found == look).all(axis=-1).mean() for look in looks]
        assert sorted(shares)[-2] < 0.05 < sorted(shares)[-1], "one colour of the palette"
        assert of_row.setdefault(row, int(np.argmax(shares))) == int(np.argmax(shares)), "one colour per merged token"
    assert len(set(of_row.values())) > 1


def test_a_static_token_keeps_its_colour_through_its_segment() -> None:
    kinds = np.full((3, 4), TokenKind.STATIC_MERGED, np.int8)
    kinds[0] = TokenKind.STATIC_CENTER
    video = SavedVideo(kinds, np.tile(np.arange(4), (3, 1)), np.arange(4), np.array([[0, 2]]))
    tiles = token_tiles(video, flat_tiles(video))
    assert np.array_equal(tiles[1], tiles[2])
    seen = {tuple(cell(tiles[1], position, 2)[10, 10]) for position in range(4)}
    assert len(seen) >= 2, "neighbours differ"
    for position in range(4):
        assert tuple(cell(tiles[0], position, 2)[10, 2]) == tuple(cell(tiles[1], position, 2)[10, 2])


def test_tokens_gone_inside_are_crossed_out() -> None:
    video = made_video(3, stages=2)
    gone = gone_inside(video)
    assert gone.sum() == (~video.stages[-1].kept).sum()
    plain, crossed = (token_tiles(v, flat_tiles(v)) for v in (dataclasses.replace(video, stages=()), video))
    for frame, position in np.ndindex(video.kinds.shape):
        one, other = (cell(tiles[frame], position, video.side) for tiles in (plain, crossed))
        assert (one != other).any() == gone[frame, position]
        if gone[frame, position]:
            assert all((other[at, at] == 0).all() and (other[at, 19 - at] == 0).all() for at in (3, 6, 13, 16))


@pytest.mark.parametrize("stage", [0, 1])
def test_every_token_shows_where_it_is_inside_the_llm(stage: int) -> None:
    video = made_video(5, stages=2)
    tiles, places, of_row = inner_tiles(video, stage, flat_tiles(video)), video.place_of_stage(stage), {}
    found_stage = video.stages[stage]
    joined = {int(target) for row, target in enumerate(found_stage.source) if target >= 0 and target != row}
    for frame, position in np.ndindex(video.kinds.shape):
        row, place = int(video.source_map[frame, position]), int(places[frame, position])
        assert place == (-1 if row < 0 else int(found_stage.source[row]))
        found = cell(tiles[frame], position, video.side)
        orange = (found == ORANGE).all(axis=-1).any()
        assert orange == (row >= 0 and found_stage.kept[row] and row not in joined)
        if row >= 0 and place >= 0 and (not found_stage.kept[row] or row in joined):
            merged = not found_stage.kept[row]
            shares = [(found == look).all(axis=-1).mean() for look in (TINTS if merged else PALETTE)]
            assert sorted(shares)[-2] == 0 < sorted(shares)[-1], "one colour of the palette"
            # a target has the colour of what it took in
            assert of_row.setdefault(place, int(np.argmax(shares))) == int(np.argmax(shares))
        elif row < 0 or place == -1:
            dark = (found == round(0.3 * FLAT + 0.7 * 40)).all(axis=-1)
            assert dark.mean() > 0.4
            crossed = [(found[at, at] == 0).all() and (found[at, 19 - at] == 0).all() for at in (3, 6, 13, 16)]
            assert all(crossed) == (row >= 0), "a cross on those that were dropped inside"
    assert of_row


def test_every_merged_token_points_to_its_target(monkeypatch: pytest.MonkeyPatch) -> None:
    video, looks = made_video(5, stages=2), []
    monkeypatch.setattr("holitom.views.maps.paint_inner", lambda tile, look: looks.append(look) or tile)
    inner_tiles(video, 1, flat_tiles(video))
    stage, seen = video.stages[1], set()
    for place, points in enumerate(np.concatenate([look.points for look in looks]).tolist()):
        row = int(video.source_map.flat[place])
        moved = row >= 0 and video.index[row] == place and not stage.kept[row] and stage.source[row] >= 0
        want = "none"
        if moved:
            frame, position = divmod(int(video.index[stage.source[row]]), 16)
            want = position if frame == place // 16 else "earlier" if frame < place // 16 else "later"
        assert {-3: "none", -1: "earlier", -2: "later"}.get(points, points) == want
        seen.add(want if isinstance(want, str) else "here")
    assert seen == {"none", "earlier", "later", "here"}


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"(?<![\d.%])\d+(?![\d.%])", text)]


def test_words_of_the_token_map_are_the_records() -> None:
    record = made_record(7, frames=11, stages=2)
    [video] = record.videos
    figure = token_map(record)
    legend = dict(entry.rsplit(": ", 1) for entry in words_of(figure, "legend"))
    for kind, meaning in words.LABELS.items():
        assert int(legend.pop(meaning)) == int((video.kinds == kind).sum())
    assert int(legend.pop(words.GONE_LABEL)) == int((~video.stages[-1].kept).sum())
    assert legend == {}
    title, counts, question = words_of(figure, "heading")
    kept = [int(stage.kept.sum()) for stage in video.stages]
    assert title == "made_up: one.mp4"
    assert numbers(counts) == [11, 16, 176, len(video.segments), len(video.index), kept[0], 2, kept[1], 5]
    assert re.findall(r"[\d.]+%", counts) == [f"{n / 176:.1%}" for n in (len(video.index), *kept)]
    assert question == "Question: Why? Answer: 'B'"
    assert words_of(figure, "note") == ["commit abc"]
    tiles = sized(video, 8)
    for tile in (*tiles, *token_tiles(video, tiles)):
        assert contains(canvas_of(figure), tile)
    assert words_of(figure, "frame") == 2 * [f"{n + 1}: {0.4 * n:.1f} s" for n in range(8)] + 2 * [
        f"{n + 1}: {0.4 * n:.1f} s" for n in range(8, 11)
    ]
    starts = [f"S{n + 1}" for n in range(len(video.segments))]
    assert Counter(name for name in words_of(figure, "segment") if "cont." not in name) == dict.fromkeys(starts, 2)


def test_the_legend_has_only_the_kinds_present() -> None:
    kinds = np.where(np.arange(48).reshape(3, 16) % 3 == 0, TokenKind.DYNAMIC_KEPT, TokenKind.DYNAMIC_DROPPED)
    source = np.where(kinds == TokenKind.DYNAMIC_KEPT, np.arange(48).reshape(3, 16) // 3, -1)
    video = SavedVideo(kinds, source, np.arange(0, 48, 3), np.array([[0, 2]]))
    figure = token_map(SavedRecord((video,)))
    assert words_of(figure, "legend") == ["kept as it is: 16", "dropped: 32"]
    assert words_of(figure, "heading")[0] == "tokens of a video"
    assert words_of(figure, "frame") == 2 * ["frame 1", "frame 2", "frame 3"]


def test_words_of_the_map_inside_the_llm() -> None:
    record = made_record(8, stages=2)
    [video] = record.videos
    figure = inner_map(record)
    assert words_of(figure, "title") == ["from layer 2", "from layer 5"]
    want = []
    for stage in video.stages:
        want.append(f"kept: {stage.kept.sum()} ({stage.kept.sum() / video.kinds.size:.1%})")
        counts = {"merged": (~stage.kept & (stage.source != -1)).sum(), "dropped": (stage.source == -1).sum()}
        want += [f"{name}: {count}" for name, count in counts.items() if count]
    assert words_of(figure, "label") == want
    tiles = sized(video, 8)
    for number in range(2):
        for tile in inner_tiles(video, number, tiles):
            assert contains(canvas_of(figure), tile)


def test_heat_maps_are_those_of_the_record() -> None:
    record = made_record(9, stages=2)
    [video] = record.videos
    maps = heat_values(video, "holitom")
    assert list(maps) == [
        "received attention",
        "last-query attention before layer 2",
        "last-query attention before layer 5",
    ]
    assert list(heat_values(video, "prunevid"))[1] == "question's attention before layer 2"
    for stage, values in zip(video.stages, list(maps.values())[1:], strict=True):
        for frame, position in np.ndindex(video.kinds.shape):
            row = video.source_map[frame, position]
            want = np.nan if row < 0 else stage.scores[row]
            np.testing.assert_equal(values[frame, position], np.float32(want))
    canvas, (height, width) = canvas_of(attention_map(record)), sized(video, 8)[0].shape[:2]
    down, right = height // 4, width // 4
    for values in maps.values():
        want = heat_colours(values)[0].reshape(4, 4, 3)
        corners = zip(*np.nonzero((canvas[:-height, :-width] == want[0, 0]).all(axis=-1)), strict=True)
        cells = (canvas[row : row + height : down, left : left + width : right] for row, left in corners)
        assert any(np.array_equal(found, want) for found in cells), "the first frame has the colours of its values"
    legend = words_of(attention_map(record), "legend")
    known = video.received_attention
    low, middle, high = (f"{value:.2g}" for value in (known.min(), np.median(known), known.max()))
    assert legend[0] == f"received attention, by rank: {low} to {high}, median {middle}"


def test_the_chart_draws_the_records_similarity(tmp_path: Path) -> None:
    record = made_record(10, frames=9)
    [video] = record.videos
    figure = similarity_chart(record)
    lines = {line.get_gid(): line for axes in figure.axes for line in axes.lines}
    np.testing.assert_allclose(lines["mean"].get_ydata(), video.similarity.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(lines["mean"].get_xdata(), np.arange(8) + 1.5)
    assert list(lines["threshold"].get_ydata()) == [0.25, 0.25]
    shares = [text.get_text() for axes in figure.axes for text in axes.texts if text.get_gid() == "share"]
    assert shares == [f"{share:.0%}" for share in (video.similarity > 0.25).mean(axis=1)]
    bars = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in figure.axes[-1].patches]
    np.testing.assert_allclose(bars, [(first + 0.54, last + 1.46) for first, last in video.segments])
    plain = similarity_chart(SavedRecord(record.videos, {}))
    assert "threshold" not in {line.get_gid() for axes in plain.axes for line in axes.lines}
    for meta in ({}, {"config": {"compressor": {"similarity_threshold": 0.8}}}, {"config": []}):
        single = made_record(1, frames=1, meta=meta)
        save_picture(similarity_chart(single), tmp_path / "single.png")  # one frame has no similarity


def test_methods_side_by_side() -> None:
    one = made_record(1, frames=10)
    other = SavedRecord((made_video(2, frames=10, stages=0, thumbnails=one.videos[0].thumbnails),), {})
    figure = side_by_side({"a": one, "b": other})
    assert words_of(figure, "title") == 2 * ["frames", "a", "b"]
    for video in (one.videos[0], other.videos[0]):
        assert words_of(figure, "label").count(f"LLM: {words.share(len(video.index), 160)}") == 2
        for tile in token_tiles(video, sized(one.videos[0], 8)):
            assert contains(canvas_of(figure), tile)
    assert words_of(figure, "heading") == ["one.mp4: 2 methods on the same frames; 10 frames x 16 tokens = 160"]
    for records, message in (
        ({}, "no record"),
        ({"a": one, "b": made_record(1, frames=9)}, r"not of the same frames \(a 10 x 16, b 9 x 16\)"),
        ({"a": one, "b": made_record(2, frames=10)}, "not of the same frames"),
    ):
        for draw in (side_by_side, animation):
            with pytest.raises(InputError, match=message):
                draw(records)


def test_the_animation_has_one_picture_per_frame(tmp_path: Path) -> None:
    still = np.zeros((5, 16), np.int8) + TokenKind.DYNAMIC_KEPT
    video = SavedVideo(still, np.arange(80).reshape(5, 16), np.arange(80), np.array([[0, 4]]))
    for number, record in enumerate((made_record(4, frames=5, stages=2), SavedRecord((video,)))):
        pictures = animation({"one": record, "two": record})
        path = tmp_path / f"{number}.gif"
        save_animation(pictures, path)
        with Image.open(path) as image:
            assert (image.format, image.n_frames, image.size) == ("GIF", 5, pictures[0].size)
            assert image.info["duration"] > 0
        assert len({picture.tobytes() for picture in pictures}) == 5
        marked = token_tiles(record.videos[0], sized(record.videos[0], 5, 1700))
        for picture, tile in zip(pictures, marked, strict=True):
            assert contains(np.asarray(picture), tile)
    with pytest.raises(InputError, match=r"end it with \.gif"):
        save_animation(pictures, tmp_path / "a.mp4")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["0.gif", "1.gif"]


def test_the_animation_explains_every_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    module, pages = sys.modules["holitom.views.animation"], []
    monkeypatch.setattr(module, "compose", lambda page: pages.append(page) or compose(page))
    record = made_record(4, frames=2, stages=2)
    animation({"one": record, "two": record})
    said = [text for _, text in pages[0].legend]
    assert {f"inside: {text}" for _, text in inner_legend(record.videos[0])} < set(said)
    assert said[-2:] == ["attention and scores by rank, low to high", "gone before"]
    assert len(said) == len(set(said))


LONG = "Which of these, if any, does the person on the left take out of $1 pockets and $2 bags before the cut? " * 5
CASES = [
    {"frames": 1}, {"frames": 4}, {"frames": 8, "height": 90, "width": 40}, {"frames": 32, "stages": 3, "side": 14},
    {"frames": 32, "stages": 3, "height": 40, "width": 96, "times": np.arange(32) * 400.0},
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_words_neither_overlap_nor_leave_the_picture(case: dict[str, Any]) -> None:
    note = "A note of some length, which says what the picture cannot. " * 4
    record = made_record(3, **case, meta={"question": LONG, "note": note})
    video = record.videos[0]
    short = dataclasses.replace(
        record, videos=(dataclasses.replace(video, segments=np.repeat(np.arange(video.frames)[:, None], 2, 1)),)
    )
    figures = [draw(one) for draw in (token_map, inner_map, attention_map) for one in (record, short)]
    figures.append(side_by_side({"a_method_of_some_name_r15": record, "b": short}))
    for figure in figures:
        boxes = [(text.get_text(), text.get_window_extent()) for text in figure.texts if text.get_text()]
        width, height = figure.canvas.get_width_height()
        for words_, box in boxes:
            assert box.x0 >= 0, words_
            assert box.y0 >= 0, words_
            assert box.x1 <= width, words_
            assert box.y1 <= height, words_
        for (one, first), (other, second) in combinations(boxes, 2):
            apart = first.x1 <= second.x0 or second.x1 <= first.x0 or first.y1 <= second.y0 or second.y1 <= first.y0
            assert apart, (one, other)


def test_the_file_is_a_png_of_the_pages_size(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "map.png"
    save_picture(token_map(made_record()), path)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.size[0] == 2200
    assert list(path.parent.iterdir()) == [path]
    for name, message in (("map.jpg", "end it with .png"), ("new folder/map.png/x.png", "cannot be a folder")):
        with pytest.raises(InputError, match=message):
            save_picture(token_map(made_record()), tmp_path / name)


def test_what_cannot_be_drawn() -> None:
    record = made_record(stages=0, received_attention=None, similarity=None)
    oblong = SavedVideo(np.ones((1, 12), np.int8), np.arange(12)[None], np.arange(12), np.array([[0, 0]]))
    for draw in (token_map, inner_map, attention_map, similarity_chart):
        with pytest.raises(InputError, match="there is no number 1"):
            draw(record, 1)
        with pytest.raises(InputError, match="square number of tokens"):
            draw(SavedRecord((oblong,)))
    for draw, message in (
        (inner_map, "nothing was compressed inside"),
        (attention_map, "holds no attention"),
        (similarity_chart, "holds no similarity"),
    ):
        with pytest.raises(InputError, match=message):
            draw(record)


def test_matplotlib_is_optional_and_pyplot_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    token_map(made_record())
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match=r"pip install 'holitom\[show\]'"):
        token_map(made_record())


def test_made_stages_are_consistent() -> None:
    rng = np.random.default_rng(0)
    first = made_stage(rng, 2, None, 30)
    second = made_stage(rng, 5, first, 30)
    assert second.kept.sum() < first.kept.sum() < 30
