"""Files that are no whole video, wrong arguments and missing packages: one clear line, never a wrong frame."""

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

import llava.video
from llava.errors import InputError, VideoError
from llava.video import load_video
from tests.clips import copy_from, number_of, picture, write_audio, write_clip

READERS = ["auto", "decord", "pyav"]
FASTSTART = {
    "frames": 150,
    "gop": 30,
    "codec_options": {"crf": "12", "bf": "0"},
    "container_options": {"movflags": "faststart"},
}
MPEG4 = {"codec": "mpeg4", "codec_options": {"b": "2000000"}}
VP8 = {"codec": "libvpx", "codec_options": {"cpu-used": "8"}}
DECODABLE = r"of \d+ frames only the first \d\d can be decoded"


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def zeroed(path: Path, place: float, length: int) -> Path:
    data = bytearray(path.read_bytes())
    start = int(len(data) * place)
    data[start : start + length] = bytes(length)
    path.write_bytes(data)
    return path


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def head_of(path: Path) -> Path:
    return written(path, path.read_bytes()[:400])


def folder(path: Path) -> Path:
    path.mkdir()
    return path


BAD_FILES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda tmp: tmp / "absent.mp4", "no such file"),
    "folder": (lambda tmp: folder(tmp / "clips.mp4"), "a folder, not a video file"),
    "empty": (lambda tmp: written(tmp / "empty.mp4", b""), "empty .0 bytes."),
    "text": (
        lambda tmp: written(tmp / "notes.mp4", b"Meeting notes\n" * 90),
        "not a video file .it begins with b'Meet",
    ),
    "random bytes": (lambda tmp: written(tmp / "noise.mp4", np.random.default_rng(0).bytes(9000)), "not a video file"),
    "sound only": (lambda tmp: write_audio(tmp / "sound.mp4"), "no video stream .found: audio"),
    "cover picture": (lambda tmp: write_audio(tmp / "song.m4a", cover=picture(1, 96, 64)), "only picture is a cover"),
    "no index": (lambda tmp: cut(write_clip(tmp / "clip.mp4"), 0.5), "'moov'. is missing"),
    "only the head": (lambda tmp: head_of(write_clip(tmp / "clip.mp4", **FASTSTART)), "no known picture size"),
    "cut": (lambda tmp: cut(write_clip(tmp / "clip.mp4", **FASTSTART), 0.6), DECODABLE),
    "cut MKV": (
        lambda tmp: cut(write_clip(tmp / "clip.mkv", frames=150), 0.5),
        rf"6.0 s .*holds [23]\.\d s.*; {DECODABLE}",
    ),
    "cut AVI": (lambda tmp: cut(write_clip(tmp / "clip.avi", frames=150, **MPEG4), 0.6), DECODABLE),
    "cut WebM": (lambda tmp: cut(write_clip(tmp / "clip.webm", frames=80, **VP8), 0.5), DECODABLE),
    "cut MKV without tags": (lambda tmp: without_tag(cut(write_clip(tmp / "clip.mkv", frames=150), 0.5)), DECODABLE),
    "cut between two frames": (lambda tmp: cut_before(write_clip(tmp / "clip.mp4", **FASTSTART), 100), "holds 4.0 s"),
    "last packets missing": (lambda tmp: cut_packets(tmp), "states 4.0 s of video but holds 2.0 s"),
}


def without_tag(path: Path) -> Path:
    """As other writers leave it: the length stands in the header only, not with the stream."""
    return written(path, path.read_bytes().replace(b"DURATION", b"SOMETHNG"))


def cut_before(path: Path, number: int) -> Path:
    """Cut a file exactly where a packet begins, so that no packet is torn."""
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(video=0)]
    return written(path, path.read_bytes()[: places[number]])


