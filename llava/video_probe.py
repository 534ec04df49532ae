"""What a video file is, found without decoding a frame: the early refusals, and the list of frames it shows."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

from llava.errors import VideoError

DECORD_CONTAINERS = frozenset({"mp4", "matroska", "avi"})
RECOPY = "copy or download the file again, or repair it with `ffmpeg -i IN OUT.mp4`"

# what a container may state beyond the last frame found, in seconds; beyond this the file has been cut
LENGTH_TOLERANCE = 0.5


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
        open_groups: whether frames shown before a keyframe are stored after it, so that they need the group before.
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
    open_groups: bool
    duration: float
    damage: str | None


@dataclass(frozen=True)
class _Packets:
    """The packets of one stream: presentation time and duration of those shown, and where decoding can start."""

    shown: list[tuple[int | None, int]]
    keyframes: list[int]
    open_groups: bool
    damage: str | None


def check_file(path: Path) -> Path:
    """Return the absolute path of a readable file that is not empty.

    Raises:
        VideoError: the path is absent, no regular file, empty or not readable.
    """
    if path.is_dir():
        raise VideoError(f"{path}: a folder, not a video file; name a file inside it")
    if not path.exists():
        raise VideoError(f"{path}: no such file; check the path (the current folder is {Path.cwd()})")
    if not path.is_file():
        raise VideoError(f"{path}: not a regular file; copy the video to a file first")
    if not os.access(path, os.R_OK):
        raise VideoError(f"{path}: no permission to read it; check the file's owner and mode")
    if path.stat().st_size == 0:
        raise VideoError(f"{path}: the file is empty (0 bytes); copy or download it again")
    return path.absolute()  # absolute, so that FFmpeg takes no name for a protocol such as "concat:"


def sniff_container(path: Path) -> str | None:
    """Tell the container by the file's first bytes: "mp4", "matroska", "avi", "mpegts", "asf", or None."""
    with path.open("rb") as file:
        head = file.read(512)
    if head[4:8] in {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"}:
        return "mp4"
    if head[:4] == bytes.fromhex("1a45dfa3"):
        return "matroska"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if head[:1] == b"G" and head[188:189] in {b"G", b""}:
        return "mpegts"
    return "asf" if head[:4] == bytes.fromhex("3026b275") else None


def open_container(path: Path) -> Any:
    """Open a file with PyAV; other files and network addresses it may name (playlists) are out of reach."""
    import av  # noqa: PLC0415

    # metadata in an old encoding must not make a video unreadable
    return av.open(str(path), options={"protocol_whitelist": "file"}, metadata_errors="replace")


def probe_track(path: Path) -> VideoTrack:
    """Read every packet of the file's video stream without decoding one.

    Raises:
        VideoError: the file is no video, holds sound or a cover picture only, or has no usable picture size.
    """
    import av  # noqa: PLC0415

    try:
        container = open_container(path)
    except av.error.FFmpegError as error:
        raise VideoError(_unrecognised(path, error)) from error
    with container:
        stream = _pick_stream(path, container)
        codec = stream.codec_context
        # decoding such a stream is a segmentation fault inside FFmpeg, not an error: refuse it before
        if codec is None or codec.width < 1 or codec.height < 1 or codec.pix_fmt is None:
            raise VideoError(f"{path}: the video stream has no known picture size or codec; {RECOPY}")
        packets = _scan_packets(container, stream)
        times = _usable_times(packets)
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
            open_groups=packets.open_groups,
            duration=duration,
            damage=packets.damage or _missing_end(container, stream, duration),
        )


def _unrecognised(path: Path, error: Exception) -> str:
    container = sniff_container(path)
    if container == "mp4":
        return f"{path}: begins like an MP4 file but its index ('moov') is missing or broken; copy or download it again"
    if container is not None:
        return f"{path}: begins like a {container} file but cannot be opened ({error.__class__.__name__}); {RECOPY}"
    with path.open("rb") as file:
        head = file.read(16)
    return f"{path}: not a video file (it begins with {head!r}); name a video such as an .mp4"


def _pick_stream(path: Path, container: Any) -> Any:
    import av  # noqa: PLC0415

    picture = av.stream.Disposition.attached_pic
    videos = [stream for stream in container.streams.video if not stream.disposition & picture]
    if videos:
        best = container.streams.best("video")
        return best if best in videos else videos[0]
    if container.streams.video:
        raise VideoError(f"{path}: its only picture is a cover picture, there is no video stream; name a video file")
    kinds = sorted({stream.type for stream in container.streams}) or ["nothing"]
    raise VideoError(f"{path}: no video stream (found: {', '.join(kinds)}); name a file that has one")


def _scan_packets(container: Any, stream: Any) -> _Packets:
    import av  # noqa: PLC0415

    shown: list[tuple[int | None, int]] = []
    keyframes: list[int] = []
    open_groups = False
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
            elif keyframes and packet.pts is not None and packet.pts < keyframes[-1]:
                open_groups = True
            if not packet.is_discard:  # cut off by an edit list: needed for decoding, never shown
                shown.append((packet.pts, packet.duration or 0))
    except av.error.FFmpegError:
        damage = f"its data breaks off after {len(shown)} frames"
    if not shown and damage is None:
        damage = "its video stream holds no frame"
    return _Packets(shown, keyframes, open_groups, damage)


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


def _missing_end(container: Any, stream: Any, found: float) -> str | None:
    """Compare with the length the container states: an MKV or WebM that has been cut reads without any error."""
    name = _container_name(container.format.name)
    stated = None
    tag = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if tag:
        stated = int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
    elif name == "mp4" and stream.duration:
        stated = float(stream.duration * stream.time_base)
    elif name == "matroska" and container.duration and len(container.streams) == 1:
        stated = float(Fraction(container.duration, 1_000_000))
    if stated is None or found >= stated - LENGTH_TOLERANCE:
        return None
    return f"it states {stated:.1f} s of video but holds {found:.1f} s"


def _container_name(format_name: str) -> str:
    return {"mov,mp4,m4a,3gp,3g2,mj2": "mp4", "matroska,webm": "matroska"}.get(format_name, format_name)
