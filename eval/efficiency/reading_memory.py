"""Peak memory of reading videos: pictures of a size beyond the bound, large ones, and many of them.

    python -m eval.efficiency.reading_memory

Every clip is read in a process of its own; its peak is the largest resident size while it read, above that before
(1e6 bytes, sampled), beside the bytes of the pictures that it got. Last line: JSON with the numbers.
"""

import json
import multiprocessing
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from eval.efficiency.readers import RATE, write_clip
from eval.instruments.cli import Count, Parser, provenance, user_errors
from eval.instruments.kinds import stamped
from eval.instruments.measure import peak_memory
from llava.errors import InputError
from llava.video import load_video

LONG_SECONDS = 60  # at 25 pictures a second: more than 1,024
LONG_SIZE = (640, 360)


def write_large(path: Path, side: int, count: int) -> None:
    """Write an AVI of square grey pictures: one is encoded, and stands there ``count`` times."""
    import av  # noqa: PLC0415

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("png", rate=RATE)
        stream.width = stream.height = side
        stream.pix_fmt = "gray"
        frame = av.VideoFrame(side, side, "gray")
        for plane in frame.planes:
            np.frombuffer(plane, np.uint8)[:] = 128  # type: ignore[call-overload]
        frame.pts, frame.time_base = 0, Fraction(1, RATE)
        data = b"".join(bytes(packet) for packet in [*stream.encode(frame), *stream.encode(None)])
        for number in range(count):
            packet = av.Packet(data)
            packet.stream, packet.time_base = stream, Fraction(1, RATE)
            packet.pts = packet.dts = number
            container.mux(packet)


def read(path: Path, frames: int) -> dict[str, Any]:
    """Read frames of a clip; the peak is that of this process."""
    with peak_memory() as peak:
        try:
            pictures, refused = load_video(path, frames, "pyav").frames, None
        except InputError as error:
            pictures, refused = np.empty(0, np.uint8), str(error).replace(str(path), path.name)
    return {"peak_mb": peak.bytes / 1e6, "returned_mb": pictures.nbytes / 1e6, "refused": refused}


def read_apart(path: Path, frames: int) -> dict[str, Any]:
    """As :func:`read`, in a process that did nothing else."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(read, (path, frames))


def measure(large: list[int], frames: list[int], long: int) -> list[dict[str, Any]]:
    """One row for each clip and number of frames.

    Args:
        large: sides of square pictures in pixels.
        frames: how many of these are read.
        long: how many frames of the long clip are read.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        cases = []
        for side in large:
            path = Path(folder) / f"{side}.avi"
            write_large(path, side, max(frames))
            cases += [(path, f"{side} x {side} AVI", count) for count in frames]
        path = Path(folder) / "long.mp4"
        write_clip(path, "h264.mp4", LONG_SECONDS, LONG_SIZE)
        cases.append((path, f"{LONG_SIZE[0]} x {LONG_SIZE[1]} MP4", long))
        for path, name, count in cases:
            size = path.stat().st_size / 1e6
            rows.append({"clip": name, "file_mb": size, "frames": count, **read_apart(path, count)})
    return rows


@user_errors
def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark; print a table and one line of JSON."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--large", action=Count, least=16, nargs="+", default=[4096, 16000], help="sides of square pictures"
    )
    parser.add_argument("--frames", action=Count, nargs="+", default=[8, 32], help="how many of these are read")
    parser.add_argument("--long", action=Count, default=1024, help=f"frames of a clip of {LONG_SECONDS} s")
    options = parser.parse_args(arguments)
    rows = measure(options.large, options.frames, options.long)
    print(f"{'clip':22}{'file MB':>9}{'frames':>8}{'returned MB':>13}{'peak MB':>10}")
    for row in rows:
        head = f"{row['clip']:22}{row['file_mb']:>9.1f}{row['frames']:>8}"
        print(f"{head}{row['returned_mb']:>13.0f}{row['peak_mb']:>10.0f}  {row['refused'] or ''}")
    print(json.dumps(stamped("reading_memory", {"settings": vars(options), **provenance(), "rows": rows})))


if __name__ == "__main__":
    main()
