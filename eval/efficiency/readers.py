"""Time of the video readers on files of several kinds and lengths, beside decord's in one run.

    python -m eval.efficiency.readers --seconds 10 60 --frames 8 32 128

Clips of moving colours are written with PyAV; every reader of :func:`llava.video.load_video` then samples frames of
each, in turn, in one run. Wall time and CPU time (all threads) are medians; the ratio is
to "decord-as-is", which is decord with the probe that names the file's kind. Last line: JSON with the numbers.
"""

import argparse
import json
import statistics
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import numpy as np

from eval.instruments.cli import Count, Parser, provenance, user_errors
from eval.instruments.kinds import stamped
from eval.instruments.measure import interleaved
from llava.errors import InputError
from llava.video import ReaderChoice, load_video

# name: codec, its options, frames from one key picture to the next
KINDS: dict[str, tuple[str, dict[str, str], int]] = {
    "h264.mp4": ("libx264", {"preset": "veryfast", "bf": "2"}, 250),
    "h264.mkv": ("libx264", {"preset": "veryfast", "bf": "2"}, 50),
    "hevc.mp4": ("libx265", {"preset": "veryfast", "x265-params": "log-level=none"}, 50),
    "vp9.webm": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "b": "500000"}, 128),
    "mpeg4.avi": ("mpeg4", {"b": "1000000"}, 12),
    "h264.ts": ("libx264", {"preset": "veryfast"}, 50),
}
RATE = 25
BASE: ReaderChoice = "decord-as-is"
READERS: tuple[ReaderChoice, ...] = ("pyav", BASE, "decord")


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--kinds", choices=KINDS, nargs="+", default=list(KINDS))
    parser.add_argument("--seconds", action=Count, nargs="+", default=[10, 60], help="lengths of the clips")
    parser.add_argument("--frames", action=Count, nargs="+", default=[8, 32, 128], help="how many are sampled")
    parser.add_argument("--readers", choices=get_args(ReaderChoice)[1:], nargs="+", default=list(READERS))
    parser.add_argument("--size", action=Count, nargs=2, default=[640, 360], metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--repetitions", action=Count, default=3)
    return parser.parse_args(arguments)


def write_clip(path: Path, kind: str, seconds: int, size: tuple[int, int]) -> None:
    """Write a clip of a square that moves over a gradient."""
    import av  # noqa: PLC0415

    codec, options, group = KINDS[kind]
    width, height = size
    ground = np.add.outer(np.arange(height), np.arange(width))[..., None] * np.array([1, 2, 3])
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size = group
        stream.time_base = stream.codec_context.time_base = Fraction(1, RATE)
        for number in range(seconds * RATE):
            picture = (ground + number).astype(np.uint8)
            left = number * 7 % max(width - 40, 1)
            picture[height // 3 : height // 3 + 40, left : left + 40] = (number * 5 % 256, 40, 200)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def sample(path: Path, frames: int, reader: ReaderChoice) -> tuple[float, float] | None:
    """Wall and CPU seconds of one reading; None if the reader refuses the file."""
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        load_video(path, frames, reader)
    except InputError:
        return None
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each kind, length, number of frames and reader."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in options.kinds:
            for seconds in options.seconds:
                path = Path(folder) / f"{seconds}_{kind}"
                write_clip(path, kind, seconds, tuple(options.size))
                for frames in options.frames:
                    rows += compare(path, frames, options.readers, options.repetitions, kind, seconds)
    return rows


def compare(
    path: Path, frames: int, readers: list[ReaderChoice], repetitions: int, kind: str, seconds: int
) -> list[dict[str, Any]]:
    """The readers in turn on one file."""
    runs = {reader: (lambda reader=reader: sample(path, frames, reader)) for reader in readers}
    times = interleaved(runs, repetitions)
    rows = []
    for reader, found in times.items():
        row: dict[str, Any] = {"kind": kind, "seconds": seconds, "frames": frames, "reader": reader, "wall_ms": None}
        seen = [pair for pair in found if pair is not None]
        if seen:
            row["wall_ms"], row["cpu_ms"] = (1000 * statistics.median(part) for part in zip(*seen, strict=True))
        rows.append(row)
    base = next((row for row in rows if row["reader"] == BASE and row["wall_ms"]), None)
    for row in rows:
        if base is not None and row["wall_ms"]:
            row["wall_ratio"], row["cpu_ratio"] = (row[name] / base[name] for name in ("wall_ms", "cpu_ms"))
    return rows


@user_errors
def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark; print a table and one line of JSON."""
    options = parse_arguments(arguments)
    rows = measure(options)
    print(
        f"{'kind':12}{'seconds':>8}{'frames':>7}  {'reader':14}{'wall ms':>10}{'CPU ms':>10}{'/ decord':>10}{'CPU':>8}"
    )
    for row in rows:
        head = f"{row['kind']:12}{row['seconds']:>8}{row['frames']:>7}  {row['reader']:14}"
        if row["wall_ms"] is None:
            print(f"{head}{'refused':>10}")
            continue
        ratios = f"{row['wall_ratio']:>9.2f}x{row['cpu_ratio']:>7.2f}x" if "wall_ratio" in row else ""
        print(f"{head}{row['wall_ms']:>10.1f}{row['cpu_ms']:>10.1f}{ratios}")
    print(json.dumps(stamped("readers", {"settings": vars(options), **provenance(), "rows": rows})))


if __name__ == "__main__":
    main()
