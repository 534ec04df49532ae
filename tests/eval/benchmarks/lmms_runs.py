"""Benchmark runs for the tests: the fixtures' folder, jobs as the command line makes them, and runs in this process."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from eval.benchmarks import launching
from eval.benchmarks import run as run_benchmark
from eval.benchmarks.lmms import worker
from eval.benchmarks.lmms.answer_log import Entry, Served
from eval.benchmarks.lmms.results import load_result

FRAMES = 4
VANILLA: dict[str, Any] = {"model": {"num_frames": FRAMES}, "compressor": None}
HOLITOM: dict[str, Any] = {
    "model": {"num_frames": FRAMES},
    "compressor": {"method": "holitom", "outer": {"retain_ratio": 0.2}, "inner": {"merge_layer": 3}},
}
THREE = "egoschema_subset,longvideobench_val_v,videomme"


def write_config(path: Path, contents: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(contents))
    return path


def command(config: Path, checkpoint: Path, data: Path | None, tasks: str, output: Path, *more: str) -> list[str]:
    """Arguments of ``eval.benchmarks.run``."""
    place = [] if data is None else ["--data", str(data)]
    return [str(config), "--checkpoint", str(checkpoint), *place, "--tasks", tasks, "-o", str(output), *more]


def enter(data: Path | None, cache: Path, patch: pytest.MonkeyPatch) -> None:
    """The environment that ``eval.benchmarks.run`` gives its processes, as far as one that runs can change it."""
    import datasets  # noqa: PLC0415 - slow, and only some tests need it

    patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(cache))
    if data is not None:
        patch.setenv("HF_HOME", str(data / "hf"))
        patch.chdir(data / "data")


def run_here(patch: pytest.MonkeyPatch, arguments: list[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """``eval.benchmarks.run`` in this process, without its start-up; the result and the samples it wrote."""
    options = run_benchmark.parser().parse_args(arguments)
    job = run_benchmark.make_job(options)
    launching.prepare(job, options.resume)
    enter(options.data, job.folder / worker.ANSWERS / worker.CACHE, patch)
    worker.run(job)
    return load_result(job.folder)


def same_but_times(one: Path, other: Path) -> None:
    """Two runs of one command left the same files, but for times."""
    assert (one / "samples.jsonl").read_bytes() == (other / "samples.jsonl").read_bytes()
    first, second = (json.loads((folder / "result.json").read_text()) for folder in (one, other))
    assert first.keys() == second.keys()
    assert {key: first[key] for key in first if key != "times" and first[key] != second[key]} == {}


def copy_data(data: Path, to: Path) -> Path:
    """A copy of the fixtures that may be damaged."""
    return Path(shutil.copytree(data, to))


def made_up(answers: dict[tuple[str, int], str], prompts: dict[tuple[str, int], str]) -> Served:
    """Answers nobody computed."""
    tokens = {"before": 100, "before_llm": 20, "inside_llm": 10, "layer_mean": 15.0}
    arguments = {"max_frames_num": FRAMES}
    setup = {"model": "llava_onevision", "arguments": arguments, "code_sha256": "0"}
    entries = {
        key: Entry(*key, "key", prompts[key], "/videos/a.mp4", "sha", answer, dict(tokens), "decord", FRAMES, "indices")
        for key, answer in answers.items()
    }
    return Served(setup, "setup", {"model": {}, "compressor": None}, {}, entries)
