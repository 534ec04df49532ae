"""Seconds and passes of the vision tower on questions that share videos: plainly, encoded once, and read ahead as well.

    python -m eval.benchmarks.reuse                      # 0.5B widths, 8 frames, a tower of 6 layers, on this machine
    python -m eval.benchmarks.reuse --tower-layers 26    # the whole tower

VideoMME's own task asks three questions about each of a few rendered videos (:mod:`eval.benchmarks.data.fixtures`),
drawn larger so that decoding counts. The model has the widths of LLaVA-OneVision 0.5B, random weights, and fewer layers
where that is asked for. Every way runs in turn, as often as ``--repetitions`` says, in one process; seconds are those
of the questions, without loading. All samples must be equal byte by byte, or the command fails. Last line: JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from eval.benchmarks.data.fixtures import make_fixtures
from eval.benchmarks.launching import environment, prepare
from eval.benchmarks.lmms import worker
from eval.benchmarks.lmms.results import SAMPLES
from eval.benchmarks.run import make_job
from eval.benchmarks.run import parser as run_parser
from eval.benchmarks.sheets import REUSE, reuse_rows
from eval.instruments.cli import Count, Parser, provenance, user_errors
from eval.instruments.clips import encode
from eval.instruments.kinds import stamped
from eval.instruments.models.random_checkpoint import tiny_config, write_random_model
from eval.instruments.sheets import terminal
from llava.errors import InputError
from llava.model.vision_tower import KNOWN_TOWERS
from llava.video import load_video

WAYS: dict[str, dict[str, Any]] = {
    "plain": {"reuse": False, "prefetch": 0},
    "reuse": {"reuse": True, "prefetch": 0},
    "reuse and prefetch": {"reuse": True, "prefetch": 1},
}
_QUESTIONS = 3  # about each video, as VideoMME asks
_WIDTHS = {"hidden_size": 896, "intermediate_size": 4864, "num_attention_heads": 14, "num_key_value_heads": 2}
_RATE = 25
_SHOWN = 12  # how often each frame of a fixture's clip is repeated


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--videos", action=Count, default=3, help="each is asked about three times (default 3)")
    parser.add_argument("--frames", action=Count, default=8)
    parser.add_argument(
        "--tower-layers", action=Count, default=6, help="of the so400m tower (default 6, the whole has 26)"
    )
    parser.add_argument(
        "--layers", action=Count, least=3, default=4, help="of the 0.5B decoder (default 4, the whole has 24)"
    )
    parser.add_argument(
        "--width", action=Count, least=32, default=1280, help="pixels of the videos, 16 to 9 (default 1280)"
    )
    parser.add_argument("--repetitions", action=Count, default=3)
    return parser.parse_args(arguments)


def make_checkpoint(folder: Path, layers: int, tower_layers: int) -> Path:
    """A model of the published widths with random weights and a tokenizer of bytes."""
    sizes = {**_WIDTHS, "num_hidden_layers": layers, "mm_hidden_size": 1152}
    tower = {**tiny_config()["vision_config"], **KNOWN_TOWERS["siglip-so400m-patch14-384"]}
    raw = {**tiny_config(), **sizes, "vision_config": {**tower, "num_hidden_layers": tower_layers + 1}}
    return write_random_model(folder, raw)


def make_data(folder: Path, videos: int, width: int) -> Path:
    """The miniature data sets with VideoMME's clips drawn larger and longer."""
    data = make_fixtures(folder, videos)
    for path in sorted((data / "hf/videomme/data").iterdir()):
        clip = load_video(path, 40)
        size = (width // 2 * 2, width * 9 // 32 * 2)
        frames = [np.asarray(Image.fromarray(frame).resize(size)) for frame in clip.frames]
        shown = (frame for frame in frames for _ in range(_SHOWN))
        encode(path, shown, _RATE, "libx264", {"crf": "20", "preset": "veryfast"}, 2 * _RATE)
    return data


def run_ways(options: argparse.Namespace, work: Path) -> dict[str, list[dict[str, Any]]]:
    """What every repetition of each way reported; the samples stay in its folder."""
    checkpoint = make_checkpoint(work / "checkpoint", options.layers, options.tower_layers)
    data = make_data(work / "data", options.videos, options.width)
    config = work / "holitom.yaml"
    compressor = {"method": "holitom", "outer": {"retain_ratio": 0.15}, "inner": {"merge_layer": options.layers - 1}}
    config.write_text(yaml.safe_dump({"model": {"num_frames": options.frames}, "compressor": compressor}))
    words = [str(config), "--checkpoint", str(checkpoint), "--data", str(data), "--tasks", "videomme"]
    asked = run_parser().parse_args([*words, "-o", str(work / "out")])
    job = make_job(asked)
    os.environ.update(environment(job, data))  # before the harness is imported
    os.environ.update(HF_DATASETS_CACHE=str(work / "questions"), TQDM_DISABLE="1")
    os.chdir(data / "data")
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in WAYS}
    for repetition in range(options.repetitions):
        for name, way in WAYS.items():
            one = replace(job, output=str(work / f"{name}-{repetition}"), started=time.time(), **way)
            prepare(one, resume=False)
            found[name].append(worker.run(one)["times"])
    return found


def check_equal(work: Path) -> str:
    """Compare the samples of all runs.

    Raises:
        InputError: if two runs differ.
    """
    files = sorted(work.glob(f"*/{SAMPLES}"))
    texts = {file.read_bytes() for file in files}
    if len(texts) != 1:
        raise InputError(
            f"{len(texts)} different {SAMPLES} in {len(files)} runs: the ways do not give the same answers"
        )
    return f"{len(files)} runs, byte for byte"


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print a table and one line of JSON."""
    options = read_arguments(arguments)
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = run_ways(options, Path(folder))
            equal = check_equal(Path(folder))
        finally:
            os.chdir(here)
    questions = _QUESTIONS * options.videos
    rows = {}
    for name, runs in found.items():
        seconds = [round(questions * run["seconds_per_question"], 2) for run in runs]
        passes = {run["videos_encoded"] for run in runs}
        rows[name] = {"seconds": seconds, "median": statistics.median(seconds), "tower_passes": passes.pop()}
        speed = rows["plain"]["median"] / rows[name]["median"]
        rows[name]["times_faster"] = round(speed, 2)
    sizes = {name: getattr(options, name) for name in ("videos", "frames", "tower_layers", "layers", "width")}
    record = {**provenance(), **sizes, "questions": questions, "equal": equal, "ways": rows}
    print(terminal(REUSE, reuse_rows(record)))
    print(json.dumps(stamped("reuse", record)))


if __name__ == "__main__":
    main()
