"""Kinds of files that readers get wrong: the right frames or one line, and proof that the old rule (decord) fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import llava.video
from llava import video_decoding, video_files, video_probe, video_readers, video_structure
from llava.errors import InputError, VideoError
from llava.video import MAX_FRAMES, load_video
from tests.clips import copy_from, number_of, write_clip
from tests.fuzz_videos import apart

B_FRAMES = {"crf": "12", "bf": "3"}
KINDS = {
    "h264.flv": {},
    "sorenson.flv": {"codec": "flv", "codec_options": {"b": "2000000"}},
    "mpeg2.mpg": {"codec": "mpeg2video", "codec_options": {"b": "3000000"}},
    "mpeg2.vob": {"codec": "mpeg2video", "codec_options": {"b": "3000000", "bf": "2"}},
    "h264_b.avi": {"codec_options": B_FRAMES, "gop": 20, "frames": 60},
    "altref.webm": {
        "frames": 60,
        "gop": 30,
        "codec": "libvpx",
        "codec_options": {"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8"},
    },
    "b.ts": {"codec_options": B_FRAMES},
}


def numbers(frames: np.ndarray) -> tuple[int, ...]:
    return tuple(number_of(frame) for frame in frames)


@pytest.mark.parametrize(("name", "changes"), KINDS.items(), ids=KINDS.keys())
def test_the_right_frames(tmp_path: Path, name: str, changes: dict) -> None:
    path = write_clip(tmp_path / name, **changes)
    clip = load_video(path, 8)
    assert (clip.reader, clip.exact, clip.total_frames) == ("pyav", True, changes.get("frames", 40))
    assert numbers(clip.frames) == clip.indices


@pytest.mark.parametrize("name", ["h264_b.avi", "b.ts"])
def test_the_field_reader_shows_others(tmp_path: Path, name: str) -> None:
    """The other direction: decord's own frames are wrong, are had only by asking, and are refused when checked."""
    pytest.importorskip("decord")
    path = write_clip(tmp_path / name, **KINDS[name])
    clip = load_video(path, 8, "decord-as-is")
    assert (clip.reader, clip.exact) == ("decord-as-is", False)
    assert numbers(clip.frames) != clip.indices
    with pytest.raises(VideoError, match=r"decord (shows another picture|counts).*'decord-as-is'"):
        load_video(path, 8, "decord")


def test_concealed_damage_is_refused_with_its_time(tmp_path: Path) -> None:
    pytest.importorskip("decord")
    path = write_clip(tmp_path / "clip.mp4", frames=60, gop=60, width=320, height=240)
    data = bytearray(path.read_bytes())
    place = data.index(b"mdat") + 4 + (len(data) - data.index(b"mdat")) // 2
    data[place : place + 50] = bytes(byte ^ 0x5A for byte in data[place : place + 50])
    path.write_bytes(data)
    for reader in ("auto", "decord"):
        with pytest.raises(VideoError, match=r"damaged at \d\.\d\d s .*of 60 frames only the first \d+ can be decoded"):
            load_video(path, 60, reader)  # type: ignore[arg-type]


def test_an_mkv_may_start_late(tmp_path: Path) -> None:
    """Its DURATION states the time of the end."""
    whole = write_clip(tmp_path / "whole.mp4", frames=40)
    path = copy_from(whole, tmp_path / "late.mkv", hide=-100)
    clip = load_video(path, 8)
    assert numbers(clip.frames) == clip.indices
    assert (clip.total_frames, clip.duration) == (40, pytest.approx(1.6, abs=0.01))


@pytest.mark.parametrize("name", ["clip.mkv", "clip.avi"])
@pytest.mark.parametrize("lost", [1, 3, 10])
def test_a_short_tail_is_missed(tmp_path: Path, name: str, lost: int) -> None:
    """Cut exactly between two packets, where nothing but the stated size or length tells."""
    path = write_clip(tmp_path / name, frames=40, codec="mpeg4", codec_options={"b": "2000000"})
    import av  # noqa: PLC0415

    with av.open(str(path)) as container:
        place = [packet.pos for packet in container.demux(video=0) if packet.size][-lost]
    path.write_bytes(path.read_bytes()[:place])
    with pytest.raises(VideoError, match=r"states|missing|breaks off"):
        load_video(path, 4)


