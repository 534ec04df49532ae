"""Result folders as eval.benchmarks.run leaves them, with known answers, for the tests of tables and sweeps."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.instruments.fingerprints import digest
from eval.paper.benchmarks import BY_TASK, MVBENCH
from eval.paper.grids import Point
from eval.paper.rows import MODELS
from holitom.shipped import CONFIGS


def questions(task: str, count: int) -> list[dict[str, Any]]:
    """``count`` questions of a benchmark, three about each video; MVBench's are spread over its 20 sub-tasks."""
    found = []
    for number in range(count):
        subtask = f"mvbench_{list(MVBENCH)[number % 20]}" if task == "mvbench" else task
        fields = {
            "duration": ("short", "medium", "long")[number % 3],
            "category": ("Knowledge", "Multilingual")[number % 2],
            "task_category": "OCR Problems",
            "duration_group": str((15, 60, 600, 3600)[number % 4]),
            "question_category": ("S2E", "T3O")[number % 2],
        }
        found.append(
            {
                "task": task,
                "subtask": subtask,
                "doc_id": number // 20 if task == "mvbench" else number,
                "video": f"{task}/{number // 3}.mp4",
                "video_sha256": digest(f"{task}/{number // 3}"),
                "prompt": f"{task} {number}?",
                "frames_sha256": digest(number),
                "fields": fields if task in ("videomme", "longvideobench_val_v") else {},
            }
        )
    return sorted(found, key=lambda sample: (sample["subtask"], sample["doc_id"]))


def write_run(folder: Path, config: str, right: dict[str, Sequence[bool]], **changes: Any) -> Path:
    """A finished run of ``configs/<config>.yaml``: which questions of each task were answered right, in their order.

    ``changes``: overrides, checkpoint, weights, random, fixture, limit, setup_hash, commit; ``samples`` is called with
    the list of samples before they are written.
    """
    model = config.partition("/")[0]
    overrides = list(changes.get("overrides", ()))
    settings = Point(CONFIGS / f"{config}.yaml", tuple(overrides)).settings().as_dict()
    samples = [
        {**sample, **_answer(bool(mark), settings["compressor"] is not None)}
        for task in sorted(right)
        for sample, mark in zip(questions(task, len(right[task])), right[task], strict=True)
    ]
    changes.get("samples", lambda found: None)(samples)
    frames = settings["model"]["num_frames"]
    weights = changes.get("weights", "w" * 64)
    setup = {"arguments": {"max_frames_num": frames}, "dtype": "float16", "device": changes.get("device", "a GPU")}
    result = {
        "schema": 1,
        "config": {
            "file": f"configs/{config}.yaml",
            "name": config.partition("/")[2],
            "overrides": overrides,
            **settings,
        },
        "method": "vanilla" if settings["compressor"] is None else settings["compressor"]["method"],
        "checkpoint": {
            "name": changes.get("checkpoint", f"lmms-lab/{MODELS[model][1]}"),
            "weights_sha256": weights,
            "random": changes.get("random", False),
        },
        "fixture": changes.get("fixture", False),
        "harness": changes.get("harness", "0.7.3"),
        "setup": {**setup, "tasks": sorted(right), "limit": changes.get("limit"), "num_frames": frames},
        "setup_hash": changes.get("setup_hash", digest([weights, setup])),
        "retention": {stage: {"mean": 1.0 if settings["compressor"] is None else 0.15} for stage in STAGES},
        "tasks": {task: {"questions": count} for task, count in Counter(s["subtask"] for s in samples).items()},
        "prompt_sha256": digest([sample["prompt"] for sample in samples]),
        "frames_sha256": digest([sample["frames_sha256"] for sample in samples]),
        "commit": "abc",
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    (folder / "result.json").write_text(json.dumps(result))
    return folder


STAGES = ("before_llm", "inside_llm", "layer_mean")


def _answer(right: bool, compressed: bool) -> dict[str, Any]:
    before = 6272
    tokens = {
        "before": before,
        "before_llm": 960 if compressed else before,
        "inside_llm": 480 if compressed else before,
    }
    state = {"parsed_ok": True, "bad_video": None, "correct": right}
    return {**state, "tokens": {**tokens, "layer_mean": 700.0 if compressed else float(before)}}


def share(count: int, right: int) -> list[bool]:
    """``right`` of ``count`` questions right, spread evenly and without chance."""
    return [number * right // count != (number + 1) * right // count for number in range(count)]


def whole(task: str, percent: float) -> list[bool]:
    """A whole benchmark with a score as close to ``percent`` as its number of questions allows."""
    count = BY_TASK[task].questions
    if task == "mvbench":  # the same share in every sub-task
        return share(count // 20, round(count // 20 * percent / 100)) * 20
    return share(count, round(count * percent / 100))
