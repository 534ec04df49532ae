"""The two decoders behind ``load_video``: decord, and PyAV with one seek per group of pictures."""

from __future__ import annotations

import logging
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from llava.errors import InputError, VideoError
from llava.video_probe import RECOPY, VideoTrack, open_container

logger = logging.getLogger(__name__)

# elsewhere (MPEG-TS, ASF, AVI, raw streams) a seek may land behind the wanted frame, or on a wrong time
SEEKABLE_CONTAINERS = frozenset({"mp4", "matroska"})

# FFmpeg's numbers of YUV matrices that differ from the default BT.601: BT.709, FCC, SMPTE 240M, BT.2020 (two forms).
# PyAV converts with BT.601 unless told otherwise; decord follows the frame.
YUV_MATRICES = {1: 1, 4: 4, 7: 7, 9: 9, 10: 9}
BT601 = 5
FULL_RANGE = 2

FrameChoice = Callable[[int, float], Sequence[int]]  # (total_frames, fps) to ascending frame indices


@dataclass(frozen=True, eq=False)
class SampledFrames:
    """What a reader returns: uint8 frames (num_frames, height, width, 3), their indices, and the video's length."""

    frames: np.ndarray
    indices: list[int]
    total_frames: int
    fps: float
    duration: float


class DecordRefusal(Exception):
    """decord failed, or its count of frames shows that it would return wrong ones; another reader may succeed."""


class _CorruptFrame(Exception):
    """The decoder marked a wanted frame as corrupt."""


def uniform_indices(total_frames: int, num_frames: int) -> list[int]:
    """Evenly spaced frame indices, first and last included, rounded down, as the LLaVA-OneVision evaluation samples.

    Args:
        total_frames: length of the video in frames, at least 1.
        num_frames: how many indices to return, at least 1; an index repeats when the video is shorter.

    Raises:
        InputError: an argument is below 1.
    """
    for name, value in (("total_frames", total_frames), ("num_frames", num_frames)):
        if value < 1:
            raise InputError(f"{name} is {value}; it must be at least 1")
    return np.linspace(0, total_frames - 1, num_frames, dtype=int).tolist()


def read_with_decord(path: Path, choose: FrameChoice, track: VideoTrack | None) -> SampledFrames:
    """Sample frames with decord; ``track`` (None if PyAV is missing) tells how many frames there must be.

    Raises:
        DecordRefusal: decord cannot read the file, or counts frames that are never shown.
        InputError: decord is not installed.
    """
    try:
        import decord  # noqa: PLC0415
    except ImportError as error:
        raise InputError("decord is not installed: pip install 'holitom[video]'") from error

    decord.logging.set_level(decord.logging.QUIET)  # else its FFmpeg writes to the terminal; errors still raise
    try:
        video = decord.VideoReader(str(path), ctx=decord.cpu(0))
        total = len(video)
        _check_decord_count(video, total, track)
        fps = float(video.get_avg_fps()) if track is None else _rate(total, track)
        indices = list(choose(total, fps))
        distinct, places = np.unique(indices, return_inverse=True)
        # without PyAV nobody knows where a seek is safe
        pictures = _next_pictures(video, distinct) if track is None else video.get_batch(distinct.tolist()).asnumpy()
        frames = pictures[places]
    except (decord.DECORDError, RuntimeError, IndexError) as error:
        reason = re.sub(r"\[[\d:]+\] \S+:\d+: ", "", str(error)).strip().partition("\n")[0]  # its source lines
        raise DecordRefusal(f"decord cannot read it ({reason})") from error
    if track is not None:
        return SampledFrames(frames, indices, total, fps, track.duration)
    return SampledFrames(frames, indices, total, fps, total / fps if fps > 0 else 0.0)


def _check_decord_count(video: Any, total: int, track: VideoTrack | None) -> None:
    """Refuse files with an edit list: decord counts the frames it cuts off and repeats others in their place."""
    if total < 1:
        raise DecordRefusal("decord finds no frame in it")
    if track is not None and total != track.packets:
        raise DecordRefusal(f"decord counts {total} frames where the file shows {track.packets}")
    if track is None and video.get_frame_timestamp(0)[0] < 0:
        raise DecordRefusal("an edit list hides its first frames, which decord does not respect")


def _next_pictures(video: Any, indices: np.ndarray) -> np.ndarray:
    """Decode in order up to the last index, never seeking, and return the wanted pictures."""
    wanted = set(indices.tolist())
    pictures = []
    for index in range(int(indices[-1]) + 1):
        picture = video.next()
        if index in wanted:
            pictures.append(picture.asnumpy())
    return np.stack(pictures)


