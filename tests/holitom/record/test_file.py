"""Records on disk: nothing is lost, damage is told, nothing is half-written; and rows of stages against an oracle."""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from holitom import InnerConfig, OuterConfig, Record
from holitom.methods.holitom import HolitomConfig
from holitom.methods.pdrop import PdropConfig
from holitom.record.file import load_meta, load_record
from holitom.record.saved import SavedRecord, SavedStage, SavedVideo, thumbnails
from holitom.record.saving import save_record, saved_copy
from holitom.watching import watched
from llava.errors import InputError
from tests.holitom.made_records import made_record, made_video
from tests.tiny_models import prompt, video


def assert_same(one: Any, other: Any) -> None:
    """Equal field by field, with types, shapes and NaNs."""
    assert type(one) is type(other)
    if dataclasses.is_dataclass(one):
        for entry in dataclasses.fields(one):
            assert_same(getattr(one, entry.name), getattr(other, entry.name))
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    elif isinstance(one, tuple):
        assert len(one) == len(other)
        for first, second in zip(one, other, strict=True):
            assert_same(first, second)
    else:
        assert one == other


META = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**32), st.integers(1, 5), st.integers(3, 5), st.integers(0, 3), st.integers(0, 2),
    st.dictionaries(st.text(max_size=8), META, max_size=4),
    st.sets(st.sampled_from(["received_attention", "similarity", "times", "thumbnails"])),
)  # fmt: skip
def test_what_is_loaded_is_what_was_saved(tmp_path_factory, seed, frames, side, stages, videos, meta, absent) -> None:
    path = tmp_path_factory.mktemp("records") / "one.npz"
    changes = {name: () if name == "thumbnails" else None for name in absent}
    made = [made_video(seed + number, frames, side, stages, **changes) for number in range(videos)]
    record = SavedRecord(tuple(made), meta)
    save_record(record, path)
    assert_same(load_record(path), record)
    assert load_meta(path) == meta
    first = path.read_bytes()
    save_record(load_record(path), path)
    assert path.read_bytes() == first


def test_meta_is_added_when_saving(tmp_path: Path) -> None:
    record = made_record(meta={"answer": "B"})
    save_record(record, tmp_path / "deep" / "one.npz", answer="C", key=[1, None])
    assert load_record(tmp_path / "deep" / "one.npz").meta == {**record.meta, "answer": "C", "key": [1, None]}


