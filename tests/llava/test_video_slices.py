"""HEVC keyframes that are not read to their end, and bytes that no encoder writes; intact ones of every kind pass."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from llava import video_slices
from llava.errors import VideoError
from llava.video import load_video
from llava.video_decoding import STRICT
from llava.video_slices import SliceChecker
from tests.clips import write_clip

SIZE = {"frames": 12, "gop": 6, "width": 192, "height": 128}


def hevc(extra: str = "", **changes: object) -> dict:
    options = {"crf": "24", "x265-params": f"log-level=none:{extra}"}
    return {**SIZE, "codec": "libx265", "codec_options": options, **changes}


H264 = {**SIZE, "codec_options": {"crf": "20", "bf": "2"}}
KINDS = {
    "plain.mp4": hevc(),
    "plain.mkv": hevc(),
    "plain.ts": hevc(),
    "small.mp4": hevc(width=64, height=64),
    "odd.mp4": hevc(width=200, height=120),
    "slices.mp4": hevc("slices=2", height=256),
    "serial.mp4": hevc("wpp=0:open-gop=1:keyint=6"),
    "intra.mp4": hevc("keyint=1"),
    "ten_bits.mp4": hevc(pix_fmt="yuv420p10le"),
    "lossless.mp4": hevc("lossless=1"),
    "coarse.mp4": {**hevc(), "codec_options": {"crf": "51", "x265-params": "log-level=none"}},
    "avc.mp4": H264,
    "avc.ts": H264,
    "avc_slices.mp4": {**H264, "codec_options": {"crf": "24", "slices": "3"}},
    "avc_plain.mp4": {**H264, "codec_options": {"crf": "20", "profile": "baseline", "slices": "1"}},
}


def faults(path: Path) -> list[str | None]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        checker = SliceChecker(stream.codec_context.name, stream.codec_context, STRICT)
        return [checker.fault(packet) for packet in container.demux(stream) if packet.size]


def packets_of(path: Path) -> list[bytes]:
    """The data of the packets, in decoding order."""
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


@pytest.mark.parametrize("name", KINDS)
def test_intact_streams_have_no_fault(tmp_path: Path, name: str) -> None:
    found = faults(write_clip(tmp_path / name, **KINDS[name]))
    assert len(found) == SIZE["frames"]
    assert set(found) == {None}


@pytest.mark.parametrize("colour", [0, 128, 255])
def test_flat_keyframes_have_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, colour: int) -> None:
    """In a flat picture other syntax may give the same samples: one changed end may go unseen, but not all."""
    monkeypatch.setattr(
        "tests.clips.picture", lambda number, width, height: np.full((height, width, 3), colour, np.uint8)
    )
    for name, spec in (
        ("a.mp4", hevc(width=200, height=120)),
        ("b.mp4", hevc("ctu=16:keyint=2", width=160, height=96)),
    ):
        assert set(faults(write_clip(tmp_path / name, **spec))) == {None}


@pytest.mark.parametrize("place", [0.2, 0.35, 0.5, 0.65, 0.8])
@pytest.mark.parametrize("name", ["plain.mp4", "plain.mkv", "plain.ts", "slices.mp4"])
def test_a_damaged_keyframe_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, place: float
) -> None:
    """One changed byte of the second keyframe: the decoder alone sees nothing, and gives another picture."""
    path = write_clip(tmp_path / name, **KINDS[name], container_options={"write_crc32": "0"} if "mkv" in name else {})
    intact = load_video(path, 12).frames
    keyframe = packets_of(path)[6]
    begin = max(keyframe.rfind(b"\0\0\1"), 0)  # behind the parameter sets, which a transport stream repeats
    middle = begin + round((len(keyframe) - begin) * place)
    around = keyframe[middle - 4 : middle + 5]  # in a transport stream a packet's data do not lie together
    assert path.read_bytes().count(around) == 1
    path.write_bytes(path.read_bytes().replace(around, around[:4] + bytes([around[4] ^ 0x15]) + around[5:]))
    with pytest.raises(VideoError, match="keyframe ends elsewhere than its data"):
        load_video(path, 12)
    monkeypatch.setattr(SliceChecker, "fault", lambda *_: None)
    assert np.abs(load_video(path, 12).frames.astype(int) - intact).max() > 40


@pytest.mark.parametrize(("name", "number"), [("plain.mp4", 4), ("avc.mp4", 4), ("plain.mp4", 6)])
def test_bytes_that_no_encoder_writes(tmp_path: Path, name: str, number: int) -> None:
    """Three zeros two thirds into a packet."""
    path = write_clip(tmp_path / name, **KINDS[name])
    packet = packets_of(path)[number]
    place = len(packet) * 2 // 3
    path.write_bytes(path.read_bytes().replace(packet, packet[:place] + bytes(3) + packet[place + 3 :]))
    assert faults(path)[number] == "its data hold bytes that no encoder writes"
    with pytest.raises(VideoError, match="damaged"):
        load_video(path, 12)


@pytest.mark.parametrize("ending", [b"\0", b"\0\0\0", b"\0\0\3\0\0\3", b"\0\0\3" * 20])
def test_zero_words_after_a_slice_are_no_damage(tmp_path: Path, ending: bytes) -> None:
    """An encoder may fill a slice up to its rate (H.265 7.3.2.11), a writer may leave the zero of a start code."""
    path = write_clip(tmp_path / "clip.mp4", **hevc())
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        checker = SliceChecker("hevc", stream.codec_context, STRICT)
        packet = next(iter(container.demux(stream)))
        units = [*checker._units(bytes(packet))]
        filled = av.Packet(b"".join(
            (len(unit) + len(ending)).to_bytes(4, "big") + unit + ending if checker._is_slice(unit) else
            len(unit).to_bytes(4, "big") + unit for unit in units
        ))  # fmt: skip
        filled.is_keyframe = True
        assert checker.fault(filled) is None


def test_what_is_never_the_same_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A keyframe that is not complete by itself may show what lies in memory."""
    path, rng = write_clip(tmp_path / "clip.mp4", **hevc()), np.random.default_rng(0)
    monkeypatch.setattr(SliceChecker, "_picture", lambda *_: [rng.bytes(8)])
    assert set(faults(path)) == {None}


