"""How often the rule of a verdict says what, simulated: coverage, p-values, and verdicts at known true differences.

    python -m eval.claims.operating_characteristics                     # about five minutes, ends in one line of JSON
    python -m eval.claims.operating_characteristics --repetitions 100   # a glance
    python -m eval.instruments.record results/verdict_rule.json -- python -m eval.claims.operating_characteristics

Answers are shaped like the benchmarks: questions about one video share a part of what makes them hard (a latent normal
variable with correlation 0.3), MVBench has 20 sub-tasks of unequal difficulty. The paper's run and ours answer the same
questions and differ on a share of the answers; a true difference makes one direction of these more frequent. The number
of LongVideoBench's videos is assumed. The functions of the product are what is simulated, not restatements of them.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np

from eval.claims.judging import CONTRADICTED, REPRODUCED, UNDECIDED
from eval.claims.score_rule import DISAGREEMENT, EGOSCHEMA, Measured, Overlap, judge_lead, judge_score
from eval.instruments.cli import Count, Parser, provenance, user_errors
from eval.instruments.kinds import stamped
from eval.instruments.progress import progress
from eval.instruments.significance import clustered_mean, interval, mcnemar, paired_difference, paired_p

CORRELATION = 0.3  # of the latent difficulty of two questions about one video
LEVELS = (0.01, 0.05, 0.1, 0.2)
TRUE_DIFFERENCES = (0, 1, 2, 3)
_CHANGED = 0.1  # share of the answers on which two methods differ by chance
_ROWS = 33
_UNIFORM = 3  # standard errors of a share of rejections


@dataclass(frozen=True)
class Shape:
    """A benchmark: videos with questions each, sub-tasks, the share of right answers, and what both runs share."""

    videos: int
    questions: int
    right: float
    subtasks: int = 1
    overlap: Overlap = "same"
    spread: float = 0.0  # of the sub-tasks' shares of right answers, to both sides


SHAPES = {
    "MVBench": Shape(4000, 4000, 0.58, 20, spread=0.2),
    "VideoMME": Shape(900, 2700, 0.58),
    "LongVideoBench": Shape(750, 1337, 0.56),
    "EgoSchema, subset": Shape(500, 500, 0.60, overlap="subset"),
}
OTHERS = {
    "8 videos": Shape(8, 24, 0.58),
    "15 videos": Shape(15, 45, 0.58),
    "12 questions a video": Shape(225, 2700, 0.58),
}


class DrawnBenchmark:
    """Questions of one benchmark drawn anew; ``video`` and ``subtask`` of each, (questions,)."""

    def __init__(self, shape: Shape, draw: np.random.Generator, correlation: float = CORRELATION) -> None:
        count = EGOSCHEMA if shape.overlap == "subset" else shape.questions
        videos = count if shape.overlap == "subset" else shape.videos
        self.shape, self.draw = shape, draw
        self.video = np.arange(count) % videos if count % videos == 0 else np.sort(draw.integers(0, videos, count))
        self.subtask = np.arange(count) * shape.subtasks // count
        shares = shape.right + np.linspace(-shape.spread, shape.spread, shape.subtasks)
        self.bound = np.array([NormalDist().inv_cdf(share) for share in shares])[self.subtask]
        self.share = shares[self.subtask]
        self.root = math.sqrt(correlation), math.sqrt(1 - correlation)

    def latent(self) -> np.ndarray:
        """What makes each question hard, a normal deviate that questions about one video share in part."""
        shared = self.draw.standard_normal(self.video.max() + 1)[self.video]
        return self.root[0] * shared + self.root[1] * self.draw.standard_normal(len(self.video))

    def answers(self) -> np.ndarray:
        """Right (1) or wrong (0) of one run, (questions,)."""
        return (self.latent() < self.bound).astype(float)

    def other_run(self, right: np.ndarray, changed: float, difference: float) -> tuple[np.ndarray, np.ndarray]:
        """Two runs that differ on a share of the questions, the first better by ``difference`` (a share) on average."""
        mark = self.draw.random(len(right))
        first, second = right.copy(), right.copy()
        up, down = mark < (changed + difference) / 2, mark > 1 - (changed - difference) / 2
        first[up], second[up] = 1, 0
        first[down], second[down] = 0, 1
        return first, second

    def score(self, right: np.ndarray) -> float:
        """Mean of the sub-tasks' shares, in percent."""
        return 100 * float(np.mean([right[self.subtask == part].mean() for part in range(self.shape.subtasks)]))

    def measured(self, right: np.ndarray) -> Measured:
        """A run of ours as the rule takes it; of EgoSchema only the questions with public answers."""
        part = slice(self.shape.questions)
        right, video, subtask = right[part], self.video[part], self.subtask[part]
        mean, error = clustered_mean(right.tolist(), video.tolist(), subtask.tolist())
        shares = [right[subtask == one].mean() for one in range(self.shape.subtasks)]
        variance = float(np.mean([share * (1 - share) for share in shares]))
        return Measured(100 * mean, 100 * error, variance, len(right), self.shape.overlap)


