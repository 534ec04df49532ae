"""Results of benchmark runs for the tables: their scores rebuilt from the answers, and what may be shown.

A score of a compressed model is shown only beside the uncompressed one of the same setup (the baseline gate). A run on
something else than the paper's checkpoint and the whole benchmarks is a rehearsal and never held against the paper.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from eval.instruments.significance import clustered_mean, paired_difference, paired_p
from eval.paper.benchmarks import BENCHMARKS, BY_TASK, HARNESS, MVBENCH, PAPER_TASKS
from llava.errors import InputError

Sample = dict[str, Any]


@dataclass(frozen=True)
class Score:
    """A score in percent and its standard error, questions about one video taken together.

    ``questions`` counts all, a bad video or an unparsable answer being wrong; ``bad`` and ``unparsed`` say how many.
    """

    value: float
    error: float
    questions: int
    videos: int
    bad: int = 0
    unparsed: int = 0


@dataclass(frozen=True)
class Difference:
    """Score of a method minus that of the uncompressed model, in points, its interval, and p of the paired test."""

    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, eq=False)  # by identity, so that what is computed once can be kept
class Run:
    """One finished run, as :mod:`eval.benchmarks.loading` reads it.

    Attributes:
        folder: that holds it.
        result: what ``result.json`` says.
        samples: its answers.
        name: of the point of a grid, as :func:`eval.paper.grids.point_name`.
        rehearsal: why this run says nothing about the paper, or None.
    """

    folder: Path
    result: Mapping[str, Any]
    samples: Sequence[Sample] = field(repr=False)
    name: str
    rehearsal: str | None = None

    @property
    def model(self) -> str:
        """Folder of the configuration."""
        return self.name.partition("/")[0]

    @property
    def method(self) -> str:
        """The method's name; ``vanilla`` without compression."""
        return str(self.result["method"])

    @property
    def harness(self) -> str:
        """Version of lmms-eval whose task definitions asked the questions and read the answers."""
        return str(self.result.get("harness", HARNESS))

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks that have answers, sub-tasks under their group's name."""
        return tuple(dict.fromkeys(sample["task"] for sample in self.samples))

    @cached_property
    def campaign(self) -> str:
        """What runs of one table share: the setup without its tasks and without the frames that an ablation varies."""
        setup = {key: value for key, value in self.result["setup"].items() if key not in ("num_frames", "tasks")}
        setup["arguments"] = {key: value for key, value in setup["arguments"].items() if key != "max_frames_num"}
        kind = [
            self.harness,
            self.rehearsal is not None,
            self.result["fixture"],
            self.result["checkpoint"]["weights_sha256"],
        ]
        return json.dumps([*kind, setup], sort_keys=True)

    def answers(self, task: str) -> list[Sample]:
        """The answers of one task or of the sub-tasks of a group."""
        return [sample for sample in self.samples if sample["task"] == task]

    @cache  # noqa: B019 - runs live as long as the program
    def score(self, task: str) -> Score | None:
        """The score of a benchmark; None if it was not run whole, or has no public answers."""
        answers = self.answers(task)
        subtasks = {sample["subtask"] for sample in answers}
        if task == "mvbench" and len(subtasks) != len(MVBENCH):
            return None
        return score_of(answers)


def strata_of(answers: Sequence[Sample]) -> list[str]:
    """Of each answer the group whose mean counts like every other's: the sub-task, or what the benchmark names."""
    known = {task: BY_TASK[task].strata for task in {str(sample["task"]) for sample in answers} if task in BY_TASK}
    return [
        str(sample["fields"][key]) if (key := known.get(sample["task"])) else sample["subtask"] for sample in answers
    ]


def score_of(answers: Sequence[Sample]) -> Score | None:
    """The mean over strata of the share of right answers; None without answers or without known right ones."""
    if not answers or any(sample["correct"] is None for sample in answers):
        return None
    videos = [sample["video"] for sample in answers]
    correct = [float(sample["correct"]) for sample in answers]
    mean, error = clustered_mean(correct, videos, strata_of(answers))
    bad = sum(sample["bad_video"] is not None for sample in answers)
    unparsed = sum(sample["bad_video"] is None and not sample["parsed_ok"] for sample in answers)
    return Score(100 * mean, 100 * error, len(answers), len(set(videos)), bad, unparsed)


@cache
def difference(run: Run, baseline: Run, task: str) -> Difference | None:
    """How a method's score differs from the uncompressed model's on the same questions."""
    if run.score(task) is None or baseline.score(task) is None:
        return None
    ours, theirs = run.answers(task), baseline.answers(task)
    right, reference = [[float(sample["correct"]) for sample in answers] for answers in (ours, theirs)]
    videos, strata = [sample["video"] for sample in ours], strata_of(ours)
    value, low, high = paired_difference(right, reference, videos, strata)
    p = paired_p(right, reference, videos, strata)
    return Difference(100 * value, 100 * low, 100 * high, p)


def categories(run: Run, task: str, key: str) -> dict[str, Score]:
    """Scores by one field of the questions, such as ``duration``; ``subtask`` for MVBench's sub-tasks."""
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in run.answers(task):
        label = sample["subtask"] if key == "subtask" else sample["fields"].get(key)
        if label is not None:
            groups[str(label)].append(sample)
    scores = {label: score_of(answers) for label, answers in groups.items()}
    return {label: score for label, score in scores.items() if score is not None}


def one_per_point(runs: Iterable[Run]) -> dict[str, Run]:
    """The runs of one campaign by the names of their points.

    Raises:
        InputError: two runs of one point.
    """
    found: dict[str, Run] = {}
    for run in runs:
        if run.name in found:
            raise InputError(
                f"{found[run.name].folder} and {run.folder} are both {run.name}: keep one, or name a folder"
            )
        found[run.name] = run
    return found


def baseline_of(run: Run, runs: Iterable[Run]) -> Run | None:
    """The uncompressed run of the same setup that a method is held against; None if there is none."""
    same = [other for other in runs if other.method == "vanilla" and other.model == run.model]
    return next((other for other in same if other.result["setup_hash"] == run.result["setup_hash"]), None)


def obstacle(run: Run, baseline: Run | None, task: str) -> str:
    """Why a score may not be shown: what differs from the uncompressed run besides the method; empty if nothing."""
    if baseline is None:
        return "no uncompressed run of the same setup"
    if not baseline.answers(task):
        return f"no uncompressed run of {task}"
    pairs = run.answers(task), baseline.answers(task)
    facts = (("questions", ("subtask", "doc_id")), ("videos", ("video_sha256",)), ("prompts", ("prompt",)))
    for what, keys in (*facts, ("frames", ("frames_sha256", "bad_video"))):
        ours, theirs = [[tuple(sample[key] for key in keys) for sample in answers] for answers in pairs]
        if ours != theirs:
            return f"the {what} of {task} differ from the uncompressed run's"
    return ""


def tasks_in_order(runs: Iterable[Run]) -> list[str]:
    """The paper's benchmarks that were run, in its order, then others."""
    found = {task: None for run in runs for task in run.tasks}
    known = [benchmark.task for benchmark in BENCHMARKS if benchmark.task in found]
    return known + [task for task in found if task not in BY_TASK]


def average(run: Run) -> tuple[float, float] | None:
    """Mean of the paper's four benchmarks and its standard error; None unless all four were run."""
    scores = [run.score(task) for task in PAPER_TASKS]
    if any(score is None for score in scores):
        return None
    known = [score for score in scores if score is not None]
    return sum(score.value for score in known) / 4, math.sqrt(sum(score.error**2 for score in known)) / 4
