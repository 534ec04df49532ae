"""Which files are opened as videos at all: local, regular, in a container that names no other file."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from llava.errors import VideoError

RECOPY = "copy or download the file again, or repair it with `ffmpeg -i IN OUT.mp4`"

# Demuxers of FFmpeg that read one file and nothing else. Playlists and scripts (hls, dash, concat, image2, rtsp, ...)
# are not among them: FFmpeg tells the demuxer by the file's content, whatever its name, before it opens another file.
CONTAINERS = (
    "3gp,amv,apng,asf,av1,avi,cavsvideo,dirac,dnxhd,dv,flv,gif,gxf,h261,h263,h264,hevc,ivf,kux,m4v,matroska,mjpeg,mlv,"
    "mov,mp4,mpeg,mpegts,mpegvideo,mxf,nsv,nut,obu,ogg,pva,rm,swf,ty,vc1,vc1test,vvc,webm,webp,wtv,yuv4mpegpipe"
)

# the most pixels of one picture: 8192 x 8192, twice what 8K video has
MAX_PIXELS = 8192 * 8192

_PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"<?xml", b"<MPD", b"<SmoothStreamingMedia", b"v=0", b"[playlist]", b"RTSPtext")


def check_file(path: Path) -> Path:
    """Return the absolute path of a readable local file that is not empty.

    Raises:
        VideoError: the path is absent, impossible, no regular file, empty or not readable.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise VideoError(f"{path}: no such file; check the path (the current folder is {Path.cwd()})") from None
    except (OSError, ValueError) as error:  # too long, through a file, a loop of links, a null byte
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        name = repr(str(path))[1:-1]
        raise VideoError(f"{name}: this path cannot be opened ({reason}); check the path") from None
    if stat.S_ISDIR(status.st_mode):
        raise VideoError(f"{path}: a folder, not a video file; name a file inside it")
    if not stat.S_ISREG(status.st_mode):
        raise VideoError(f"{path}: not a regular file; copy the video to a file first")
    if not os.access(path, os.R_OK):
        raise VideoError(f"{path}: no permission to read it; check the file's owner and mode")
    if status.st_size == 0:
        raise VideoError(f"{path}: the file is empty (0 bytes); copy or download it again")
    return path.absolute()  # absolute, so that FFmpeg takes no name for a protocol such as "concat:"


def open_container(path: Path) -> Any:
    """Open a checked file with PyAV, in one of ``CONTAINERS`` and with no way to any other file.

    The settings go to the container: handed to its streams as well (PyAV's ``options``), they are a segmentation fault
    in containers that announce their streams late (FLV, MPEG program streams). Those that state them in their head are
    told the bound on pictures too, because finding out about a stream may decode its first picture.

    Raises:
        VideoError: it is no video, or of a kind that names other files.
    """
    import av  # noqa: PLC0415

    allowed = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS, "err_detect": "crccheck"}
    bound = {"max_pixels": str(MAX_PIXELS)} if sniff_container(path) in {"mp4", "matroska", "avi"} else None
    try:
        # metadata in an old encoding must not make a video unreadable
        return av.open(str(path), options=bound, container_options=allowed, metadata_errors="replace")
    except (av.error.FFmpegError, UnicodeError) as error:
        raise VideoError(_unrecognised(path, error)) from error


def _unrecognised(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        head = file.read(512)
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(_PLAYLISTS):
        return f"{path}: a playlist or script, which names other files, is not opened; name the video file itself"
    container = sniff_container(path)
    if container == "mp4":
        return f"{path}: begins like an MP4 file but its index ('moov') is missing or broken; copy or download it again"
    if container is not None:
        return f"{path}: begins like a {container} file but cannot be opened ({error.__class__.__name__}); {RECOPY}"
    return f"{path}: not a video file (it begins with {head[:16]!r}); name a video such as an .mp4"


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
