"""What a video file is, found without decoding a frame: the early refusals, and the list of frames it shows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

from llava.errors import VideoError
from llava.video_files import MAX_PIXELS, RECOPY, open_container
from llava.video_structure import missing_bytes, structure_fault

# codecs in which every packet of an MP4 or Matroska file is one shown frame, so that packets tell the frames' times;
# VP8 and MPEG-4 have packets that show nothing, told by _shows_nothing; all others are counted by decoding them
COUNTABLE_CODECS = frozenset(
    {
        "h264",
        "hevc",
        "av1",
        "libdav1d",
        "libaom-av1",
        "vp8",
        "libvpx",
        "vp9",
        "libvpx-vp9",
        "mpeg4",
        "mjpeg",
        "prores",
        "ffv1",
        "vvc",
    }
)


@dataclass(frozen=True)
class VideoTrack:
    """The video stream of a file, as its packets tell it.

    Attributes:
        container: "mp4" (also MOV), "matroska" (also WebM), "avi", or FFmpeg's name of any other.
        codec: FFmpeg's name of the decoder.
        stream: index of the stream in the file.
        video_streams: number of video streams, cover pictures counted.
        width: width of a stored picture in pixels, before rotation.
        height: height of a stored picture in pixels, before rotation.
        packets: number of packets that are to be shown; the number of frames in all common codecs.
        times: presentation times of those packets, ascending, in the stream's units; None if not one per frame.
        keyframes: presentation times where decoding can start, ascending.
        duration: seconds from the first frame's start to the last frame's end.
        damage: what is wrong with the file, in words, or None.
    """

    container: str
    codec: str
    stream: int
    video_streams: int
    width: int
    height: int
    packets: int
    times: tuple[int, ...] | None
    keyframes: tuple[int, ...]
    duration: float
    damage: str | None


@dataclass(frozen=True)
class _Packets:
    """The packets of one stream: presentation time and duration of those shown, and where decoding can start."""

    shown: list[tuple[int | None, int]]
    keyframes: list[int]
    damage: str | None


def probe_track(path: Path) -> VideoTrack:
    """Read every packet of the file's video stream without decoding one.

    Raises:
        VideoError: the file is no video, holds sound or a cover picture only, or has no usable picture size.
    """
    with open_container(path) as container:
        stream = _pick_stream(path, container)
        codec = stream.codec_context
        if codec is not None and codec.width * codec.height > MAX_PIXELS:
            size = f"{codec.width} x {codec.height} pixels"
            raise VideoError(f"{path}: its pictures are {size}, the bound is {MAX_PIXELS} in all; scale the video down")
        # decoding such a stream is a segmentation fault inside FFmpeg, not an error: refuse it before
        if codec is None or codec.width < 1 or codec.height < 1 or codec.pix_fmt is None:
            words = f"no known picture size or codec, or more than {MAX_PIXELS} pixels in a picture (the bound)"
            raise VideoError(f"{path}: the video stream has {words}; {RECOPY}")
        packets = _scan_packets(container, stream)
        times = _usable_times(packets) if codec.name in COUNTABLE_CODECS else None
        duration = _duration(packets, times, stream)
        return VideoTrack(
            container=_container_name(container.format.name),
            codec=codec.name,
            stream=stream.index,
            video_streams=len(container.streams.video),
            width=codec.width,
            height=codec.height,
            packets=len(packets.shown),
            times=times,
            keyframes=tuple(sorted(packets.keyframes)),
            duration=duration,
            damage=packets.damage or _missing_end(path, container, stream, packets, times, duration),
        )


def _pick_stream(path: Path, container: Any) -> Any:
    import av  # noqa: PLC0415

    picture = av.stream.Disposition.attached_pic
    videos = [stream for stream in container.streams.video if not stream.disposition & picture]
    if videos:
        best = container.streams.best("video")
        return best if best in videos else videos[0]
    if container.streams.video:
        raise VideoError(f"{path}: its only picture is a cover picture, there is no video stream; name a video file")
    # PyAV reads the type of a stream without a decoder, which damage can make unknown, through a null pointer
    kinds = sorted({s.type if s.codec_context is not None else "unknown" for s in container.streams}) or ["nothing"]
    raise VideoError(f"{path}: no video stream (found: {', '.join(kinds)}); name a file that has one")


def _scan_packets(container: Any, stream: Any) -> _Packets:
    import av  # noqa: PLC0415

    shown: list[tuple[int | None, int]] = []
    keyframes: list[int] = []
    damage = None
    try:
        for packet in container.demux(stream):
            if packet.size == 0:  # the empty packet at the end that would flush a decoder
                continue
            if packet.is_corrupt:
                damage = f"its data ends or breaks off after {len(shown)} frames"
                break
            if packet.is_keyframe and packet.pts is not None:
                keyframes.append(packet.pts)
            if _shows_nothing(packet, stream.codec_context.name):
                continue
            if not packet.is_discard:  # cut off by an edit list: needed for decoding, never shown
                shown.append((packet.pts, packet.duration or 0))
    except av.error.FFmpegError:
        damage = f"its data breaks off after {len(shown)} frames"
    if not shown and damage is None:
        damage = "its video stream holds no frame"
    return _Packets(shown, keyframes, damage)


def _usable_times(packets: _Packets) -> tuple[int, ...] | None:
    """The times of all frames in ascending order, or None if one is unknown or two are equal."""
    times = sorted(time for time, _ in packets.shown if time is not None)
    if len(times) < len(packets.shown) or len(set(times)) < len(times):
        return None
    return tuple(times)


def _duration(packets: _Packets, times: tuple[int, ...] | None, stream: Any) -> float:
    rate = stream.average_rate or stream.guessed_rate
    if not times:
        return float(len(packets.shown) / rate) if rate else 0.0
    last = dict(packets.shown)[times[-1]]
    if last == 0 and len(times) > 1:
        gaps = sorted(after - before for before, after in pairwise(times))
        last = gaps[len(gaps) // 2]
    elif last == 0 and rate:
        last = int(1 / (rate * stream.time_base))
    return float((times[-1] + last - times[0]) * stream.time_base)


def _shows_nothing(packet: Any, codec: str) -> bool:
    """Whether a packet is a picture only others refer to (VP8's alternate reference) or no picture at all (MPEG-4)."""
    if codec in {"vp8", "libvpx"}:
        return not bytes(packet)[0] & 0x10  # RFC 6386, 9.1: show_frame
    return codec == "mpeg4" and packet.size <= 8  # a VOP that is not coded repeats the picture before it


def _missing_end(
    path: Path, container: Any, stream: Any, packets: _Packets, times: tuple[int, ...] | None, duration: float
) -> str | None:
    """Compare with the size and length the container states: a cut MKV or WebM reads without any error."""
    name = _container_name(container.format.name)
    found, stated = duration, None
    tag = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if name == "mp4" and stream.duration:
        stated = float(stream.duration * stream.time_base)
    elif name == "matroska" and tag:
        stated = int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
    elif name == "matroska" and container.duration and len(container.streams) == 1:
        stated = float(Fraction(container.duration, 1_000_000))
    if name == "matroska":  # which states when the video ends, not how long it is: it may begin late
        first = min((time for time, _ in packets.shown if time is not None), default=0)
        found += float(first * stream.time_base)
    if stated is not None and found < stated - _tolerance(times, duration, len(packets.shown), stream):
        return f"it states {stated:.1f} s of video but holds {found:.1f} s"
    missing = missing_bytes(path)
    if missing:
        return f"its last {missing} bytes are missing"
    return structure_fault(path, name, stream.id)


def _tolerance(times: tuple[int, ...] | None, duration: float, count: int, stream: Any) -> float:
    """Seconds that a stated length may exceed the found one: half a frame, or the longest where frames vary."""
    if times is None or len(times) < 3:
        return max(duration / max(count, 1), 0.1)
    gaps = sorted(after - before for before, after in pairwise(times))
    usual, longest = gaps[len(gaps) // 2], gaps[-1]
    frame = usual / 2 if longest <= 1.5 * usual else longest
    return float(frame * stream.time_base) + 0.002  # Matroska rounds to milliseconds


def _container_name(format_name: str) -> str:
    return {"mov,mp4,m4a,3gp,3g2,mj2": "mp4", "matroska,webm": "matroska"}.get(format_name, format_name)
