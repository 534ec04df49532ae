"""``python -m holitom.show``: every method on one clip, the same pictures from saved records, every mistake told."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from holitom import available_methods, load_config
from holitom.cli import Parser, user_errors
from holitom.files import whole_folder
from holitom.record.file import load_record
from holitom.record.saved import SavedRecord
from holitom.record.saving import save_record
from holitom.run_facts import TINY_NOTE
from holitom.shipped import CONFIGS as SHIPPED
from holitom.show import draw_all, main, record_methods
from llava.errors import InputError
from tests.clips import write_clip
from tests.holitom.made_records import made_record, made_video

pytest.importorskip("matplotlib")
CONFIGS = SHIPPED / "tiny"
FRAMES = 5  # of the clip that every method draws
METHODS = {load_config(path).method or "vanilla": path for path in sorted(CONFIGS.glob("*.yaml"), reverse=True)}
# methods whose configuration above has a stage inside the LLM
INSIDE = {"earlytom", "flashvid", "holitom", "fastv", "pdrop"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "moving.mp4")


@pytest.fixture(scope="module")
def records(clip: Path) -> dict[str, SavedRecord]:
    """Every method of the registry, and none, on one clip with the learned tiny model."""
    return record_methods(clip, {name: load_config(path) for name, path in METHODS.items()}, frames=FRAMES)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    main([str(word) for word in arguments])
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_every_method_of_the_registry_is_shown() -> None:
    assert set(METHODS) == {*available_methods(), "vanilla"}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_draws(records: dict[str, SavedRecord], tmp_path: Path, name: str) -> None:
    files = draw_all({name: records[name]}, tmp_path / "out")
    assert all(file.is_file() for file in files)
    [video] = records[name].videos
    pictures = {"tokens.png", "attention.png", "similarity.png"} | ({"inside.png"} if name in INSIDE else set())
    assert {file.name for file in files} == {"animation.gif", "record.npz", *pictures}
    with Image.open(tmp_path / "out" / "animation.gif") as image:
        assert image.n_frames == video.frames == FRAMES
    for file in files:
        if file.suffix == ".png":
            assert np.asarray(Image.open(file).convert("RGB")).std() > 10
    assert records[name].meta["note"] == TINY_NOTE
    assert records[name].meta["method"] == name
    counts = video.counts()
    assert sum(counts["kinds"].values()) == counts["tokens"] == FRAMES * 64
    kept = {kind for kind in counts["kinds"] if kind in ("dynamic_kept", "static_center", "contextual_center")}
    # FlashVID may put a picked token and a cluster at one place
    assert sum(counts["kinds"][kind] for kind in kept) == len(set(video.index.tolist()))
    assert name == "flashvid" or len(set(video.index.tolist())) == counts["reach_llm"]
    assert (name == "vanilla") == (counts["reach_llm"] == FRAMES * 64 and not counts["stages"])


def test_command_line_and_the_same_again_from_the_records(capsys, clip: Path, tmp_path: Path) -> None:
    """Pictures of a run and pictures of its saved records are equal, byte for byte, without video and model."""
    configs = ["--config", CONFIGS / "holitom_r15.yaml", "--config", CONFIGS / "fastv.yaml"]
    said = run(capsys, clip, *configs, "--frames", 3, "--question", "Which?", "-o", tmp_path / "one")
    assert {Path(file).relative_to(tmp_path / "one").as_posix() for file in said["files"]} == {
        "animation.gif", "side_by_side.png",
        *(f"{name}/{file}" for name in ("holitom_r15", "fastv")
          for file in ("tokens.png", "inside.png", "attention.png", "similarity.png", "record.npz")),
    }  # fmt: skip
    record = load_record(tmp_path / "one" / "holitom_r15" / "record.npz")
    facts = {"name", "method", "config", "video", "question", "answer", "checkpoint", "commit", "note"}
    assert record.meta.keys() == facts
    assert (record.meta["video"], record.meta["question"]) == ("moving.mp4", "Which?")
    assert said["methods"]["holitom_r15"] == {**record.videos[0].counts(), "answer": record.meta["answer"]}
    np.testing.assert_allclose(record.videos[0].times, np.array([0, 19, 39]) / 25)
    saved = []
    for name in ("holitom_r15", "fastv"):
        saved.append(shutil.move(tmp_path / "one" / name / "record.npz", tmp_path / f"{name}.npz"))
        save_record(load_record(saved[-1]), tmp_path / "one" / name / "record.npz")
    again = run(capsys, "--record", saved[0], "--record", saved[1], "-o", tmp_path / "two")
    assert again["methods"] == said["methods"]
    for file in said["files"]:
        other = tmp_path / "two" / Path(file).relative_to(tmp_path / "one")
        assert other.read_bytes() == Path(file).read_bytes(), file


def test_one_record_in_a_folder_that_has_other_files(capsys, tmp_path: Path) -> None:
    save_record(made_record(meta={"name": "mine"}), tmp_path / "a.npz")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "other.txt").write_text("kept")
    said = run(capsys, "--record", tmp_path / "a.npz", "-o", tmp_path / "out")
    assert (tmp_path / "out" / "other.txt").read_text() == "kept"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["animation.gif", "mine", "other.txt"]
    assert set(said["methods"]) == {"mine"}


def test_records_of_one_file_name_are_told_apart_by_what_they_hold_or_by_their_folders(capsys, tmp_path: Path) -> None:
    """The command line itself calls every record ``record.npz``."""
    files = [tmp_path / name / "record.npz" for name in ("a", "b")]
    for names, shown in ((("x", "y"), {"x", "y"}), (("x", "x"), {"a", "b"})):
        for file, name in zip(files, names, strict=True):
            save_record(made_record(1, frames=2, meta={"name": name}), file)
        said = run(capsys, "--record", files[0], "--record", files[1], "-o", tmp_path / "out" / names[1])
        assert set(said["methods"]) == shown


@pytest.mark.parametrize("name", ["../outside", "..", "a/b", "/tmp/outside", "a\nb", ".hidden", "n" * 300, "", 7, None])
def test_a_name_in_a_record_leads_nowhere_outside(capsys, tmp_path: Path, name: object) -> None:
    odd = {"name": name, "config": "none", "video": ["?"], "question": {"a": 1}, "answer": 2, "method": []}
    save_record(made_record(1, frames=1, meta=odd), tmp_path / "mine.npz")
    run(capsys, "--record", tmp_path / "mine.npz", "-o", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.npz", "out"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["animation.gif", "mine"]
    with pytest.raises(InputError, match="no plain file name"):
        draw_all({"../outside": made_record(1, frames=1)}, tmp_path / "out")


def wrong(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line of a mistake."""
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in arguments])
    out, error = capsys.readouterr()
    assert stopped.value.code == 2
    assert out == ""
    [line] = [line for line in error.splitlines() if line.startswith("error: ")]
    assert error.rstrip().endswith(line)
    return line