def verdicts(shape: Shape, difference: float, repetitions: int, seed: int, changed: float) -> dict[str, float]:
    """Share of each verdict when ours is truly lower by so many points and both runs differ on a share of answers."""
    draw, counts = np.random.default_rng(seed), Counter[str]()
    for _ in range(repetitions):
        drawn = DrawnBenchmark(shape, draw)
        paper, ours = drawn.other_run(drawn.answers(), max(changed, difference / 100), difference / 100)
        counts[judge_score(round(drawn.score(paper), 1), drawn.measured(ours)).verdict] += 1
    return {verdict: counts[verdict] / repetitions for verdict in (REPRODUCED, UNDECIDED, CONTRADICTED)}


def coverage(shape: Shape, repetitions: int, seed: int) -> float:
    """How often the 95 % interval of a score holds the true share."""
    draw, held = np.random.default_rng(seed), 0
    for _ in range(repetitions):
        drawn = DrawnBenchmark(replace(shape, overlap="same"), draw)
        ours = drawn.measured(drawn.answers())
        low, high = interval(ours.score, ours.error, len(set(drawn.video.tolist())))
        held += low <= 100 * shape.right <= high
    return held / repetitions


def _two_methods(shape: Shape, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray, DrawnBenchmark]:
    """Two equally good methods that differ on a share of the questions, in the same way on those of one video."""
    drawn = DrawnBenchmark(replace(shape, overlap="same"), draw)
    right = drawn.answers()
    lean = NormalDist().inv_cdf(_CHANGED / 2)
    latent = drawn.latent()
    up, down = latent < lean, latent > -lean
    first, second = right.copy(), right.copy()
    first[up], second[up] = 1, 0
    first[down], second[down] = 0, 1
    return first, second, drawn


def paired(shape: Shape, repetitions: int, seed: int) -> dict[str, Any]:
    """The paired test where nothing differs: share rejected at each level, as if uniform or not; McNemar beside."""
    draw, found, counted = np.random.default_rng(seed), [], []
    for _ in range(repetitions):
        first, second, drawn = _two_methods(shape, draw)
        right, other = first.tolist(), second.tolist()
        found.append(paired_p(right, other, drawn.video.tolist(), drawn.subtask.tolist()))
        counted.append(mcnemar(right, other))
    values = np.array(found)
    rejected = {level: float((values < level).mean()) for level in LEVELS}
    bounds = {level: _UNIFORM * math.sqrt(level * (1 - level) / repetitions) for level in LEVELS}
    correlated = shape.videos < shape.questions or shape.subtasks > 1
    return {
        "test": "clustered" if correlated else "McNemar, exact",  # the latter is discrete and errs to the safe side
        "rejected": {str(level): share for level, share in rejected.items()},
        "mcnemar_rejected": {str(level): float((np.array(counted) < level).mean()) for level in LEVELS},
        "uniform": all(abs(share - level) <= bounds[level] for level, share in rejected.items()),
    }


def paired_coverage(shape: Shape, repetitions: int, seed: int, resamples: int = 1000) -> float:
    """How often the paired 95 % interval holds the true difference, which is zero."""
    draw, held = np.random.default_rng(seed), 0
    for trial in range(repetitions):
        first, second, drawn = _two_methods(shape, draw)
        videos, parts = drawn.video.tolist(), drawn.subtask.tolist()
        _, low, high = paired_difference(
            first.tolist(), second.tolist(), videos, parts, resamples=resamples, seed=trial
        )
        held += low <= 0 <= high
    return held / repetitions


