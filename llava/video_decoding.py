"""Decoding with errors that are seen: how streams are opened, what checks them, and where they break."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from llava.video_files import MAX_PIXELS, open_container
from llava.video_probe import VideoTrack
from llava.video_slices import SliceChecker, plane_samples

logger = logging.getLogger(__name__)

# Errors must be seen: a decoder stops at the first instead of inventing pictures. Concealment is not switched off with
# "ec": FFmpeg then marks whole H.264 pictures of several slices as corrupt.
STRICT = {"err_detect": "crccheck+bitstream+buffer+explode", "max_pixels": str(MAX_PIXELS)}

SINGLE_THREADED = frozenset({"mpeg1video", "mpeg2video"})

# FFmpeg's numbers of YUV matrices that differ from the default BT.601: BT.709, FCC, SMPTE 240M, BT.2020 (two forms).
# PyAV converts with BT.601 unless told otherwise; decord follows the frame.
YUV_MATRICES = {1: 1, 4: 4, 7: 7, 9: 9, 10: 9}
BT601 = 5
FULL_RANGE = 2

# FFmpeg's own decoders of these take damaged data without a word; libvpx notes data that end too early, and goes on
# otherwise where they break: intact streams give both the same bits
CHECKERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


class CorruptFrame(Exception):
    """The decoder marked a wanted frame as corrupt."""


class Decoder:
    """The packets of an open stream as frames, in a second decoder too where that one sees more damage."""

    def __init__(self, container: Any, stream: Any, track: VideoTrack) -> None:
        import av  # noqa: PLC0415

        self.container = container
        self.stream = stream
        self._slices = SliceChecker(track.codec, stream.codec_context, STRICT)
        self._checker: Any = None
        self._checked: dict[int, Any] = {}
        name = CHECKERS.get(track.codec)
        pixels = stream.codec_context.format
        # libvpx may be built for 8 bits alone, and says of intact streams with more that they are damaged
        if name in av.codecs_available and pixels is not None and pixels.components[0].bits == 8:
            self._checker = av.CodecContext.create(name, "r")
            self._checker.options = {"max_pixels": str(MAX_PIXELS)}
            self._checker.extradata = stream.codec_context.extradata

    def frames(self, packet: Any) -> list[Any]:
        """The frames that are complete with this packet.

        Raises:
            FFmpegError: the data are damaged.
            CorruptFrame: they ask for more memory than there is, hold what no encoder writes, or two decoders make
                different pictures of them.
        """
        fault = self._slices.fault(packet)
        if fault is not None:
            raise CorruptFrame(fault)
        try:
            if self._checker is not None and packet.size:
                self._checked.update((frame.pts, frame) for frame in self._checker.decode(packet))
            frames = packet.decode()
        except MemoryError as error:  # libvpx's word for a picture size that cannot be
            raise CorruptFrame("no memory for a picture of this size") from error
        for frame in frames:  # FFmpeg's threads give them later than libvpx
            other = self._checked.pop(frame.pts, None)
            if other is not None and frame.format.name == other.format.name and not _same_planes(frame, other):
                raise CorruptFrame("two decoders disagree on a picture")
        return frames

    def __iter__(self) -> Iterator[Any]:
        for packet in self.container.demux(self.stream):
            yield from self.frames(packet)


def _same_planes(frame: Any, other: Any) -> bool:
    """Whether two pictures of one format of 8 bits are the same to the bit. (One with transparency is not compared.)"""
    if (frame.width, frame.height) != (other.width, other.height):
        return False
    return all(
        np.array_equal(plane_samples(mine, 1), plane_samples(theirs, 1))
        for mine, theirs in zip(frame.planes, other.planes, strict=True)
    )


@contextmanager
def opened(path: Path, track: VideoTrack, threads: bool = True) -> Iterator[Decoder]:
    """A file's stream, ready to decode, in FFmpeg's threads unless told otherwise."""
    with open_container(path) as container:
        stream = container.streams[track.stream]
        stream.codec_context.options = STRICT
        # the default leaves most codecs on one core; the slices of intact MPEG-2 are errors on several
        stream.thread_type = "AUTO" if threads and track.codec not in SINGLE_THREADED else "NONE"
        yield Decoder(container, stream, track)


def to_rgb(frame: Any, track: VideoTrack) -> np.ndarray:
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


def where_damaged(path: Path, track: VideoTrack, reason: str | None = None) -> str:
    """In words: when the first bad frame is shown, and how many frames come before it; decodes up to it."""
    import av  # noqa: PLC0415

    count, first, bad = 0, None, None
    try:
        with opened(path, track, threads=False) as decoder:  # one thread: the error is the packet's own
            for packet in decoder.container.demux(decoder.stream):
                bad = bad if packet.pts is None else packet.pts
                first = first if first is not None or packet.pts is None else packet.pts
                for frame in decoder.frames(packet):
                    if frame.is_corrupt:
                        bad = bad if frame.pts is None else frame.pts
                        raise CorruptFrame(f"the frame at {frame.pts} is corrupt")
                    count += 1
            bad = None if track.times is None or count >= len(track.times) else track.times[count]
    except (av.error.FFmpegError, CorruptFrame) as error:
        logger.debug("%s: decoding stopped after %d frames: %s", path, count, error)
    start = first or 0
    time = "" if bad is None else f" at {float((bad - start) * _time_base(path, track)):.2f} s"
    words = f"{time} ({reason})" if reason else time
    return f"{words}; of {track.packets} frames only the first {count} can be decoded"


def _time_base(path: Path, track: VideoTrack) -> Any:
    with open_container(path) as container:
        return container.streams[track.stream].time_base
