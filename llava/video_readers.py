"""The two decoders behind ``load_video``: PyAV, exact, and decord as the field's benchmarks use it."""

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
from llava.video_files import RECOPY, open_container
from llava.video_probe import MAX_PIXELS, VideoTrack

logger = logging.getLogger(__name__)

# elsewhere (MPEG-TS, ASF, AVI, FLV, raw streams) a seek may land behind the wanted frame, or on a wrong time
SEEKABLE_CONTAINERS = frozenset({"mp4", "matroska"})

MAX_FRAMES = 4096
MAX_BYTES = 8 << 30  # of all pictures returned

# Errors must be seen: a decoder stops at the first instead of inventing pictures. Concealment is not switched off with
# "ec": FFmpeg then marks whole H.264 pictures of several slices as corrupt.
STRICT = {"err_detect": "crccheck+bitstream+buffer+explode", "max_pixels": str(MAX_PIXELS)}

SINGLE_THREADED = frozenset({"mpeg1video", "mpeg2video"})

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


class _CorruptFrame(Exception):
    """The decoder marked a wanted frame as corrupt."""


class _Pictures:
    """The array that is returned, filled one frame at a time: no second copy of it is ever held."""

    def __init__(self, keys: Sequence[int], track: VideoTrack) -> None:
        self._places: dict[int, list[int]] = {}
        for place, key in enumerate(keys):
            self._places.setdefault(key, []).append(place)
        self._count = len(keys)
        self._track = track
        self._array: np.ndarray | None = None
        self.missing = set(keys)

    def put(self, key: int, frame: Any) -> None:
        """Convert a decoded frame into its places."""
        picture = _to_rgb(frame, self._track)
        if self._array is None:
            self._array = np.empty((self._count, *picture.shape), np.uint8)
        if picture.shape != self._array.shape[1:]:
            raise _CorruptFrame("its pictures turn in the middle")
        self._array[self._places[key]] = picture
        self.missing.discard(key)

    def frames(self) -> np.ndarray:
        """The array; every place must be filled."""
        assert self._array is not None
        assert not self.missing
        return self._array


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


def read_with_decord(path: Path, choose: FrameChoice, track: VideoTrack) -> SampledFrames:
    """Sample frames with decord, by its own count and seeks, as the field's evaluation harness does.

    Raises:
        VideoError: decord cannot read the file.
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
        fps = float(video.get_avg_fps())
        indices = _chosen(choose, total, fps, track, path)
        distinct, places = np.unique(indices, return_inverse=True)
        frames = video.get_batch(distinct.tolist()).asnumpy()
    except (decord.DECORDError, RuntimeError, IndexError) as error:
        reason = re.sub(r"\[[\d:]+\] \S+:\d+: ", "", str(error)).strip().partition("\n")[0]  # its source lines
        raise VideoError(f"{path}: decord cannot read it ({reason}); use reader='pyav' or 'auto'") from error
    frames = frames if len(distinct) == len(indices) else frames[places]
    return SampledFrames(frames, indices, total, fps, total / fps if fps > 0 else 0.0)


def read_with_pyav(path: Path, choose: FrameChoice, track: VideoTrack) -> SampledFrames:
    """Sample frames with PyAV: seek once per group of pictures, or decode in order where a seek is not to be trusted.

    Raises:
        VideoError: a frame that is needed cannot be decoded.
    """
    import av  # noqa: PLC0415

    try:
        if track.times is not None and track.container in SEEKABLE_CONTAINERS:
            fps = _rate(len(track.times), track)
            indices = _chosen(choose, len(track.times), fps, track, path)
            pictures = _Pictures([track.times[index] for index in indices], track)
            try:
                _decode_by_seeking(path, track, pictures)
            except (av.error.FFmpegError, _CorruptFrame) as error:  # damage, or a seek to where decoding cannot start
                logger.info("%s: %s after a seek", path, error)
            if not pictures.missing:
                return SampledFrames(pictures.frames(), indices, len(track.times), fps, track.duration)
            del pictures  # before the next ones take memory
            logger.info("%s: seeking misses frames; decoding it from the start", path)
        return _sample_in_order(path, choose, track)
    except (av.error.FFmpegError, _CorruptFrame) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise VideoError(f"{path}: the video is damaged{where_damaged(path, track, reason)}; {RECOPY}") from error


def where_damaged(path: Path, track: VideoTrack, reason: str | None = None) -> str:
    """In words: when the first bad frame is shown, and how many frames come before it; decodes up to it."""
    import av  # noqa: PLC0415

    count, first, bad = 0, None, None
    try:
        with _opened(path, track, threads=False) as (container, stream):  # one thread: the error is the packet's own
            for packet in container.demux(stream):
                bad = bad if packet.pts is None else packet.pts
                first = first if first is not None or packet.pts is None else packet.pts
                for frame in packet.decode():
                    if frame.is_corrupt:
                        bad = bad if frame.pts is None else frame.pts
                        raise _CorruptFrame(f"the frame at {frame.pts} is corrupt")
                    count += 1
            bad = None if track.times is None or count >= len(track.times) else track.times[count]
    except (av.error.FFmpegError, _CorruptFrame) as error:
        logger.debug("%s: decoding stopped after %d frames: %s", path, count, error)
    start = first or 0
    time = "" if bad is None else f" at {float((bad - start) * _time_base(path, track)):.2f} s"
    words = f"{time} ({reason})" if reason else time
    return f"{words}; of {track.packets} frames only the first {count} can be decoded"


def _time_base(path: Path, track: VideoTrack) -> Any:
    with open_container(path) as container:
        return container.streams[track.stream].time_base


def _chosen(choose: FrameChoice, total: int, fps: float, track: VideoTrack, path: Path) -> list[int]:
    """The rule's indices, refused when their pictures would not fit the bounds."""
    indices = [int(index) for index in choose(total, fps)]
    size = len(indices) * track.width * track.height * 3
    if len(indices) > MAX_FRAMES or size > MAX_BYTES:
        asked = f"{len(indices)} frames of {track.width} x {track.height} pixels are {size / (1 << 30):.1f} GiB"
        bound = f"the bounds are {MAX_FRAMES} frames and {MAX_BYTES >> 30} GiB"
        raise VideoError(f"{path}: {asked}, {bound}; sample fewer frames or scale the video down")
    return indices


