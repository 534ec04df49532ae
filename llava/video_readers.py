"""The two decoders behind ``load_video``: PyAV, exact, and decord as the field's benchmarks use it."""

from __future__ import annotations

import logging
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from llava.errors import InputError, VideoError
from llava.video_decoding import CorruptFrame, Decoder, opened, to_rgb, where_damaged
from llava.video_files import RECOPY
from llava.video_probe import VideoTrack

logger = logging.getLogger(__name__)

# elsewhere (MPEG-TS, ASF, AVI, FLV, raw streams) a seek may land behind the wanted frame, or on a wrong time
SEEKABLE_CONTAINERS = frozenset({"mp4", "matroska"})

MAX_FRAMES = 4096
MAX_BYTES = 8 << 30  # of all pictures returned

FrameChoice = Callable[[int, float], Sequence[int]]  # (total_frames, fps) to ascending frame indices


@dataclass(frozen=True, eq=False)
class SampledFrames:
    """What a reader returns: uint8 frames (num_frames, height, width, 3), their indices, and the video's length."""

    frames: np.ndarray
    indices: list[int]
    total_frames: int
    fps: float
    duration: float


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
        picture = to_rgb(frame, self._track)
        if self._array is None:
            self._array = np.empty((self._count, *picture.shape), np.uint8)
        if picture.shape != self._array.shape[1:]:
            raise CorruptFrame("its pictures turn in the middle")
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
            except (av.error.FFmpegError, CorruptFrame) as error:  # damage, or a seek to where decoding cannot start
                logger.info("%s: %s after a seek", path, error)
            if not pictures.missing:
                return SampledFrames(pictures.frames(), indices, len(track.times), fps, track.duration)
            del pictures  # before the next ones take memory
            logger.info("%s: seeking misses frames; decoding it from the start", path)
        return _sample_in_order(path, choose, track)
    except (av.error.FFmpegError, CorruptFrame) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise VideoError(f"{path}: the video is damaged{where_damaged(path, track, reason)}; {RECOPY}") from error


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
    with opened(path, track) as decoder:
        for start, members in starts:
            wanted = set(members)
            last = max(wanted)
            if start < 0:
                return
            decoder.container.seek(track.keyframes[start], stream=decoder.stream, backward=True)
            for frame in _frames_from(decoder, track.keyframes[start]):
                if frame.pts in wanted and frame.pts in pictures.missing:
                    if frame.is_corrupt:
                        raise CorruptFrame("a frame is corrupt")
                    pictures.put(frame.pts, frame)
                if frame.pts is not None and frame.pts >= last:
                    break
            if wanted & pictures.missing:
                return


def _frames_from(decoder: Decoder, key: int) -> Iterator[Any]:
    """Decode from where the container stands, without the frames of an open group that need the group before."""
    for packet in decoder.container.demux(decoder.stream):
        if packet.pts is None or packet.pts >= key:
            yield from decoder.frames(packet)


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
    with opened(path, track) as decoder:
        for index, frame in enumerate(decoder):
            if frame.is_corrupt:
                raise CorruptFrame(f"frame {index} is corrupt")
            if index in pictures.missing:
                pictures.put(index, frame)
            count = index + 1
    return count


def _rate(total: int, track: VideoTrack) -> float:
    return total / track.duration if track.duration > 0 else 0.0
