"""Benchmark runs as evidence: every score with what the rule of a verdict needs, and methods paired with each other."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eval.benchmarks.loading import load_runs
from eval.benchmarks.runs import Run, average, baseline_of, obstacle, one_per_point
from eval.claims.score_rule import Measured, Overlap, rerun_variance
from eval.instruments.significance import clustered_mean, ratio_error
from eval.paper.benchmarks import PAPER_HARNESS, PAPER_TASKS, UNCHANGED


def benchmark_scores(folder: Path) -> dict[str, Any]:
    """Scores of every point below a folder, the uncompressed run beside each; rehearsals are named as such.

    Raises:
        InputError: no run, or a damaged one.
    """
    runs = one_per_point(load_runs(folder))
    any_run = next(iter(runs.values()))
    rows = {name: _scores(run, runs) for name, run in runs.items()}
    facts = {"commit": any_run.result["commit"], "device": any_run.result["setup"]["device"], "file": str(folder)}
    return {"rows": rows, "samples": max(len(run.samples) for run in runs.values()), **facts}


def overlap(run: Run, task: str) -> Overlap:
    """What a run shares with the paper's: the harness' version decides, for tasks that differ between the two."""
    if run.harness != PAPER_HARNESS and task not in UNCHANGED:
        return "other"
    return "subset" if task == "egoschema_subset" else "same"


def measured(run: Run, task: str) -> Measured | None:
    """One score as the rule takes it; None where there is none."""
    score = run.score(task)
    if score is None:
        return None
    right: dict[str, list[float]] = defaultdict(list)
    for sample in run.answers(task):
        right[sample["subtask"]].append(float(sample["correct"]))
    shares = [sum(marks) / len(marks) for marks in right.values()]
    variance = sum(share * (1 - share) for share in shares) / len(shares)
    error = 0.0 if math.isnan(score.error) else score.error
    return Measured(score.value, error, variance, score.questions, overlap(run, task))


def _scores(run: Run, runs: Mapping[str, Run]) -> dict[str, Any]:
    baseline, mean = baseline_of(run, runs.values()), average(run)
    reference = None if baseline is None else average(baseline)
    cells = {task: cell for task in run.tasks if (cell := measured(run, task)) is not None}
    facts: dict[str, Any] = {
        "rehearsal": run.rehearsal,
        "harness": run.harness,
        "withheld": {task: why for task in run.tasks if (why := obstacle(run, baseline, task))},
        "scores": {task: cell.score for task, cell in cells.items()},
        "cells": {task: vars(cell) for task, cell in cells.items()},
        "average": None if mean is None else mean[0],
        "percent": None if mean is None or reference is None else 100 * mean[0] / reference[0],
        "ratio": {},
        "leads": {},
    }
    if facts["withheld"] or mean is None or baseline is None or reference is None or not reference[0]:
        return facts
    facts["ratio"] = _ratio(run, baseline, mean[0] / reference[0], reference[0])
    facts["leads"] = {name: _lead(run, rival) for name, rival in runs.items() if _comparable(run, rival, baseline)}
    return facts


def _ratio(run: Run, baseline: Run, ratio: float, reference: float) -> dict[str, dict[str, Any]]:
    """For each benchmark: the error of its part of the ratio of means, in points, see ``judge_ratio``."""
    parts = {}
    for task in PAPER_TASKS:
        own, full = measured(run, task), measured(baseline, task)
        assert own is not None
        assert full is not None
        right, kept, videos, subtasks = _paired(run, baseline, task)
        error = 100 * 100 * ratio_error(right, kept, ratio, videos, subtasks) / (len(PAPER_TASKS) * reference)
        both = [rerun_variance(Measured(one.score, one.error, one.variance, one.questions)) for one in (own, full)]
        rerun = 100 * math.sqrt(both[0] + ratio**2 * both[1]) / (len(PAPER_TASKS) * reference)
        parts[task] = {"error": error, "rerun": rerun, "overlap": own.overlap, "questions": own.questions}
    return parts


def _paired(run: Run, other: Run, task: str) -> tuple[list[float], list[float], list[str], list[str]]:
    """Right answers of two runs on the same questions, with their videos and sub-tasks."""
    ours, theirs = run.answers(task), other.answers(task)
    right, reference = ([float(sample["correct"]) for sample in answers] for answers in (ours, theirs))
    return right, reference, [sample["video"] for sample in ours], [sample["subtask"] for sample in ours]


def _comparable(run: Run, rival: Run, baseline: Run) -> bool:
    """Whether a run is another method's that may be paired with ours: same setup, questions, prompts and frames."""
    if rival is run or rival is baseline or average(rival) is None or rival.rehearsal != run.rehearsal:
        return False
    same = rival.result["setup_hash"] == run.result["setup_hash"]
    return same and not any(obstacle(rival, baseline, task) for task in PAPER_TASKS)


def _lead(run: Run, rival: Run) -> list[float]:
    """Mean score of the four benchmarks minus a rival's, and its paired clustered error, in points."""
    pairs = []
    for task in PAPER_TASKS:
        ours, theirs, videos, subtasks = _paired(run, rival, task)
        gaps = [mine - other for mine, other in zip(ours, theirs, strict=True)]
        pairs.append(clustered_mean(gaps, videos, subtasks))
    error = math.sqrt(sum(error**2 for _, error in pairs)) / len(pairs)
    return [100 * sum(mean for mean, _ in pairs) / len(pairs), 100 * error]