def test_mistakes_end_in_one_line_and_leave_nothing(capsys, clip: Path, tmp_path: Path) -> None:
    config, out = CONFIGS / "uniform_r15.yaml", tmp_path / "out"
    (tmp_path / "file").write_text("x")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 no")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    save_record(SavedRecord((made_video(), made_video(1))), tmp_path / "two.npz")
    save_record(SavedRecord(()), tmp_path / "none.npz")
    save_record(made_record(1), tmp_path / "one.npz")
    save_record(made_record(2), tmp_path / "other.npz")
    seven = CONFIGS.parent / "llava_onevision_7b" / "holitom_r15.yaml"
    cases: list[tuple[list[object], str]] = [
        ([], "give either a video, or --record"),
        ([clip, "--record", tmp_path / "one.npz"], "give either a video, or --record"),
        ([clip], "no method was named"),
        (["--record", tmp_path / "one.npz", "--frames", 4], "leave --config, --checkpoint and --frames out"),
        ([clip, "--config", config, "--frames", 0], "--frames = 0 is out of range"),
        ([clip, "--config", config, "--max-new-tokens", 0], "--max-new-tokens = 0 is out of range"),
        ([tmp_path / "no.mp4", "--config", config], "no.mp4"),
        ([tmp_path / "broken.mp4", "--config", config], "broken.mp4"),
        ([clip, "--config", tmp_path / "no.yaml"], "there is no configuration file"),
        ([clip, "--config", tmp_path / "file"], "the configuration"),
        ([clip, "--config", config, "--checkpoint", tmp_path / "nowhere"], "nowhere"),
        ([clip, "--config", config, "--config", seven], "sample [8, 32] frames: give --frames"),
        ([clip, "--config", seven], "merge_layer = 18"),
        ([clip, "--config", config, "--config", config], "have the same name"),
        (["--record", tmp_path / "no.npz"], "there is no record"),
        (["--record", tmp_path / "broken.npz"], "damaged"),
        (["--record", tmp_path / "two.npz"], "the record is of 2 videos"),
        (["--record", tmp_path / "none.npz"], "the record is of 0 videos"),
        (["--record", tmp_path / "one.npz", "--record", tmp_path / "other.npz"], "not of the same frames"),
        (["--record", tmp_path / "one.npz", "--record", tmp_path / "one.npz"], "have the same name"),
    ]
    for arguments, message in cases:
        assert message in wrong(capsys, *arguments, "-o", out), arguments
        assert not out.exists() or list(out.iterdir()) == [], arguments
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        for source in (["--record", tmp_path / "one.npz"], [clip, "--config", config]):
            assert "cannot be a folder" in wrong(capsys, *source, "-o", place)
    assert "-o" in wrong(capsys, clip, "--config", config)
    assert (tmp_path / "file").read_text() == "x"


def test_a_picture_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_all({"one": made_record(1, frames=2)}, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match=r"pip install 'holitom\[show\]'"):
        draw_all({"one": made_record(2, frames=2)}, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert len(list(tmp_path.iterdir())) == 2


def test_whole_folder(tmp_path: Path) -> None:
    def fail() -> None:
        with whole_folder(tmp_path / "out") as hidden:
            (hidden / "a").write_text("1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list((tmp_path / "out").iterdir()) == []
    with whole_folder(tmp_path / "out") as hidden:
        (hidden / "sub").mkdir()
        (hidden / "sub" / "a").write_text("2")
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["sub", "a"]


def test_eval_has_the_same_command_line_tools() -> None:
    from eval.instruments import cli  # noqa: PLC0415

    assert (cli.Parser, cli.user_errors) == (Parser, user_errors)
