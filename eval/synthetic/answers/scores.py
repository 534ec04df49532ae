"""Scores of one run on the synthetic benchmark, beside those without compression."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from eval.instruments.significance import clustered_mean, paired_difference
from eval.synthetic.answers.evaluate import Answer
from eval.synthetic.world.questions import SCORED

NOTICE = (
    "Tiny learned model (2.5 million parameters) on rendered clips: an instrument, not evidence about the 7B model."
)


def right(answers: Sequence[Answer]) -> list[float]:
    """1 for a right answer, 0 for a wrong one."""
    return [float(answer.right) for answer in answers]


def family_scores(answers: Sequence[Answer]) -> dict[str, float]:
    """Share of right answers in each family, in order of appearance."""
    found: dict[str, list[float]] = {}
    for answer in answers:
        found.setdefault(answer.family, []).append(float(answer.right))
    return {family: fmean(values) for family, values in found.items()}


def counted(answers: Sequence[Answer]) -> list[Answer]:
    """Those that count in a score: answers to the families the model has learned."""
    return [answer for answer in answers if answer.family in SCORED]


def difference(method: Sequence[Answer], reference: Sequence[Answer]) -> tuple[float, float, float]:
    """Mean of the scored families' differences and its paired interval over clips (95 %)."""
    method, reference = counted(method), counted(reference)
    assert [answer.id for answer in method] == [answer.id for answer in reference]
    clips, families = [answer.clip for answer in method], [answer.family for answer in method]
    return paired_difference(right(method), right(reference), clips, families)


def verdict(low: float, high: float) -> str:
    """What an interval of a difference allows to say; a difference that may be chance is none."""
    return "better" if low > 0 else "worse" if high < 0 else "no difference shown"


def scores(answers: Sequence[Answer], full: Sequence[Answer]) -> dict[str, Any]:
    """Everything a table shows of one run.

    Args:
        answers: of the run.
        full: of the run without compression on the same questions, in the same order.

    Returns:
        Shares in [0, 1]: ``score`` (mean of the scored families) and its standard error over clips, ``retention``
        (score over full score), ``difference`` to full with ``low`` and ``high``, ``families``; means over questions:
        visual tokens ``before``, ``outer``, ``inside``, and ``gflops``.
    """
    everything, answers, full = answers, counted(answers), counted(full)
    score, error = clustered_mean(right(answers), [a.clip for a in answers], [a.family for a in answers])
    change, low, high = difference(answers, full)
    return {
        "questions": len(answers),
        "score": score,
        "error": error,
        "retention": score / max(score - change, 1e-12),
        "difference": change,
        "low": low,
        "high": high,
        "verdict": verdict(low, high),
        "before": fmean(answer.before for answer in answers),
        "outer": fmean(answer.outer for answer in answers),
        "inside": fmean(answer.inside for answer in answers),
        "gflops": fmean(answer.flops for answer in answers) / 1e9,
        "families": family_scores(everything),
    }
