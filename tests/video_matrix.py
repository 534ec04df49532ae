"""Frame numbers by container, codec, order of pictures and reader, with the command ``ffmpeg`` as the judge.

    python -m tests.video_matrix

ffmpeg writes clips whose frames carry their number, and decodes each from start to end: what it shows is the truth. A
cell is "right" if eight frames carry the numbers of the truth at their indices and the count is the truth's too, else
"WRONG", or "refused". decord as it is may be wrong; the status is 1 if another reader is. A Markdown table comes first,
the last line is JSON. The suite runs six clips.
"""

from __future__ import annotations

import argparse
import functools
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.instruments.cli import provenance
from eval.instruments.kinds import stamped
from llava.errors import InputError
from llava.video import load_video
from tests.clips import number_of, picture

READERS = ("pyav", "decord", "decord-as-is")
FRAMES, WIDTH, HEIGHT = 48, 96, 64
_X264 = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "12"]
_X265 = ["-c:v", "libx265", "-preset", "ultrafast", "-crf", "14", "-x265-params"]
_PARTS = ["-b:v", "2M"]
# codec: its containers, and ffmpeg's arguments for each order of pictures
CODECS: dict[str, tuple[tuple[str, ...], dict[str, list[str]]]] = {
    "h264": (("mp4", "mov", "mkv", "avi", "ts", "flv"), {
        "closed": [*_X264, "-g", "12", "-bf", "0"],
        "open": [*_X264, "-g", "12", "-bf", "2", "-x264-params", "open-gop=1"],
        "b-frames": [*_X264, "-g", "12", "-bf", "3", "-b_strategy", "0"],
        "intra": [*_X264, "-g", "1"],
        "long": [*_X264, "-g", "400", "-bf", "2"],
        "interlaced": [*_X264, "-g", "12", "-flags", "+ildct+ilme"],
        "variable-rate": [*_X264, "-g", "12", "-bf", "2", "-vf", "select=not(eq(mod(n\\,7)\\,3))"],
    }),
    "hevc": (("mp4", "mkv", "ts"), {
        "closed": [*_X265, "keyint=12:open-gop=0:bframes=0:log-level=none"],
        "open": [*_X265, "keyint=12:open-gop=1:bframes=3:log-level=none"],
        "intra": [*_X265, "keyint=1:log-level=none"],
    }),
    "mpeg4": (("mp4", "mkv", "avi"), {
        "closed": ["-c:v", "mpeg4", *_PARTS, "-g", "12"],
        "b-frames": ["-c:v", "mpeg4", *_PARTS, "-g", "12", "-bf", "2"],
    }),
    "mpeg2": (("mpg", "ts", "mkv"), {
        "closed": ["-c:v", "mpeg2video", *_PARTS, "-g", "12", "-flags", "+cgop", "-sc_threshold", "1000000000"],
        "b-frames": ["-c:v", "mpeg2video", *_PARTS, "-g", "12", "-bf", "2"],
    }),
    "vp8": (("webm", "mkv"), {
        "closed": ["-c:v", "libvpx", *_PARTS, "-g", "12", "-cpu-used", "8", "-deadline", "realtime"],
        "hidden": ["-c:v", "libvpx", *_PARTS, "-auto-alt-ref", "1", "-lag-in-frames", "16", "-cpu-used", "5"],
    }),
    "vp9": (("webm", "mp4"), {
        "closed": ["-c:v", "libvpx-vp9", *_PARTS, "-g", "12", "-cpu-used", "8", "-deadline", "realtime"],
        "hidden": ["-c:v", "libvpx-vp9", *_PARTS, "-auto-alt-ref", "1", "-lag-in-frames", "16", "-cpu-used", "5"],
    }),
    "mjpeg": (("avi", "mov", "mkv"), {"intra": ["-c:v", "mjpeg", "-q:v", "3"]}),
}  # fmt: skip
# made of another clip without encoding it again
DERIVED = {
    "mp4 h264 rotated": ("mp4 h264 closed", ["-metadata:s:v", "rotate=90"]),
    "mov h264 rotated": ("mov h264 closed", ["-metadata:s:v", "rotate=270"]),
    "mp4 h264 edit-list": ("mp4 h264 b-frames", ["-ss", "0.7"]),
    "mov h264 edit-list": ("mov h264 b-frames", ["-ss", "0.7"]),
}


