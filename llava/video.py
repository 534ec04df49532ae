"""Video file -> uniformly sampled frames.

decord reads what it is known to read correctly (H.264 and the like in MP4, MOV, MKV, WebM, AVI). PyAV reads everything
else: AV1, WMV, MPEG-TS, edit lists, open groups of pictures (most HEVC), several video streams, and whatever decord
fails on. Both give the same frames, bit for bit on the H.264 clips of the tests.

    clip = load_video("talk.mp4", num_frames=32)
    clip.frames.shape, clip.indices, clip.reader
"""

from __future__ import annotations

import importlib.util
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from llava.errors import InputError, VideoError
from llava.video_probe import DECORD_CONTAINERS, RECOPY, VideoTrack, check_file, probe_track, sniff_container
from llava.video_readers import (
    DecordRefusal,
    FrameChoice,
    SampledFrames,
    count_decodable,
    read_with_decord,
    read_with_pyav,
    uniform_indices,
)

__all__ = ["VideoClip", "load_video", "uniform_indices"]

logger = logging.getLogger(__name__)

ReaderChoice = Literal["auto", "decord", "pyav"]

# wmv: decord opens these and returns other frames than those asked for; av1: its FFmpeg of 2019 has no decoder
DECORD_UNRELIABLE_CODECS = frozenset({"av1", "libdav1d", "libaom-av1", "wmv1", "wmv2", "wmv3", "vc1"})


@dataclass(frozen=True, eq=False)
class VideoClip:
    """Frames sampled from one video file.

    Attributes:
        frames: uint8 RGB pictures, upright, (num_frames, height, width, 3).
        indices: which frame of the video each picture is, ascending; an index repeats when the video is shorter.
        total_frames: how many frames the video shows.
        fps: frames per second on average (exact for a constant rate).
        duration: seconds from the first frame's start to the last frame's end.
        reader: who decoded the frames, "decord" or "pyav".
        path: the file.
    """

    frames: np.ndarray
    indices: tuple[int, ...]
    total_frames: int
    fps: float
    duration: float
    reader: str
    path: Path


def load_video(
    path: str | os.PathLike[str],
    num_frames: int = 32,
    reader: ReaderChoice = "auto",
    choose: FrameChoice | None = None,
) -> VideoClip:
    """Sample ``num_frames`` frames uniformly, first and last included, as the LLaVA-OneVision evaluation does.

    A file that is damaged in the part that is read is refused: no frame is ever repeated or guessed in the place of a
    missing one. A cut MPEG-TS file cannot be told from a whole one, because that format states no length.

    Args:
        path: a local video file of any container and codec the installed readers know.
        num_frames: how many frames to return, at least 1.
        reader: "auto" prefers decord where it is reliable; "decord" or "pyav" insists on one.
        choose: another rule than the uniform one: (total_frames, fps) to ascending frame indices below total_frames.

    Returns:
        The frames, upright (a phone's rotation is applied), with their indices and the video's length.

    Raises:
        VideoError: the file is absent, unreadable, empty, without video, damaged, or beyond the chosen reader.
        InputError: ``num_frames`` or ``reader`` is out of range, or the package needed is not installed.
    """
    _check_arguments(num_frames, reader)
    rule = choose or (lambda total, fps: uniform_indices(total, num_frames))
    file = check_file(Path(path))
    if not _installed("av"):
        return _load_without_pyav(file, rule)
    track = probe_track(file)
    if track.damage is not None:
        decodable = count_decodable(file, track)
        raise VideoError(f"{file}: {track.damage}; only the first {decodable} frames can be decoded; {RECOPY}")
    obstacle = _decord_obstacle(track)
    if reader == "decord" and obstacle is not None:
        raise VideoError(f"{file}: decord cannot be trusted with it ({obstacle}); use reader='pyav' or 'auto'")
    if reader == "decord" or (reader == "auto" and obstacle is None and _installed("decord")):
        try:
            return _clip(read_with_decord(file, rule, track), "decord", file)
        except DecordRefusal as refusal:
            if reader == "decord":
                raise VideoError(f"{file}: {refusal}; use reader='pyav' or 'auto'") from refusal
            logger.info("%s: %s; PyAV reads it instead", file, refusal)
    return _clip(read_with_pyav(file, rule, track), "pyav", file)


def _check_arguments(num_frames: int, reader: str) -> None:
    if isinstance(num_frames, bool) or not isinstance(num_frames, int | np.integer) or num_frames < 1:
        raise InputError(f"num_frames is {num_frames!r}; it must be a whole number of at least 1")
    if reader not in get_args(ReaderChoice):
        raise InputError(f"reader is {reader!r}; it must be one of {', '.join(get_args(ReaderChoice))}")
    packages = {"decord": ["decord"], "pyav": ["av"], "auto": ["decord", "av"]}[reader]
    if not any(_installed(package) for package in packages):
        lacking = " and ".join(packages)
        raise InputError(f"reader={reader!r} needs {lacking}, not installed here: pip install 'holitom[video]'")


def _load_without_pyav(file: Path, rule: FrameChoice) -> VideoClip:
    """decord alone: containers it misreads are told by their first bytes, for nothing else can look into the file."""
    container = sniff_container(file)
    if container not in DECORD_CONTAINERS:
        found = container or "of no container decord reads correctly"
        raise VideoError(f"{file}: the file is {found}; if it is a video, PyAV reads it: pip install 'holitom[video]'")
    try:
        return _clip(read_with_decord(file, rule, None), "decord", file)
    except DecordRefusal as refusal:
        remedy = "PyAV reads it, or says what is wrong: pip install 'holitom[video]'"
        raise VideoError(f"{file}: {refusal}; {remedy}") from refusal


def _decord_obstacle(track: VideoTrack) -> str | None:
    """Why decord would fail on this track or, worse, silently return other frames; None if nothing is known."""
    if track.container not in DECORD_CONTAINERS:
        return f"container {track.container}"
    if track.codec in DECORD_UNRELIABLE_CODECS:
        return f"codec {track.codec}"
    if track.open_groups:  # usual in HEVC: after a seek decord returns a neighbour of the frame asked for
        return "open groups of pictures"
    if track.video_streams != 1:
        return f"{track.video_streams} video streams"
    return None


def _clip(sampled: SampledFrames, reader: str, file: Path) -> VideoClip:
    return VideoClip(
        frames=sampled.frames,
        indices=tuple(sampled.indices),
        total_frames=sampled.total_frames,
        fps=sampled.fps,
        duration=sampled.duration,
        reader=reader,
        path=file,
    )


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