def _decode_by_seeking(path: Path, track: VideoTrack, pictures: _Pictures) -> None:
    """Fill in pictures by presentation time; stops with some missing if one is not met where its time says."""
    starts = groupby(sorted(pictures.missing), key=lambda time: bisect_right(track.keyframes, time) - 1)
    with _opened(path, track) as (container, stream):
        for start, members in starts:
            wanted = set(members)
            last = max(wanted)
            if start < 0:
                return
            container.seek(track.keyframes[start], stream=stream, backward=True)
            for frame in _frames_from(container, stream, track.keyframes[start]):
                if frame.pts in wanted and frame.pts in pictures.missing:
                    if frame.is_corrupt:
                        raise _CorruptFrame("a frame is corrupt")
                    pictures.put(frame.pts, frame)
                if frame.pts is not None and frame.pts >= last:
                    break
            if wanted & pictures.missing:
                return


def _frames_from(container: Any, stream: Any, key: int) -> Iterator[Any]:
    """Decode from where the container stands, without the frames of an open group that need the group before."""
    for packet in container.demux(stream):
        if packet.pts is None or packet.pts >= key:
            yield from packet.decode()


def _sample_in_order(path: Path, choose: FrameChoice, track: VideoTrack) -> SampledFrames:
    """Decode from the first frame on. A second pass is needed only if packets are not frames one to one."""
    total = track.packets
    while True:
        indices = _chosen(choose, total, _rate(total, track), track, path)
        pictures = _Pictures(indices, track)
        count = _decode_in_order(path, track, pictures)
        if count == total:
            return SampledFrames(pictures.frames(), indices, total, _rate(total, track), track.duration)
        if count == 0 or total != track.packets:
            raise VideoError(f"{path}: {track.packets} video packets decode to {count} frames; {RECOPY}")
        total = count
        del pictures


def _decode_in_order(path: Path, track: VideoTrack, pictures: _Pictures) -> int:
    count = 0
    with _opened(path, track) as (container, stream):
        for index, frame in enumerate(container.decode(stream)):
            if frame.is_corrupt:
                raise _CorruptFrame(f"frame {index} is corrupt")
            if index in pictures.missing:
                pictures.put(index, frame)
            count = index + 1
    return count


@contextmanager
def _opened(path: Path, track: VideoTrack, threads: bool = True) -> Iterator[tuple[Any, Any]]:
    with open_container(path) as container:
        stream = container.streams[track.stream]
        stream.codec_context.options = STRICT
        # the default leaves most codecs on one core; the slices of intact MPEG-2 are errors on several
        stream.thread_type = "AUTO" if threads and track.codec not in SINGLE_THREADED else "NONE"
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
    return np.rot90(rgb.to_ndarray(), round(frame.rotation / 90))


def _rate(total: int, track: VideoTrack) -> float:
    return total / track.duration if track.duration > 0 else 0.0