def test_one_unseen_change_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, change = write_clip(tmp_path / "clip.mp4", **hevc()), video_slices._changed
    monkeypatch.setattr(video_slices, "_changed", lambda unit, mask: unit if mask == 0xFF else change(unit, mask))
    assert set(faults(path)) == {None}
    monkeypatch.setattr(video_slices, "_changed", lambda unit, mask: unit)
    assert faults(path)[0] == "its keyframe ends elsewhere than its data"


def test_data_behind_the_end_are_seen(tmp_path: Path) -> None:
    """The end of a slice is its end: eighty more bytes are read by nobody."""
    path = write_clip(tmp_path / "clip.mp4", **hevc())
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        checker = SliceChecker("hevc", stream.codec_context, STRICT)
        units = [(unit, checker._is_slice(unit)) for unit in checker._units(bytes(next(iter(container.demux(stream)))))]
        assert checker._read_to_the_end(units)
        assert not checker._read_to_the_end([(unit + b"\x35" * 80 if yes else unit, yes) for unit, yes in units])
        short = [(unit[: len(unit) // 2] if yes else unit, yes) for unit, yes in units]
        assert not checker._read_to_the_end(short)


def test_other_codecs_are_not_looked_at(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.avi", codec="mpeg4", codec_options={"b": "1000000"}, frames=4)
    assert set(faults(path)) == {None}
    assert video_slices._without_zero_words(b"\x26\x01\x80\0\0\3\0\0\3\0") == b"\x26\x01\x80"
