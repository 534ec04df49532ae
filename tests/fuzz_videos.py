"""Random damage for the video reader: the right pictures or one line, measured on clips of eight kinds.

    python -m tests.fuzz_videos --count 500 --seed 0

A file of one of ``KINDS``, whose frames carry their number, has 1 to 1,000 bytes changed or removed, and eight of its
frames are loaded in a process of its own. Each picture is compared with the intact clip's of the same index:

    right     no picture differs visibly (the damage lay where nothing is read, or changed nothing that is seen)
    refused   one line says so
    wrong     a picture differs visibly and nothing said so
    failed    the process died by a signal, hung, or ended in a traceback

None of these codecs carries a checksum, nor do MP4, AVI and WebM (FFmpeg writes one in Matroska, which is compared): a
changed bit of a coefficient or a vector can decode without any error to another picture. VP8 and VP9 are decoded by two
decoders, whose pictures must be the same; keyframes of H.264 and HEVC must be read to the end of their data. What no
check of ours sees is the number "wrong".
The last line is JSON; the exit status is 1 if any failed. The suite runs a slice.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from eval.instruments.cli import provenance
from eval.instruments.kinds import stamped
from llava.errors import InputError
from llava.video import _same_picture, load_video
from tests.clips import write_clip

FRAMES, WIDTH, HEIGHT, GOP, SAMPLED = 60, 192, 128, 20, 8
KINDS: dict[str, dict[str, Any]] = {
    "h264.mp4": {"codec_options": {"crf": "20", "bf": "2"}},
    "h264.mkv": {"codec_options": {"crf": "20", "bf": "2"}},
    "h264.ts": {"codec_options": {"crf": "20", "bf": "2"}},
    "vp8.webm": {"codec": "libvpx", "codec_options": {"cpu-used": "8", "b": "800000"}},
    "vp9.webm": {"codec": "libvpx-vp9", "codec_options": {"cpu-used": "8", "b": "800000"}},
    "mpeg4.avi": {"codec": "mpeg4", "codec_options": {"b": "1000000"}},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p", "codec_options": {"b": "3000000"}},
    "hevc.mp4": {"codec": "libx265", "codec_options": {"crf": "24", "x265-params": "log-level=none"}},
}
_SLOWEST = 60.0  # seconds; a hung reader, on a busy machine too


def damaged(data: bytes, draw: random.Random) -> bytes:
    """The bytes with 1 to 1,000 of them changed in one run, changed anywhere, or removed; small numbers as often."""
    count = min(round(1000 ** draw.random()), len(data) // 2)
    place = draw.randrange(len(data) - count)
    way = draw.randrange(4)
    if way == 0:
        return data[:place] + data[place + count :]
    changed = bytearray(data)
    if way == 1:
        changed[place : place + count] = bytes(count)
    else:
        places = range(place, place + count) if way == 2 else draw.sample(range(len(data)), count)
        for each in places:
            changed[each] ^= draw.randrange(1, 256)
    return bytes(changed)


def make_clips(folder: Path) -> dict[str, tuple[bytes, np.ndarray]]:
    """Bytes and all frames, (60, 128, 192, 3), of a clip of every kind."""
    clips = {}
    for name, changes in KINDS.items():
        path = write_clip(folder / name, frames=FRAMES, width=WIDTH, height=HEIGHT, gop=GOP, **changes)
        clip = load_video(path, FRAMES)
        assert clip.indices == tuple(range(FRAMES)), name
        clips[name] = (path.read_bytes(), clip.frames)
    return clips


def verdict(path: Path, intact: np.ndarray) -> tuple[str, str]:
    """What loading a damaged file gives, in this process: an outcome and words on it."""
    try:
        clip = load_video(path, SAMPLED)
    except InputError as error:
        text = str(error)
        return ("refused", text) if len(text.splitlines()) == 1 else ("failed", f"several lines: {text[:200]}")
    except Exception as error:
        return "failed", f"{type(error).__name__}: {str(error)[:200]}"
    if clip.frames.shape[1:] != intact.shape[1:]:
        return "wrong", f"pictures of {clip.frames.shape[1:]}"
    for index, frame in zip(clip.indices, clip.frames, strict=True):
        if index >= len(intact) or not _same_picture(frame, intact[index]):
            return "wrong", f"frame {index} of {clip.total_frames}"
    return "right", f"{clip.total_frames} frames"


def _report(pipe: Connection, path: Path, intact: np.ndarray) -> None:
    pipe.send(verdict(path, intact))


def apart(path: Path, intact: np.ndarray) -> tuple[str, str]:
    """The verdict of a process of its own, which may die."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(sender, path, intact))
    process.start()
    sender.close()
    try:
        found = receiver.recv() if receiver.poll(_SLOWEST) else ("failed", "hung")
    except EOFError:
        process.join()
        found = "failed", f"died with status {process.exitcode}"
    process.kill()
    process.join()
    return found


def fuzz(count: int, seed: int, kinds: Sequence[str] = tuple(KINDS)) -> dict[str, Any]:
    """``count`` damaged files, the kinds in turn; the same for the same seed."""
    outcomes = {name: Counter[str]() for name in kinds}
    notes: dict[str, list[str]] = {"wrong": [], "failed": []}
    with tempfile.TemporaryDirectory() as folder:
        clips = make_clips(Path(folder))
        for number in range(count):
            name = kinds[number % len(kinds)]
            data, intact = clips[name]
            path = Path(folder) / name
            path.write_bytes(damaged(data, random.Random(f"{seed}-{number}")))
            outcome, words = apart(path, intact)
            outcomes[name][outcome] += 1
            if outcome in notes:
                notes[outcome].append(f"{name}, number {number}: {words}")
    total = sum(outcomes.values(), Counter[str]())
    shares = {kind: total[kind] for kind in ("right", "refused", "wrong", "failed")}
    by_kind = {name: dict(found) for name, found in outcomes.items()}
    return {"count": count, "seed": seed, **shares, "wrong_share": total["wrong"] / count, "kinds": by_kind, **{
        f"{outcome}_files": words for outcome, words in notes.items()
    }}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; the exit status is 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    result = fuzz(options.count, options.seed)
    sys.stdout.write(json.dumps(stamped("video_fuzz", {**provenance(), **result})) + "\n")
    sys.exit(bool(result["failed"]))


if __name__ == "__main__":
    main()