@pytest.mark.parametrize("name", ["list.m3u8", "list.mp4"])
@pytest.mark.parametrize("script", ["#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\n{}\n#EXT-X-ENDLIST\n",
                                    "ffconcat version 1.0\nfile {}\n"])  # fmt: skip
def test_no_file_names_another(tmp_path: Path, name: str, script: str) -> None:
    write_clip(tmp_path / "clip.ts", frames=10)
    (tmp_path / name).write_text(script.format("clip.ts"))
    for reader in ("auto", "decord-as-is"):
        with pytest.raises(VideoError, match="names other files"):
            load_video(tmp_path / name, 4, reader)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "clip.mp4/inside.mp4", "https://example.org/a.mp4", "/dev/zero"])
def test_impossible_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "clip.mp4", frames=2)
    with pytest.raises(VideoError, match=r"cannot be opened|no such file|not a regular file"):
        load_video(name)


@pytest.mark.parametrize("num_frames", [MAX_FRAMES + 1, 100_000, 10**12])
def test_more_frames_than_the_bound(tmp_path: Path, num_frames: int) -> None:
    with pytest.raises(InputError, match=f"num_frames is {num_frames}; it must be at most {MAX_FRAMES}"):
        load_video(tmp_path / "clip.mp4", num_frames)


def test_bounds_on_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "clip.mp4")
    monkeypatch.setattr(video_readers, "MAX_BYTES", 100_000)
    with pytest.raises(VideoError, match="8 frames of 96 x 64 pixels"):
        load_video(path, 8)
    monkeypatch.setattr(video_probe, "MAX_PIXELS", 5000)
    with pytest.raises(VideoError, match="96 x 64 pixels, the bound is 5000"):
        load_video(path, 8)


