"""Frames from intact files: the right ones, the same from both readers, with the length of the video."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.errors import InputError
from llava.video import load_video, uniform_indices
from tests.clips import copy_from, number_of, picture, turn, write_clip

pytest.importorskip("av")


def has_decord() -> bool:
    try:
        import decord  # noqa: F401, PLC0415
    except ImportError:
        return False
    return True


needs_decord = pytest.mark.skipif(not has_decord(), reason="decord is not installed")

H264_CLIPS = {
    "plain": {},
    "long group of pictures": {"gop": 250, "frames": 90},
    "every frame a keyframe": {"gop": 1},
    "odd size": {"width": 97, "height": 65, "pix_fmt": "yuv444p"},
    "rotated 90": {"rotation": 90},
    "rotated 180": {"rotation": 180},
    "rotated 270": {"rotation": 270},
    "variable rate": {"ticks": [step * step // 3 + step for step in range(40)]},
    "one frame": {"frames": 1},
    "two frames": {"frames": 2},
    "audio first": {"audio": True},
    "fragmented": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "BT.709": {"colorspace": 1, "color_range": 1},
    "BT.709, full range": {"colorspace": 1, "color_range": 2},
    "full range": {"color_range": 2},
    "10 bit": {"pix_fmt": "yuv420p10le"},
}


def numbers(clip_frames: np.ndarray) -> tuple[int, ...]:
    return tuple(number_of(frame) for frame in clip_frames)


@needs_decord
@pytest.mark.parametrize("changes", H264_CLIPS.values(), ids=H264_CLIPS.keys())
def test_both_readers_return_the_same_bits(tmp_path: Path, changes: dict) -> None:
    path = write_clip(tmp_path / "clip.mp4", **changes)
    ours, theirs = load_video(path, 7, "pyav"), load_video(path, 7, "decord")
    assert (ours.reader, theirs.reader) == ("pyav", "decord")
    assert ours.indices == theirs.indices
    assert (ours.total_frames, ours.fps, ours.duration) == (theirs.total_frames, theirs.fps, theirs.duration)
    np.testing.assert_array_equal(ours.frames, theirs.frames)
    assert load_video(path, 7).reader == "pyav"


@pytest.mark.parametrize("reader", [pytest.param("decord", marks=needs_decord), "pyav"])
def test_frames_are_the_ones_the_indices_name(tmp_path: Path, reader: str) -> None:
    path = write_clip(tmp_path / "clip.mp4", frames=150, gop=30)
    clip = load_video(path, 8, reader)
    assert clip.indices == (0, 21, 42, 63, 85, 106, 127, 149)
    assert numbers(clip.frames) == clip.indices
    assert (clip.total_frames, clip.fps, clip.duration) == (150, 25.0, 6.0)
    assert clip.frames.shape == (8, 64, 96, 3)
    assert clip.frames.dtype == np.uint8
    assert clip.path == path


@pytest.mark.parametrize("matrix", [1, 5, 9], ids=["BT.709", "BT.601", "BT.2020"])
def test_colours_do_not_depend_on_the_matrix_tag(tmp_path: Path, matrix: int) -> None:
    """PyAV converts everything as BT.601 unless told otherwise, which shifts the colours of most HD video."""
    path = write_clip(tmp_path / "clip.mp4", colorspace=matrix, color_range=1, frames=3)
    decoded = load_video(path, 1, "pyav").frames[0].astype(int)
    # the encoder converts as BT.601 and only the tag differs: undo the conversion that the tag asks for
    undone = _to_yuv(decoded, matrix)
    expected = _to_yuv(picture(0, 96, 64).astype(int), 5)
    assert np.abs(undone - expected)[4:-4, 4:-4].mean() < 3


def _to_yuv(image: np.ndarray, matrix: int) -> np.ndarray:
    red, blue = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 9: (0.2627, 0.0593)}[matrix]
    luma = image @ np.array([red, 1 - red - blue, blue])
    return np.stack([luma, (image[..., 2] - luma) / (1 - blue) / 2, (image[..., 0] - luma) / (1 - red) / 2], axis=-1)


@pytest.mark.parametrize("reader", [pytest.param("decord", marks=needs_decord), "pyav"])
@pytest.mark.parametrize(("degrees", "turns"), [(90, -1), (180, 2), (270, 1)])
def test_rotation_is_applied(tmp_path: Path, reader: str, degrees: int, turns: int) -> None:
    path = write_clip(tmp_path / "upright.mp4")
    upright = load_video(path, 3, reader)
    # the same packets: encoding the pictures a second time need not give the same bits
    turned = load_video(turn(path, tmp_path / "turned.mp4", degrees), 3, reader)
    np.testing.assert_array_equal(turned.frames, np.rot90(upright.frames, turns, axes=(1, 2)))
    assert turned.frames.flags.c_contiguous


@pytest.mark.parametrize(("frames", "expected"), [(1, (0,) * 5), (2, (0, 0, 0, 0, 1)), (3, (0, 0, 1, 1, 2))])
def test_short_videos_repeat_indices(tmp_path: Path, frames: int, expected: tuple[int, ...]) -> None:
    clip = load_video(write_clip(tmp_path / "clip.mp4", frames=frames), 5)
    assert clip.indices == expected
    assert numbers(clip.frames) == expected
    assert (clip.total_frames, clip.fps) == (frames, 25.0)


OTHER_FILES = {
    "clip.ts": ({}, "pyav"),
    "clip.wmv": ({"codec": "wmv2", "codec_options": {}}, "pyav"),
    "wmv2.avi": ({"codec": "wmv2", "codec_options": {}}, "pyav"),
    "av1.mp4": ({"codec": "libaom-av1", "codec_options": {"cpu-used": "8", "crf": "20"}, "frames": 24}, "pyav"),
    "av1.webm": ({"codec": "libaom-av1", "codec_options": {"cpu-used": "8", "crf": "20"}, "frames": 24}, "pyav"),
    "clip.gif": ({"codec": "gif", "codec_options": {}, "pix_fmt": "rgb8", "frames": 10}, "pyav"),
    "vp9.webm": ({"codec": "libvpx-vp9", "codec_options": {"cpu-used": "8"}}, "pyav"),
    "vp8.webm": ({"codec": "libvpx", "codec_options": {"cpu-used": "8", "auto-alt-ref": "1"}}, "pyav"),
    "clip.mkv": ({"audio": True}, "pyav"),
    "clip.mov": ({}, "pyav"),
    "mpeg4.avi": ({"codec": "mpeg4", "codec_options": {"b": "2000000"}}, "pyav"),
    "hevc.mp4": (
        {"codec": "libx265", "codec_options": {"crf": "12", "x265-params": "log-level=none:open-gop=0"}},
        "pyav",
    ),
}


@pytest.mark.parametrize(("name", "recipe"), OTHER_FILES.items(), ids=OTHER_FILES.keys())
def test_other_containers_and_codecs(tmp_path: Path, name: str, recipe: tuple[dict, str]) -> None:
    changes, usual_reader = recipe
    path = write_clip(tmp_path / name, **changes)
    clip = load_video(path, 6)
    assert numbers(clip.frames) == clip.indices == tuple(uniform_indices(changes.get("frames", 40), 6))
    assert clip.fps == pytest.approx(25, rel=0.05)
    assert clip.reader == usual_reader
    assert numbers(load_video(path, 6, "pyav").frames) == clip.indices


def test_several_video_streams_are_read_by_pyav(tmp_path: Path) -> None:
    """The readers may choose different streams, so only one of them reads such files."""
    path = copy_from(write_clip(tmp_path / "one.mp4"), tmp_path / "two.mp4", streams=2)
    clip = load_video(path, 6)
    assert clip.reader == "pyav"
    assert numbers(clip.frames) == clip.indices


def test_odd_size_of_halved_chroma(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "odd.webm", codec="libvpx-vp9", codec_options={}, width=97, height=65)
    clip = load_video(path, 6)
    assert clip.frames.shape == (6, 65, 97, 3)
    np.testing.assert_array_equal(clip.frames, load_video(path, 6, "pyav").frames)


def test_a_wrong_extension_does_not_matter(tmp_path: Path) -> None:
    """decord opens an MPEG-TS file of any name and returns frames other than those asked for."""
    path = write_clip(tmp_path / "recording.mp4", container_format="mpegts")
    clip = load_video(path, 8)
    assert clip.reader == "pyav"
    assert numbers(clip.frames) == clip.indices


@pytest.mark.parametrize("gop", [30, 250])
def test_an_edit_list_hides_the_frames_it_cuts_off(tmp_path: Path, gop: int) -> None:
    """decord counts hidden frames and repeats the last ones in their place."""
    whole = write_clip(tmp_path / "whole.mp4", frames=90, gop=gop)
    path = copy_from(whole, tmp_path / "cut.mp4", hide=25)
    clip = load_video(path, 8)
    assert clip.reader == "pyav"
    assert clip.total_frames == 65
    assert numbers(clip.frames) == tuple(index + 25 for index in clip.indices)


OPEN_GROUPS = {
    "hevc.mp4": ("libx265", {"crf": "12", "x265-params": "log-level=none"}),
    "hevc.mkv": ("libx265", {"crf": "12", "x265-params": "log-level=none"}),
    "h264.mp4": ("libx264", {"crf": "12", "x264-params": "open-gop=1:bframes=3"}),
}


@pytest.mark.parametrize(("name", "encoder"), OPEN_GROUPS.items(), ids=OPEN_GROUPS.keys())
def test_open_groups_of_pictures(tmp_path: Path, name: str, encoder: tuple[str, dict[str, str]]) -> None:
    """decord seeks to the keyframe behind the wanted frame and returns a neighbour, without an error."""
    path = write_clip(tmp_path / name, frames=90, codec=encoder[0], codec_options=encoder[1])
    clip = load_video(path, 16)
    assert clip.reader == "pyav"
    assert numbers(clip.frames) == clip.indices


def test_frames_before_the_first_keyframe_are_no_frames(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mkv", frames=40, gop=10, codec_options={"bf": "0", "crf": "12"})
    path = copy_from(whole, tmp_path / "late.mkv", drop=range(5))
    clip = load_video(path, 5, "pyav")
    assert numbers(clip.frames)[-1] == 39
    assert len(set(numbers(clip.frames))) == 5


@settings(derandomize=True, deadline=None, max_examples=60)
@given(total=st.integers(1, 5000), count=st.integers(1, 130))
def test_uniform_indices(total: int, count: int) -> None:
    indices = uniform_indices(total, count)
    steps = max(count - 1, 1)
    for position, index in enumerate(indices):  # within one of the exact quotient: linspace works in floating point
        assert index in {position * (total - 1) // steps, position * (total - 1) // steps - 1}
    assert len(indices) == count
    assert indices[0] == 0
    assert count == 1 or indices[-1] == total - 1


def test_uniform_indices_as_in_the_paper() -> None:
    assert uniform_indices(150, 8) == [0, 21, 42, 63, 85, 106, 127, 149]
    assert uniform_indices(3, 5) == [0, 0, 1, 1, 2]


@pytest.mark.parametrize("arguments", [(0, 4), (4, 0), (-1, 4)])
def test_uniform_indices_refuses_nothing_to_sample(arguments: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="at least 1"):
        uniform_indices(*arguments)
