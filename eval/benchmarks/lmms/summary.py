"""From the answers of a run to the contents of its result."""

import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from eval.benchmarks.lmms.answer_log import Entry, Served
from eval.benchmarks.lmms.harness import SEEDS, HarnessOutput
from eval.benchmarks.lmms.results import SCHEMA
from eval.benchmarks.lmms.scoring import fields_of, judge, options_of, question_id
from eval.benchmarks.lmms.settings import VANILLA
from eval.instruments.cli import commit
from eval.instruments.fingerprints import digest
from eval.paper.benchmarks import HARNESS
from llava.errors import InputError

STAGES = ("before_llm", "inside_llm", "layer_mean")
_HASHED = {"prompt_sha256": "prompt", "frames_sha256": "frames_sha256"}  # of every question together
_PACKAGES = (
    "torch",
    "transformers",
    "accelerate",
    "lmms_eval",
    "holitom",
    "decord",
    "av",
    "numpy",
    "pillow",
    "datasets",
)
# of a sample of the harness; everything else in it is the metric dict
_SAMPLE_KEYS = frozenset(
    ("doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "token_counts", "doc_hash", "input_media")
)


@dataclass(frozen=True)
class RunRequest:
    """What a run was asked for, beyond what its answers were made with.

    Attributes:
        tasks: as on the command line.
        config_file: likewise.
        overrides: likewise.
        checkpoint: likewise.
        fixture: whether the questions are those of :mod:`eval.benchmarks.data.fixtures`, whose scores are rehearsals.
        limit: questions per task, or None.
        on_bad_video: "stop" or "count".
        times: what differs between two runs of one command.
        harness: version of lmms-eval whose definitions ask, read and score.
    """

    tasks: list[str]
    config_file: str
    overrides: list[str]
    checkpoint: str
    fixture: bool
    limit: int | None
    on_bad_video: str
    times: dict[str, Any]
    harness: str = HARNESS


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _percent(correct: int, questions: int) -> float | None:
    return 100 * correct / questions if questions else None


def _video_name(path: str | None, roots: Sequence[str]) -> str | None:
    """Below the first root that holds it, so that results do not tell one machine's folders."""
    for root in roots:
        if path is not None and Path(path).is_relative_to(root):
            return str(Path(path).relative_to(root))
    return path


def _sample(outcome: HarnessOutput, task: str, raw: Mapping[str, Any], entry: Entry) -> dict[str, Any]:
    """One line of the samples, from the harness' sample and our entry of the same question."""
    metrics = {name: value for name, value in raw.items() if name not in _SAMPLE_KEYS}
    answer = entry.answer or ""
    judged = judge(outcome.tasks[task], raw["doc"], answer, metrics, raw["target"])
    bad = entry.bad_video is not None
    return {
        "task": task,
        "subtask": task,
        "doc_id": entry.doc_id,
        "question_id": question_id(raw["doc"]),
        "video": entry.video,
        "video_sha256": entry.video_sha256,
        "prompt": entry.prompt,
        "options": options_of(raw["doc"]),
        "target": judged.target,
        "answer": None if bad else answer,
        "parsed": None if bad else judged.parsed,
        "parsed_ok": not bad and judged.parsed_ok,
        "correct": False if bad and judged.correct is not None else judged.correct,
        "bad_video": entry.bad_video,
        "tokens": entry.tokens,
        "reader": entry.reader,
        "frames": entry.frames,
        "frames_sha256": entry.frames_sha256,
        "fields": fields_of(raw["doc"], metrics),
        "metrics": metrics,
    }


def make_samples(outcome: HarnessOutput, served: Served, roots: Sequence[str] = ()) -> list[dict[str, Any]]:
    """All lines of the samples, by task and number.

    Args:
        outcome: of the harness.
        served: the answers.
        roots: folders below which videos are named.

    Raises:
        InputError: if the harness scored other questions than were answered.
    """
    groups = {leaf: group for group, leaves in outcome.results["group_subtasks"].items() for leaf in leaves}
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for task, raws in outcome.results["samples"].items():
        for raw in raws:
            key = (task, raw["doc_id"])
            if key in found or key not in served.entries:
                raise InputError(f"task {task}, question {raw['doc_id']} was scored but not answered once: run again")
            sample = _sample(outcome, task, raw, served.entries[key])
            found[key] = {**sample, "task": groups.get(task, task), "video": _video_name(sample["video"], roots)}
    missing = sorted(served.entries.keys() - found.keys())
    if missing or not found:
        raise InputError(f"lmms-eval scored {len(found)} questions and left out {missing[:3] or 'all'}: run again")
    return [found[key] for key in sorted(found)]


def _task_result(outcome: HarnessOutput, task: str, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    labelled = [sample for sample in samples if sample["correct"] is not None]
    seen = [sample for sample in samples if sample["bad_video"] is None]
    correct = sum(sample["correct"] for sample in labelled)
    own = {
        name.partition(",")[0]: value
        for name, value in sorted(outcome.results["results"][task].items())
        if "_stderr" not in name and isinstance(value, int | float)
    }
    return {
        "group": samples[0]["task"] if samples[0]["task"] != task else None,
        "questions": len(samples),
        "seen": len(seen),
        "bad_videos": len(samples) - len(seen),
        "unparsed": sum(not sample["parsed_ok"] for sample in seen),
        "correct": correct if labelled else None,
        "score": _percent(correct, len(labelled)),
        "score_seen": _percent(correct, sum(sample["bad_video"] is None for sample in labelled)),
        "harness": own,
        "harness_version": outcome.results["versions"].get(task),
        "prompt_sha256": digest([[sample["doc_id"], sample["prompt"]] for sample in samples]),
    }


def _group_results(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Unweighted means over the sub-tasks: lmms-eval computes none for MVBench."""
    groups: dict[str, Any] = {}
    for name in sorted({task["group"] for task in tasks.values() if task["group"] is not None}):
        members = [task for task in tasks.values() if task["group"] == name]
        whole = {}
        for score in ("score", "score_seen"):
            values = [task[score] for task in members]
            whole[score] = None if None in values else _mean(values)
        counts = {
            count: sum(task[count] for task in members) for count in ("questions", "seen", "bad_videos", "unparsed")
        }
        groups[name] = {**whole, "subtasks": len(members), **counts}
    return groups


def _token_facts(samples: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Measured retention per stage, and mean tokens."""
    tokens = [sample["tokens"] for sample in samples if sample["tokens"] is not None]
    retention = {}
    for stage in STAGES:
        shares = [count[stage] / count["before"] for count in tokens]
        retention[stage] = {"mean": _mean(shares), "min": min(shares, default=None), "max": max(shares, default=None)}
    means = {stage: _mean([count[stage] for count in tokens]) for stage in ("before", *STAGES)}
    return {"retention": retention, "tokens": means}


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def make_result(
    asked: RunRequest, served: Served, outcome: HarnessOutput, samples: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The contents of ``result.json``; all but ``times`` are the same for two runs of one command."""
    by_task: dict[str, list[Mapping[str, Any]]] = {}
    for sample in samples:
        by_task.setdefault(sample["subtask"], []).append(sample)
    tasks = {task: _task_result(outcome, task, members) for task, members in by_task.items()}
    compressor = served.config["compressor"]
    return {
        "schema": SCHEMA,
        "config": {
            "file": asked.config_file,
            "name": Path(asked.config_file).stem,
            "overrides": asked.overrides,
            **served.config,
        },
        "method": VANILLA if compressor is None else compressor["method"],
        "model": served.setup["model"],
        "checkpoint": {"name": asked.checkpoint, **served.checkpoint},
        "fixture": asked.fixture,
        "harness": asked.harness,
        **_setup(asked, served),
        "versions": _versions(),
        "commit": commit(),
        "code_sha256": served.setup["code_sha256"],
        **{key: digest([[s["subtask"], s["doc_id"], s[of]] for s in samples]) for key, of in _HASHED.items()},
        **_token_facts(samples),
        "tasks": tasks,
        "groups": _group_results(tasks),
        "bad_videos": [
            {"task": s["subtask"], "doc_id": s["doc_id"], "video": s["video"], "reason": s["bad_video"]}
            for s in samples
            if s["bad_video"] is not None
        ],
        "readers": dict(sorted(Counter(s["reader"] for s in samples if s["reader"] is not None).items())),
        "times": {**asked.times, **_work(served)},
    }


def _setup(asked: RunRequest, served: Served) -> dict[str, Any]:
    """What the method is compared under; its prompts are told by each task's hash, the code by the commit."""
    compared = {name: value for name, value in served.setup.items() if name != "code_sha256"}
    compared["harness"] = asked.harness
    facts = {"tasks": asked.tasks, "limit": asked.limit, "on_bad_video": asked.on_bad_video, "seeds": SEEDS}
    setup = {**compared, **facts, "num_frames": served.setup["arguments"]["max_frames_num"]}
    return {"setup": setup, "setup_hash": digest(compared)}


def _work(served: Served) -> dict[str, Any]:
    seconds = [entry.seconds for entry in served.entries.values() if entry.bad_video is None]
    return {
        "questions_computed": served.computed,
        "questions_resumed": served.resumed,
        "videos_encoded": served.encoded,
        "seconds_per_question": _mean(seconds),
    }
