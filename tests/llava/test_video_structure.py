"""What must add up in a container: intact files of every kind pass, a lost or broken part is refused and named."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from llava.errors import VideoError
from llava.video import load_video
from llava.video_structure import structure_fault
from tests.clips import write_clip

PACKET = 188
NOISY = {"frames": 60, "gop": 20, "width": 192, "height": 128, "codec_options": {"crf": "20", "bf": "2"}}
MPEG4 = {"frames": 40, "codec": "mpeg4", "codec_options": {"b": "2000000"}}
WEBM = {"frames": 40, "codec": "libvpx", "codec_options": {"cpu-used": "8", "b": "800000"}}


def video_places(path: Path) -> list[int]:
    """Where the data of the video's packets lie in the file."""
    with av.open(str(path)) as container:
        return [path.read_bytes().index(bytes(packet)) for packet in container.demux(video=0) if packet.size]


def identifier(path: Path) -> int:
    with av.open(str(path)) as container:
        return int(container.streams.video[0].id)


def pid(packet: bytes) -> int:
    return (packet[1] & 0x1F) << 8 | packet[2]


@pytest.mark.parametrize(("name", "spec"), [
    ("clip.ts", NOISY), ("clip.mkv", WEBM), ("clip.webm", WEBM), ("clip.avi", MPEG4), ("clip.mp4", NOISY),
])  # fmt: skip
def test_intact_files_add_up(tmp_path: Path, name: str, spec: dict) -> None:
    path = write_clip(tmp_path / name, **spec)
    container = {"ts": "mpegts", "mkv": "matroska", "webm": "matroska"}.get(path.suffix[1:], path.suffix[1:])
    assert structure_fault(path, container, identifier(path)) is None
    assert load_video(path, 8).total_frames == spec["frames"]


@pytest.mark.parametrize("lost", [1, 3])
def test_lost_packets_of_a_transport_stream(tmp_path: Path, lost: int) -> None:
    """Whole packets are gone, as on a bad line: FFmpeg shows what is left, under other indices."""
    path = write_clip(tmp_path / "clip.ts", **NOISY)
    data, video = path.read_bytes(), identifier(path)
    packets = [data[place : place + PACKET] for place in range(0, len(data), PACKET)]
    middle = [row for row, packet in enumerate(packets) if pid(packet) == video][60 : 60 + lost]
    path.write_bytes(b"".join(packet for row, packet in enumerate(packets) if row not in middle))
    assert "packets are missing or damaged before byte" in str(structure_fault(path, "mpegts", video))
    with pytest.raises(VideoError, match=r"are missing|breaks off"):
        load_video(path, 4)


@pytest.mark.parametrize(("change", "words"), [
    (lambda data: data[: 50 * PACKET] + data[50 * PACKET + 6 :], "no packet begins at byte 9400"),
    (lambda data: data[: 50 * PACKET] + b"\0" + data[50 * PACKET + 1 :], "no packet begins at byte 9400"),
])  # fmt: skip
def test_a_transport_stream_out_of_step(tmp_path: Path, change, words: str) -> None:
    path = write_clip(tmp_path / "clip.ts", **NOISY)
    path.write_bytes(change(path.read_bytes()))
    assert structure_fault(path, "mpegts", identifier(path)) == words
    with pytest.raises(VideoError):
        load_video(path, 4)


def test_a_packet_marked_as_damaged(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.ts", **NOISY)
    data, video = bytearray(path.read_bytes()), identifier(path)
    place = next(p for p in range(40 * PACKET, len(data), PACKET) if pid(data[p : p + PACKET]) == video)
    data[place + 1] |= 0x80
    path.write_bytes(data)
    assert "packets are missing or damaged" in str(structure_fault(path, "mpegts", video))


def test_recordings_put_together_are_intact(tmp_path: Path) -> None:
    """`cat one.ts two.ts`: the counters begin anew at the second one's tables and key frame."""
    path = write_clip(tmp_path / "one.ts", **{**NOISY, "frames": 59})
    video = identifier(path)
    data = path.read_bytes()
    packets = [data[place : place + PACKET] for place in range(0, len(data), PACKET)]
    last = max(row for row, packet in enumerate(packets) if pid(packet) == video)
    assert packets[last][3] & 0x0F != 15, "the second counter begins at 0, which must be a jump here"
    path.write_bytes(data + data)
    assert structure_fault(path, "mpegts", video) is None


def test_parts_of_a_long_transport_stream(tmp_path: Path) -> None:
    """Counters are followed from one part that is read to the next: one packet is lost exactly there."""
    path = write_clip(tmp_path / "clip.ts", **NOISY)
    data, video = path.read_bytes(), identifier(path)
    packet = next(data[p : p + PACKET] for p in range(9400, len(data), PACKET) if pid(data[p : p + PACKET]) == video)
    plain = bytes([*packet[:3], 0x10]) + packet[4:]
    rows = [plain[:3] + bytes([0x10 | row % 16]) + plain[4:] for row in range((1 << 14) + 20)]
    path.write_bytes(b"".join(rows))
    assert structure_fault(path, "mpegts", video) is None
    del rows[1 << 14]
    path.write_bytes(b"".join(rows))
    assert structure_fault(path, "mpegts", video) == f"packets are missing or damaged before byte {PACKET << 14}"


@pytest.mark.parametrize("name", ["clip.webm", "clip.avi"])
def test_a_frame_whose_head_is_broken(tmp_path: Path, name: str) -> None:
    """FFmpeg skips it and goes on: one frame fewer, every later one under another index."""
    path = write_clip(tmp_path / name, **(WEBM if name.endswith("webm") else MPEG4))
    place = video_places(path)[20]
    data = bytearray(path.read_bytes())
    data[place - 8 : place - 4] = b"\x1f\x00\xff\x13"
    path.write_bytes(data)
    with pytest.raises(VideoError, match=r"frames at byte \d+ breaks off at byte \d+|states|breaks off"):
        load_video(path, 4)
    container = "matroska" if name.endswith("webm") else "avi"
    assert "breaks off at byte" in str(structure_fault(path, container, 0))


def test_an_unfinished_recording_states_nothing(tmp_path: Path) -> None:
    """An AVI whose recorder died states a list of no length: nothing to add up, decoding decides."""
    path = write_clip(tmp_path / "clip.avi", **MPEG4)
    data = bytearray(path.read_bytes())
    place = data.index(b"movi") - 4
    data[place : place + 4] = bytes(4)
    path.write_bytes(data)
    assert structure_fault(path, "avi", 0) is None