def test_stated_size(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mkv", frames=4)
    assert video_structure.missing_bytes(path) == 0
    path.write_bytes(path.read_bytes()[:-3])
    assert video_structure.missing_bytes(path) == 3


def test_the_difference_that_is_seen() -> None:
    one = np.full((40, 50, 3), 100, np.uint8)
    other = one.copy()
    other[32:, 48:] += 20  # a corner smaller than a block
    assert llava.video._same_picture(one, one + 2)
    assert not llava.video._same_picture(one, other)


def test_1024_frames_in_bounded_memory(tmp_path: Path) -> None:
    """The array returned is 300 MB; no second copy of it is made, however often a frame is shown."""
    path = write_clip(tmp_path / "clip.mp4", frames=30, width=384, height=256)
    code = f"""
import resource
from llava.video import load_video
load_video({str(path)!r}, 4)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
frames = load_video({str(path)!r}, 1024).frames
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(frames.shape[0], (after - before) * 1024 < 1.2 * frames.nbytes)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "1024 True", done.stdout + done.stderr[-500:]


def test_a_changed_byte_breaks_a_checksum(tmp_path: Path) -> None:
    """Matroska's CRC-32, which FFmpeg does not compare: one bit of the last byte of a cluster, in a picture's data."""
    path = write_clip(tmp_path / "clip.mkv", codec="libvpx", codec_options={"cpu-used": "8"}, frames=20)
    data = bytearray(path.read_bytes())
    assert video_structure.structure_fault(path, "matroska", 1) is None
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(VideoError, match="do not give their checksum"):
        load_video(path, 4)


def test_vp9_is_checked_by_libvpx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg's own decoder shows these damaged pictures without a word."""
    spec = {"codec": "libvpx-vp9", "codec_options": {"cpu-used": "8", "b": "800000"}, "frames": 20}
    path = write_clip(tmp_path / "clip.webm", width=192, height=128, gop=20, **spec)
    data = bytearray(path.read_bytes())
    for place in range(len(data) // 2, len(data) // 2 + 40):
        data[place] ^= 0x5A
    path.write_bytes(data)
    with pytest.raises(VideoError, match="damaged at"):
        load_video(path, 20)
    monkeypatch.setattr(video_decoding, "CHECKERS", {})
    assert load_video(path, 20).total_frames == 20


def test_two_decoders_must_agree_on_vp8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both take these damaged data without an error, and go on in different ways."""
    spec = {"codec": "libvpx", "codec_options": {"cpu-used": "8", "b": "800000"}, "frames": 20}
    path = write_clip(tmp_path / "clip.webm", width=192, height=128, gop=20, **spec)
    data = bytearray(path.read_bytes())
    for place in range(len(data) // 2, len(data) // 2 + 6):
        data[place] ^= 0x5A
    path.write_bytes(data)
    with pytest.raises(VideoError, match="two decoders disagree on a picture"):
        load_video(path, 20)
    monkeypatch.setattr(video_decoding, "_same_planes", lambda frame, other: True)
    assert load_video(path, 20).total_frames == 20


def test_intact_vp9_of_other_pixels(tmp_path: Path) -> None:
    """libvpx may be built for 8 bits alone, and gives the transparency that FFmpeg's own decoder leaves out.

    The clip of 10 bits is ``ffmpeg -f lavfi -i testsrc=size=64x64:rate=25:duration=0.24 -c:v libvpx-vp9 -pix_fmt
    yuv420p10le -crf 50 -b:v 0``; PyAV's encoder has 8 alone.
    """
    assert load_video(Path(__file__).parent / "clips" / "vp9_10bit.webm", 6).total_frames == 6
    for pixels in ("yuv444p", "yuva420p"):
        spec = {"codec": "libvpx-vp9", "pix_fmt": pixels, "codec_options": {"cpu-used": "8"}, "frames": 6}
        assert load_video(write_clip(tmp_path / f"{pixels}.webm", **spec), 6).total_frames == 6


def test_too_many_pixels_are_refused_without_a_decoded_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finding out about a PNG stream would decode its first picture; the size is then known, and named."""
    path = write_clip(tmp_path / "clip.avi", codec="png", pix_fmt="rgb24", codec_options={}, frames=2)
    monkeypatch.setattr(video_probe, "MAX_PIXELS", 5000)
    with pytest.raises(VideoError, match="96 x 64 pixels, the bound is 5000"):
        load_video(path, 2)
    monkeypatch.setattr(video_files, "MAX_PIXELS", 5000)
    with pytest.raises(VideoError, match="more than 5000 pixels in a picture"):
        load_video(path, 2)


def test_rotation_in_matroska(tmp_path: Path) -> None:
    """Upright from both containers; decord leaves the Matroska one on its side."""
    whole = write_clip(tmp_path / "whole.mp4", rotation=90)
    path = copy_from(whole, tmp_path / "clip.mkv")
    upright = load_video(whole, 4)
    clip = load_video(path, 4)
    assert clip.frames.shape == upright.frames.shape == (4, 96, 64, 3)
    np.testing.assert_array_equal(clip.frames, upright.frames)
    pytest.importorskip("decord")
    assert load_video(path, 4, "decord-as-is").frames.shape == (4, 64, 96, 3)


def test_a_stream_of_no_known_type(tmp_path: Path) -> None:
    """Asking PyAV for its type is a segmentation fault: in a process of its own."""
    path = write_clip(tmp_path / "clip.avi", codec="mjpeg", pix_fmt="yuvj420p", frames=4)
    path.write_bytes(path.read_bytes().replace(b"vids", b"v!ds", 1))
    outcome, words = apart(path, np.empty((0, 0, 0, 3), np.uint8))
    assert outcome == "refused", words
    assert "no video stream (found: unknown)" in words