@pytest.mark.parametrize("meta", [{"a": {1: 2}}, {"a": (1, 2)}, {"a": np.float32(1)}, {"a": float("nan")}])
def test_meta_that_is_no_json_is_refused(tmp_path: Path, meta: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="meta of a record must be JSON"):
        save_record(SavedRecord((), meta), tmp_path / "one.npz")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "one.npz"
    save_record(made_record(1), path)
    before = path.read_bytes()

    def fails(file: Any, **arrays: Any) -> None:
        file.write(b"PK half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", fails)
    with pytest.raises(OSError, match="No space"):
        save_record(made_record(2), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_paths_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.npz").mkdir()
    for path, message in (
        ("one.npy", "end it with .npz"),
        ("file/one.npz", "cannot be"),
        ("folder.npz", "name a file"),
    ):
        with pytest.raises(InputError, match=message):
            save_record(made_record(), tmp_path / path)


def test_every_damage_is_told_in_one_line(tmp_path: Path) -> None:
    """Cut at many places, single bytes changed, and other files: an InputError or the very same record, never more."""
    path, record = tmp_path / "one.npz", made_record(frames=3, side=3)
    save_record(record, path)
    whole, rng, refused = path.read_bytes(), np.random.default_rng(0), []
    broken = [whole[:length] for length in range(0, len(whole), max(1, len(whole) // 40))]
    for place in rng.integers(0, len(whole), 150):
        broken.append(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
    for content in broken:
        path.write_bytes(content)
        try:
            found = load_record(path)
        except InputError as error:
            refused.append(str(error))
        else:
            assert_same(found, record)
    assert all("\n" not in message and str(path) in message for message in refused)
    assert len(refused) > 100


@pytest.mark.parametrize("content", [b"", b"not a record", b"PK\x03\x04", b"\x93NUMPY\x01\x00"])
def test_other_files_are_no_records(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "one.npz").write_bytes(content)
    for read in (load_record, load_meta):
        with pytest.raises(InputError, match="no record, or it is damaged"):
            read(tmp_path / "one.npz")
        with pytest.raises(InputError, match="there is no record"):
            read(tmp_path / "two.npz")


def test_archives_that_are_no_records(tmp_path: Path) -> None:
    path = tmp_path / "one.npz"
    np.savez(path, a=np.zeros(3))
    with pytest.raises(InputError, match="no record"):
        load_record(path)
    np.savez(path, meta=np.array([{"pickled": 1}], dtype=object))
    with pytest.raises(InputError, match="no record"):
        load_record(path)
    np.savez(path, meta=np.frombuffer(b'{"schema": 2, "stages": [], "meta": {}}', dtype=np.uint8))
    with pytest.raises(InputError, match="its schema is 2, this version reads 1"):
        load_record(path)


def test_an_array_that_is_lost_is_missed(tmp_path: Path) -> None:
    """Also one that a record may be without."""
    path = tmp_path / "one.npz"
    save_record(made_record(), path)
    arrays = dict(np.load(path))
    for name in arrays:
        np.savez(path, **{other: value for other, value in arrays.items() if other != name})
        with pytest.raises(InputError, match="damaged"):
            load_record(path)


WHOLE = made_video(frames=3, side=4)
_ROWS = len(WHOLE.index)
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "kinds of one axis": ({"kinds": WHOLE.kinds[0]}, r"they must be \(frames, tokens\)"),
    "no frame": ({"kinds": WHOLE.kinds[:0]}, r"they must be \(frames, tokens\)"),
    "an unknown kind": ({"kinds": np.full((3, 16), 9, np.int8)}, r"kinds hold \[9\]"),
    "kinds are no numbers": ({"kinds": WHOLE.kinds.astype(float)}, "whole numbers"),
    "a source map of another size": ({"source_map": WHOLE.source_map[:2]}, r"give the shape of kinds, \(3, 16\)"),
    "a source map of another video": ({"source_map": np.abs(WHOLE.source_map)}, "disagree on the dropped tokens"),
    "rows out of range": ({"index": WHOLE.index[:-1]}, "do not fit together"),
    "places out of range": ({"index": WHOLE.index + 40}, "do not fit together"),
    "rows exchanged": ({"index": WHOLE.index[::-1].copy()}, "not its own source"),
    "segments overlap": ({"segments": np.array([[0, 1], [1, 2]])}, "cover frames 0 to 2 once"),
    "segments leave a frame out": ({"segments": np.array([[0, 1]])}, "cover frames 0 to 2 once"),
    "segments run on": ({"segments": np.array([[0, 2**60]])}, "cover frames 0 to 2 once"),
    "a segment is empty": ({"segments": np.array([[0, 1], [2, 1], [2, 2]])}, "cover frames 0 to 2 once"),
    "attention of another video": ({"received_attention": np.zeros((2, 16))}, "received_attention does not have"),
    "similarity of all frames": ({"similarity": np.zeros((3, 16))}, r"similarity does not have the shape \(2, 16\)"),
    "too few times": ({"times": np.zeros(2)}, "times does not have"),
    "too few thumbnails": ({"thumbnails": WHOLE.thumbnails[:2]}, "2 thumbnails for 3 frames"),
}


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG.keys())
def test_parts_that_do_not_fit_together(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(WHOLE, **changes)


def _into_gone(stage: SavedStage) -> dict[str, Any]:
    source, gone = stage.source.copy(), np.flatnonzero(~stage.kept)
    source[gone[0]] = gone[1]
    return {"source": source}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda stage: {"kept": stage.kept[1:]}, "one entry per row"),
        (lambda stage: {"kept": ~stage.kept}, "kept and source disagree"),
        (lambda stage: {"source": stage.source + _ROWS}, "rows out of range"),
        (lambda stage: {"source": stage.source.astype(float)}, "rows out of range"),
        (_into_gone, "merges tokens into some that are not kept"),
    ],
)
def test_stages_that_do_not_fit(change: Any, message: str) -> None:
    stage = WHOLE.stages[0]
    with pytest.raises(InputError, match=message):
        dataclasses.replace(WHOLE, stages=(dataclasses.replace(stage, **change(stage)),))


def test_a_grid_that_is_no_square() -> None:
    kinds = np.ones((2, 12), np.int8)
    video = SavedVideo(kinds, np.arange(24).reshape(2, 12), np.arange(24), np.array([[0, 1]]))
    with pytest.raises(InputError, match="12 tokens: pictures need a square number"):
        _ = video.side


def test_thumbnails_are_small_pictures_of_the_frames() -> None:
    frames = np.repeat(np.array([[[[200, 30, 90]]], [[[10, 160, 60]]]], np.uint8), 300, 1).repeat(500, 2)
    video = dataclasses.replace(made_video(frames=2), thumbnails=thumbnails(frames, 100))
    assert video.pictures().shape == (2, 60, 100, 3)
    assert np.abs(video.pictures().astype(int) - frames[:, :60, :100]).max() < 6
    assert dataclasses.replace(video, thumbnails=()).pictures().shape[0] == 2
    with pytest.raises(InputError, match="damaged"):
        dataclasses.replace(video, thumbnails=(b"x", b"y")).pictures()
    with pytest.raises(InputError, match="give uint8"):
        thumbnails(frames / 255)


def expected_rows(record: Record, number: int, stage: int) -> list[tuple[bool, int, float]]:
    """(kept, source, score) of every row of a video behind a stage, token by token, newlines counted one by one."""
    tokens, inner = record.videos[number], record.inner
    assert inner is not None
    spans = [(row, span) for row, own in enumerate(inner.spans) for span in own]
    row, (start, _) = spans[number]
    side, per_frame = int(tokens.details.tokens_per_frame**0.5), tokens.details.tokens_per_frame
    place, places, last = start, [], None
    for at in tokens.index.tolist():
        group = {"grid": at // side, "frame": at // per_frame}.get(record.newline_mode, 0)
        if last is not None and group != last:
            place += 1  # a newline
        last = group
        places.append(place)
        place += 1
    kept = inner.stages[stage].kept[row].tolist()
    entered = list(range(inner.source.shape[1])) if stage == 0 else inner.stages[stage - 1].kept[row].tolist()
    found = []
    for own, place in enumerate(places):
        target = inner.stages[stage].source[row][place].item()
        source = -1 if target < 0 else (places.index(target) if target in places else -2)
        score = inner.stages[stage].scores[row][entered.index(place)].item() if place in entered else float("nan")
        assert (place in kept) == (source == own)
        found.append((place in kept, source, score))
    return found


@pytest.mark.parametrize("newlines", ["one_token", "grid", "frame", "no_token"])
@pytest.mark.parametrize(
    "config",
    [
        HolitomConfig(OuterConfig(retain_ratio=0.2), InnerConfig(merge_layer=3)),
        HolitomConfig(None, InnerConfig(merge_layer=3, merge_ratio=0.7)),
        PdropConfig([1, 3, 4], [0.5, 0.25, 0.125]),
    ],
    ids=["holitom", "inner alone", "pdrop"],
)
def test_rows_of_every_stage(model, newlines: str, config: Any) -> None:
    """Two prompts of different lengths in a batch, so that there is padding; rows against a count by hand."""
    model.config.mm_newline_position = newlines
    ids = torch.cat([torch.nn.functional.pad(prompt(3, "video", 4), (4, 0), value=0), prompt(5, "video", 6)])
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[0, :4] = False
    clips = [video(2), video(4, seed=3, cuts=(2,))]
    with torch.no_grad(), watched(config.build()).applied(model) as compressor:
        model(ids, attention_mask=mask, images=clips, modalities=["video"] * 2)
        record = compressor.record
        saved = saved_copy(record)
    for number, found in enumerate(saved.videos):
        assert [stage.layer for stage in found.stages] == [stage.layer for stage in record.inner.stages]
        for place, stage in enumerate(found.stages):
            want = expected_rows(record, number, place)
            assert stage.kept.tolist() == [kept for kept, _, _ in want]
            assert stage.source.tolist() == [source for _, source, _ in want]
            np.testing.assert_array_equal(stage.scores, np.array([score for _, _, score in want], np.float32))
            assert found.counts()["stages"][place]["kept"] == record.tokens_per_layer(6, number)[stage.layer]
        np.testing.assert_array_equal(found.stages[-1].kept, record.rows_kept_inside(number).numpy())
        assert found.counts()["reach_llm"] == record.tokens_after_outer[number]


def test_a_header_that_is_no_python_and_numbers_that_are_none(tmp_path: Path) -> None:
    """Kinds of damage that numpy and json tell by exceptions of their own."""
    path = tmp_path / "one.npz"
    save_record(made_record(), path)
    arrays = dict(np.load(path))
    text = {**arrays, "video0/similarity": arrays["video0/similarity"].astype(str)}
    deep = {**arrays, "meta": np.frombuffer(b"[" * 100000, dtype=np.uint8)}
    for broken in (text, deep):
        np.savez(path, **broken)
        with pytest.raises(InputError, match="this is no record, or it is damaged"):
            load_record(path)
    np.savez(path, **arrays)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other.npy", b"\x93NUMPY\x01\x00\x08\x00{'descr\n")
    with zipfile.ZipFile(path) as old:
        held = {name: old.read(name) for name in old.namelist() if name != "other.npy"}
    held["video0/kinds.npy"] = b"\x93NUMPY\x01\x00\x08\x00{'descr\n"
    with zipfile.ZipFile(path, "w") as new:
        for name, content in held.items():
            new.writestr(name, content)
    with pytest.raises(InputError, match="this is no record, or it is damaged"):
        load_record(path)