def read_with_pyav(path: Path, choose: FrameChoice, track: VideoTrack) -> SampledFrames:
    """Sample frames with PyAV: seek once per group of pictures, or decode in order where a seek is not to be trusted.

    Raises:
        VideoError: a frame that is needed cannot be decoded.
    """
    import av  # noqa: PLC0415

    try:
        if track.times is not None and track.container in SEEKABLE_CONTAINERS:
            fps = _rate(len(track.times), track)
            indices = list(choose(len(track.times), fps))
            pictures = _decode_by_seeking(path, track, [track.times[index] for index in indices])
            if pictures is not None:
                frames = np.stack([pictures[track.times[index]] for index in indices])
                return SampledFrames(frames, indices, len(track.times), fps, track.duration)
            logger.info("%s: seeking misses frames; decoding it from the start", path)
        return _sample_in_order(path, choose, track)
    except (av.error.FFmpegError, _CorruptFrame) as error:
        reason = getattr(error, "strerror", None) or str(error)
        message = f"{path}: the video is damaged ({reason}); of {track.packets} frames only the first"
        raise VideoError(f"{message} {count_decodable(path, track)} can be decoded; {RECOPY}") from error


def count_decodable(path: Path, track: VideoTrack) -> int:
    """How many frames decode from the start until the first error."""
    import av  # noqa: PLC0415

    count = 0
    try:
        with _opened(path, track) as (container, stream):
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    break
                count += 1
    except av.error.FFmpegError as error:
        logger.debug("%s: decoding stopped after %d frames: %s", path, count, error)
    return count


def _decode_by_seeking(path: Path, track: VideoTrack, times: Sequence[int]) -> dict[int, np.ndarray] | None:
    """Pictures by presentation time, or None if one is not met where its time says it should be."""
    pictures: dict[int, np.ndarray] = {}
    starts = groupby(sorted(set(times)), key=lambda time: bisect_right(track.keyframes, time) - 1)
    with _opened(path, track) as (container, stream):
        for start, members in starts:
            if start < 0:
                return None
            missing = set(members)
            last = max(missing)
            container.seek(track.keyframes[start], stream=stream, backward=True)
            for frame in container.decode(stream):
                if frame.pts in missing and not frame.is_corrupt:
                    pictures[frame.pts] = _to_rgb(frame, track)
                    missing.discard(frame.pts)
                if not missing or (frame.pts is not None and frame.pts > last):
                    break
            if missing:
                return None
    return pictures


def _sample_in_order(path: Path, choose: FrameChoice, track: VideoTrack) -> SampledFrames:
    """Decode from the first frame on. A second pass is needed only if packets are not frames one to one."""
    total = track.packets
    while True:
        indices = list(choose(total, _rate(total, track)))
        pictures, count = _decode_in_order(path, track, frozenset(indices))
        if count == total:
            frames = np.stack([pictures[index] for index in indices])
            return SampledFrames(frames, indices, total, _rate(total, track), track.duration)
        if count == 0 or total != track.packets:
            raise VideoError(f"{path}: {track.packets} video packets decode to {count} frames; {RECOPY}")
        total = count


def _decode_in_order(path: Path, track: VideoTrack, wanted: frozenset[int]) -> tuple[dict[int, np.ndarray], int]:
    pictures: dict[int, np.ndarray] = {}
    count = 0
    with _opened(path, track) as (container, stream):
        for index, frame in enumerate(container.decode(stream)):
            if index in wanted:
                if frame.is_corrupt:
                    raise _CorruptFrame(f"frame {index} is corrupt")
                pictures[index] = _to_rgb(frame, track)
            count = index + 1
    return pictures, count


@contextmanager
def _opened(path: Path, track: VideoTrack) -> Iterator[tuple[Any, Any]]:
    with open_container(path) as container:
        stream = container.streams[track.stream]
        stream.thread_type = "AUTO"  # before the first decode; the default leaves most codecs on one core
        yield container, stream


def _to_rgb(frame: Any, track: VideoTrack) -> np.ndarray:
    """The upright picture, with the frame's own colour matrix and range, and decord's rule of one size per video."""
    matrix = YUV_MATRICES.get(int(frame.colorspace), BT601)
    rgb = frame.reformat(
        width=track.width,
        height=track.height,
        format="rgb24",
        src_colorspace=matrix,
        dst_colorspace=BT601,  # RGB has no matrix, but the default None would mean: leave the source matrix alone
        src_color_range=FULL_RANGE if int(frame.color_range) == FULL_RANGE else None,
    )
    return np.ascontiguousarray(np.rot90(rgb.to_ndarray(), round(frame.rotation / 90)))


def _rate(total: int, track: VideoTrack) -> float:
    return total / track.duration if track.duration > 0 else 0.0