def family(repetitions: int, seed: int, changed: float) -> dict[str, float]:
    """All cells truly reproduced, the rows of one benchmark on the same questions: what is called how, on average."""
    draw, counts, worlds = np.random.default_rng(seed), Counter[str](), 0
    for _ in range(repetitions):
        before = counts[CONTRADICTED]
        for shape in SHAPES.values():
            drawn = DrawnBenchmark(shape, draw)
            base = drawn.answers()
            for _ in range(_ROWS):  # rows differ from each other on a tenth of the answers
                row, _other = drawn.other_run(base, _CHANGED, 0.0)
                paper, ours = drawn.other_run(row, changed, 0.0)
                counts[judge_score(round(drawn.score(paper), 1), drawn.measured(ours)).verdict] += 1
        worlds += counts[CONTRADICTED] > before
    shares: dict[str, float] = {
        verdict: counts[verdict] / repetitions for verdict in (REPRODUCED, UNDECIDED, CONTRADICTED)
    }
    return {**shares, "any_contradicted": worlds / repetitions}


def best(lead: float, repetitions: int, seed: int, rivals: int = 4) -> dict[str, float]:
    """Verdicts on "best of all" when a method is truly so many points better than each of its rivals."""
    draw, counts = np.random.default_rng(seed), Counter[str]()
    for _ in range(repetitions):
        found: dict[str, list[tuple[float, float]]] = {str(rival): [] for rival in range(rivals)}
        for shape in SHAPES.values():
            drawn = DrawnBenchmark(replace(shape, overlap="same"), draw)
            base = drawn.answers()
            ours, _ = drawn.other_run(base, _CHANGED, lead / 100)  # better than a base by half of the lead
            for gaps in found.values():
                _, theirs = drawn.other_run(base, _CHANGED, lead / 100)
                gaps.append(clustered_mean((ours - theirs).tolist(), drawn.video.tolist(), drawn.subtask.tolist()))
        leads = {
            name: (100 * sum(mean for mean, _ in gaps) / 4, 100 * math.sqrt(sum(e**2 for _, e in gaps)) / 4)
            for name, gaps in found.items()
        }
        counts[judge_lead(leads)] += 1
    return {verdict: counts[verdict] / repetitions for verdict in (REPRODUCED, UNDECIDED, CONTRADICTED)}


def simulate(repetitions: int, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Everything that is recorded; the slower parts run on fewer repetitions, which the result states."""
    fewer, worlds = max(1, repetitions // 4), max(1, repetitions // 20)
    found: dict[str, Any] = stamped("verdict_rule", {"disagreement": DISAGREEMENT, "cells": 4 * _ROWS})
    found["repetitions"] = {"coverage, p-values": repetitions, "bootstrap": fewer, "power": fewer, "worlds": worlds}
    found |= {"correlation": CORRELATION, "coverage": {}, "paired": {}, "paired_coverage": {}, "power": {}}
    for place, (name, shape) in enumerate(progress((SHAPES | OTHERS).items(), "Coverage")):
        say(name)
        found["coverage"][name] = coverage(shape, repetitions, place)
        found["paired"][name] = paired(shape, repetitions, 100 + place)
        found["paired_coverage"][name] = paired_coverage(shape, fewer, 200 + place)
    for place, (name, shape) in enumerate(progress(SHAPES.items(), "Verdicts")):
        say(f"verdicts of {name}")
        found["power"][name] = {
            str(gap): verdicts(shape, gap, fewer, 300 + 10 * place + gap, DISAGREEMENT) for gap in TRUE_DIFFERENCES
        }
    say("all cells, and the best of all")
    found["family"] = family(worlds, 400, DISAGREEMENT)
    found["family_0.08"] = family(worlds, 401, 0.08)
    found["best_of_all"] = {str(lead): best(lead, fewer, 500 + lead) for lead in (0, 1, 2)}
    return found


def table(found: dict[str, Any]) -> str:
    """The verdicts as a table in Markdown: percent reproduced / undecided / contradicted."""
    lines = ["| benchmark | " + " | ".join(f"d = {gap}" for gap in TRUE_DIFFERENCES) + " |", "|---" * 5 + "|"]
    for name, shares in found["power"].items():
        cells = (" / ".join(f"{100 * share:.0f}" for share in shares[str(gap)].values()) for gap in TRUE_DIFFERENCES)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--repetitions", action=Count, default=2000, help="of the quickest parts (default 2000)")
    options = parser.parse_args(arguments)
    found = simulate(options.repetitions, lambda text: print(text, flush=True))
    print(table(found))
    print(json.dumps({**found, **provenance()}))


if __name__ == "__main__":
    main()