def cut_packets(folder_path: Path) -> Path:
    """An MKV whose last two seconds are gone, cut between two packets, with the stated length left as it was."""
    whole = write_clip(folder_path / "whole.mkv", frames=100)
    short = write_clip(folder_path / "short.mkv", frames=50)
    data = short.read_bytes()
    assert data.count(b"00:00:02.000000000") == 1
    assert whole.read_bytes().count(b"00:00:04.000000000") == 1
    return written(folder_path / "clip.mkv", data.replace(b"00:00:02.000000000", b"00:00:04.000000000"))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(("make", "message"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_files(tmp_path: Path, make: Callable[[Path], Path], message: str, reader: str) -> None:
    if reader == "decord":
        pytest.importorskip("decord")
    path = make(tmp_path)
    with pytest.raises(VideoError, match=message) as raised:
        load_video(path, 8, reader)
    text = str(raised.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    assert ";" in text  # a remedy follows what was found


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "clip.mp4", frames=2)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(VideoError, match="no permission"):
        load_video(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(VideoError, match="not a regular file"):
        load_video(tmp_path / "pipe.mp4")


@pytest.mark.parametrize("reader", ["auto", "pyav"])
def test_damage_in_the_middle(tmp_path: Path, reader: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = zeroed(write_clip(tmp_path / "clip.mp4", **FASTSTART), 0.5, 3000)
    with pytest.raises(
        VideoError,
        match=r"clip.mp4: the video is damaged at 2\.\d\d s .*of 150 frames only the first \d\d can be",
    ):
        load_video(path, 16, reader)
    assert capfd.readouterr().err == ""  # FFmpeg's own complaints stay quiet


def test_damage_where_nothing_is_read_does_not_matter(tmp_path: Path) -> None:
    """Also shows that the frames between the sampled ones are not decoded."""
    path = zeroed(write_clip(tmp_path / "clip.mp4", **FASTSTART), 0.5, 3000)
    clip = load_video(path, 2, "pyav")
    assert [number_of(frame) for frame in clip.frames] == [0, 149]


@pytest.mark.parametrize("num_frames", [0, -3, 1.5, True, "8"])
def test_num_frames_is_a_whole_number_of_at_least_one(tmp_path: Path, num_frames: object) -> None:
    with pytest.raises(InputError, match=r"num_frames is .*at least 1"):
        load_video(write_clip(tmp_path / "clip.mp4", frames=2), num_frames)  # type: ignore[arg-type]


def test_unknown_reader(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="reader is 'opencv'; it must be one of auto, pyav, decord, decord-as-is"):
        load_video(tmp_path / "clip.mp4", reader="opencv")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["clip.ts", "av1.webm", "edit.mp4"])
def test_decord_is_not_forced_on_files_it_misreads(tmp_path: Path, name: str) -> None:
    pytest.importorskip("decord")
    whole = write_clip(tmp_path / "whole.mp4", frames=40)
    path = {
        "clip.ts": lambda: write_clip(tmp_path / name),
        "av1.webm": lambda: write_clip(tmp_path / name, codec="libaom-av1", codec_options={"cpu-used": "8"}, frames=4),
        "edit.mp4": lambda: copy_from(whole, tmp_path / name, hide=15),
    }[name]()
    with pytest.raises(VideoError, match=r"decord .*; use reader='pyav'"):
        load_video(path, 4, "decord")


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Make the packages look as if they were not installed."""
    original = builtins.__import__

    def refuse(name: str, *rest: object, **keywords: object) -> object:
        if name.split(".")[0] in packages:
            raise ImportError(f"No module named {name!r}")
        return original(name, *rest, **keywords)  # type: ignore[arg-type]

    for package in packages:
        monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.setattr(llava.video, "_installed", lambda package: package not in packages)


@pytest.mark.parametrize(
    ("missing", "reader", "remedy"),
    [
        (("av", "decord"), "auto", "av"),
        (("av", "decord"), "decord", "decord and av"),
        (("decord",), "decord", "decord"),
        (("av",), "pyav", "av"),
    ],
)
def test_a_missing_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...], reader: str, remedy: str
) -> None:
    path = write_clip(tmp_path / "clip.mp4", frames=2)
    without(monkeypatch, *missing)
    with pytest.raises(InputError, match=rf"needs {remedy}, not installed here: pip install 'holitom\[video\]'$"):
        load_video(path, 4, reader)  # type: ignore[arg-type]


def test_pyav_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "clip.mp4")
    without(monkeypatch, "decord")
    assert load_video(path, 4).reader == "pyav"
