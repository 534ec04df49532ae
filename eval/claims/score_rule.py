"""The one rule by which a measured score is held against a printed one.

The paper and this project answer the same questions, so their scores differ by far less than each score's own error:
two runs of one truth differ on a share q of the answers. Everything is in points (percent of the questions) but
``variance`` and shares. ``python -m eval.claims.operating_characteristics`` simulates how often each verdict is given
to which true difference; the error rates that :func:`rule_sentence` names come from its record.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

from eval.claims.judging import CONTRADICTED, PARTLY, REPRODUCED, UNDECIDED, Verdict
from llava.errors import InputError

FLOOR = 1.5  # points: what counts as equivalent, and no smaller difference is ever called a contradiction
DISAGREEMENT = 0.05  # q, assumed until one configuration was run on two devices
CELLS = 132  # 33 rows on 4 benchmarks
EQUIVALENT = 1.645  # two one-sided tests at 5 %
CONTRADICTING = 3.555  # two-sided 5 % over CELLS
EGOSCHEMA = 5031  # questions of the full set, whose score is printed
_ROUNDED = 0.1**2 / 12  # variance of a number that is printed to 0.1

Overlap = Literal["same", "subset", "other"]
OVERLAPS = ("same", "subset", "other")
RULE = (
    f"A score is reproduced when |d| + {EQUIVALENT} u is at most {FLOOR} points (d: ours minus printed; u: the "
    f"standard error of d when two runs of one truth differ on {DISAGREEMENT:.0%} of the answers), contradicted when "
    f"|d| is above both {FLOOR} points and {CONTRADICTING} u (5 % over {CELLS} cells), and else undecided, with the "
    "number of questions that would decide it."
)


@dataclass(frozen=True)
class Measured:
    """One score of ours.

    Attributes:
        score: in percent.
        error: its standard error in points, questions about one video taken together.
        variance: p(1 - p) of one answer; for MVBench the mean of its sub-tasks'.
        questions: how many were answered.
        overlap: what this run shares with the paper's: ``same`` questions, prompts and frames; a ``subset`` of the
            printed score's questions (EgoSchema's 500); ``other``: not known to share them.
    """

    score: float
    error: float
    variance: float
    questions: int
    overlap: Overlap = "same"

    def __post_init__(self) -> None:
        if self.overlap not in OVERLAPS:
            raise InputError(f"overlap = {self.overlap!r} is unknown: it must be one of {', '.join(OVERLAPS)}")
        if self.questions < 1 or not self.error >= 0 or not 0 <= self.variance <= 0.25:
            raise InputError(
                f"a score of {self.questions} questions with error {self.error} and variance {self.variance}: there "
                "must be a question, an error of at least 0, and a variance in [0, 0.25]"
            )


@dataclass(frozen=True)
class ScoreVerdict:
    """A verdict on one score: ``error`` is u; ``needed`` questions would decide it, None if decided or none would."""

    verdict: Verdict
    difference: float
    error: float
    needed: int | None
    why: str

    def as_record(self) -> dict[str, Any]:
        """As ``claims.json`` has it."""
        return {
            "verdict": self.verdict,
            "difference": round(self.difference, 6),
            "u": round(self.error, 6),
            "needed": self.needed,
            "why": self.why,
        }


def rerun_variance(ours: Measured) -> float:
    """Variance in points of the difference of two runs of one truth, without the rounding of the printed score."""
    if ours.overlap == "other":
        return 2 * ours.error**2
    if ours.overlap == "subset":
        return ours.error**2 * (1 - ours.questions / EGOSCHEMA)
    if ours.variance == 0:  # all answers right, or none: the limit for independent questions
        return 100**2 * DISAGREEMENT / ours.questions
    return ours.error**2 * DISAGREEMENT / ours.variance


def verdict_of(difference: float, error: float) -> Verdict:
    """The rule itself, for a difference in points and its standard error u."""
    if abs(difference) + EQUIVALENT * error <= FLOOR:
        return REPRODUCED
    return CONTRADICTED if abs(difference) > max(FLOOR, CONTRADICTING * error) else UNDECIDED


def judge_score(printed: float, ours: Measured) -> ScoreVerdict:
    """Hold one score against the printed one.

    Args:
        printed: in percent, to one digit.
        ours: the score as it was measured.
    """
    difference = ours.score - printed
    error = math.sqrt(rerun_variance(ours) + _ROUNDED)
    verdict = verdict_of(difference, error)
    needed = questions_needed(difference, ours) if verdict == UNDECIDED else None
    return ScoreVerdict(verdict, difference, error, needed, _why(verdict, needed, ours))


def questions_needed(difference: float, ours: Measured) -> int | None:
    """How many questions like these would decide, if the difference stayed as it is; None if no number would."""
    gap = abs(difference)
    bound = (FLOOR - gap) / EQUIVALENT if gap <= FLOOR else gap / CONTRADICTING
    allowed = bound**2 - _ROUNDED
    if allowed <= 0:
        return None
    if ours.overlap == "subset":  # the remaining questions of the full set are what the error is about
        per_question = ours.error**2 * ours.questions
        return math.ceil(1 / (allowed / per_question + 1 / EGOSCHEMA))
    return math.ceil(ours.questions * rerun_variance(ours) / allowed)


def _why(verdict: Verdict, needed: int | None, ours: Measured) -> str:
    words = {
        "same": "",
        "subset": f"a part of the printed score's {EGOSCHEMA:,} questions",
        "other": "not known to share the paper's prompts (another version of the harness)",
    }[ours.overlap]
    if verdict != UNDECIDED:
        return words
    more = (
        "no number of questions decides a difference at the bound"
        if needed is None
        else (f"{needed:,} questions would decide it")
    )
    return "; ".join(filter(None, (words, more)))


def combined(verdicts: Iterable[Verdict], expected: int) -> Verdict:
    """One verdict on a row of scores: contradicted by any; reproduced by all that are printed, partly by some.

    Raises:
        ValueError: no verdict.
    """
    found = list(verdicts)
    if not found:
        raise ValueError("no score was judged")
    if CONTRADICTED in found:
        return CONTRADICTED
    reproduced = found.count(REPRODUCED)
    return UNDECIDED if not reproduced else REPRODUCED if reproduced == expected else PARTLY


def judge_ratio(printed: float, percent: float, parts: Mapping[str, Mapping[str, Any]]) -> ScoreVerdict:
    """Hold a ratio of two mean scores, such as the share of accuracy that is kept, against the printed one.

    Args:
        printed: in percent.
        percent: ours.
        parts: for each benchmark ``error``, that of the ratio in points when its numerator and denominator answer the
            same questions (:func:`eval.instruments.significance.ratio_error`), ``rerun``, the error of its difference
            between two runs, and ``overlap``, see :class:`Measured`.
    """
    variance = _ROUNDED
    for part in parts.values():
        own = float(part["error"]) ** 2
        shared = {"other": 2 * own, "subset": own * (1 - int(part["questions"]) / EGOSCHEMA)}
        variance += shared.get(str(part["overlap"]), float(part["rerun"]) ** 2)
    difference, error = percent - printed, math.sqrt(variance)
    verdict = verdict_of(difference, error)
    why = "" if verdict != UNDECIDED else "the benchmarks' questions are too few to decide it"
    return ScoreVerdict(verdict, difference, error, None, why)


def judge_lead(leads: Mapping[str, tuple[float, float]]) -> Verdict:
    """Whether a method is better than every rival, from paired differences: a tie is undecided, not contradicted.

    Args:
        leads: for each rival the method's mean score minus the rival's and its paired standard error, in points.

    Returns:
        ``reproduced`` when every lead is above 1.645 of its errors (each one-sided at 5 %, all must hold);
        ``contradicted`` when one is below minus the bound of 5 % over the number of rivals; else ``undecided``.

    Raises:
        ValueError: without a rival.
    """
    if not leads:
        raise ValueError("no rival was measured")
    bound = one_sided(0.05 / len(leads))
    if any(lead < -bound * error for lead, error in leads.values()):
        return CONTRADICTED
    return REPRODUCED if all(lead > EQUIVALENT * error for lead, error in leads.values()) else UNDECIDED


def one_sided(level: float) -> float:
    """Standard errors beyond which a normal deviate lies with this probability, on one side."""
    return NormalDist().inv_cdf(1 - level)


def rule_sentence(rates: Mapping[str, Any] | None) -> str:
    """The rule with its error rates for a reader; ``rates``: the recorded simulation's result, or None."""
    if rates is None:
        return f"{RULE} Its error rates: python -m eval.claims.operating_characteristics (not recorded here)."
    family, lowest = rates["family"], rates["power"]["VideoMME"]
    return (
        f"{RULE} Simulated over {CELLS} cells that are all true, {family['reproduced']:.0f} are called reproduced, "
        f"{family['contradicted']:.2f} contradicted, at least one in {family['any_contradicted']:.1%} of worlds; a "
        f"true difference of 3 points on VideoMME is called reproduced in {lowest['3']['reproduced']:.1%} and "
        f"contradicted in {lowest['3']['contradicted']:.1%} of runs."
    )