def kinds() -> Iterator[str]:
    """ "container codec order" of all clips."""
    for codec, (containers, orders) in CODECS.items():
        yield from (f"{container} {codec} {order}" for order in orders for container in containers)
    yield from DERIVED


@functools.cache
def _source() -> bytes:
    return b"".join(picture(number, WIDTH, HEIGHT).tobytes() for number in range(FRAMES))


def _ffmpeg(*arguments: str, data: bytes | None = None) -> bytes:
    command = ["ffmpeg", "-v", "error", "-y", *arguments]
    return subprocess.run(command, input=data or b"", capture_output=True, check=True).stdout


def make_clip(folder: Path, kind: str) -> Path:
    """Write one of :func:`kinds`."""
    container, codec, order = kind.split()
    path = folder / f"{codec}_{order}.{container}"
    if kind in DERIVED:
        base, arguments = DERIVED[kind]
        before, after = (arguments, []) if arguments[0] == "-ss" else ([], arguments)
        _ffmpeg(*before, "-i", str(make_clip(folder, base)), *after, "-c", "copy", str(path))
        return path
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", "25", "-i", "-"]
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    timing = ["-vsync", "vfr"] if order == "variable-rate" else []
    _ffmpeg(*raw, *CODECS[codec][1][order], *timing, "-pix_fmt", pixels, str(path), data=_source())
    return path


def _number(image: np.ndarray, path: Path) -> int:
    """The number of an upright frame; that of a clip said to lie on its side stands on an edge."""
    if "rotated" in path.name:
        image = np.rot90(image, 1 if path.suffix == ".mov" else 3)
    return number_of(image)


def truth(path: Path) -> list[int]:
    """The numbers of all frames as ffmpeg shows them, in order."""
    data = _ffmpeg("-i", str(path), "-vsync", "passthrough", "-f", "image2pipe", "-c:v", "ppm", "-")
    numbers, place = [], 0
    while place < len(data):
        magic, size, _, _ = data[place : place + 40].split(b"\n", 3)
        width, height = map(int, size.split())
        place += len(magic) + len(size) + 6
        image = np.frombuffer(data, np.uint8, width * height * 3, place).reshape(height, width, 3)
        numbers.append(_number(image, path))
        place += image.size
    return numbers


def verdict(path: Path, numbers: Sequence[int], reader: Any) -> str:
    """ "right", "WRONG" or "refused"."""
    try:
        clip = load_video(path, 8, reader)
    except InputError:
        return "refused"
    if clip.total_frames != len(numbers):
        return "WRONG"
    shown = [_number(frame, path) for frame in clip.frames]
    return "right" if shown == [numbers[index] for index in clip.indices] else "WRONG"


def matrix(chosen: Sequence[str], readers: Sequence[str] = READERS) -> dict[str, dict[str, str]]:
    """Clip to reader to verdict."""
    cells = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in chosen:
            path = make_clip(Path(folder), kind)
            numbers = truth(path)
            assert len(set(numbers)) > FRAMES // 3, f"{kind}: the judge sees {numbers}"
            cells[kind] = {reader: verdict(path, numbers, reader) for reader in readers}
    return cells


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(arguments)
    if shutil.which("ffmpeg") is None:
        parser.error("the command ffmpeg is not installed: it writes the clips and judges them")
    cells = matrix(list(kinds()))
    lines = ["| container | codec | pictures | " + " | ".join(READERS) + " |", "|---" * (3 + len(READERS)) + "|"]
    lines += [f"| {' | '.join([*kind.split(), *found.values()])} |" for kind, found in cells.items()]
    counts = {reader: dict(Counter(found[reader] for found in cells.values())) for reader in READERS}
    result = {**provenance(), "cells": len(cells) * len(READERS), "counts": counts, "verdicts": cells}
    sys.stdout.write("\n".join(lines) + "\n" + json.dumps(stamped("video_matrix", result)) + "\n")
    sys.exit(any(counts[reader].get("WRONG") for reader in ("pyav", "decord")))


if __name__ == "__main__":
    main()
