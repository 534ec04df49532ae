"""From numbers to a verdict: the functions by which every claim is judged."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

Verdict = Literal["reproduced", "contradicted", "partly", "undecided", "not measurable here"]
REPRODUCED: Verdict = "reproduced"
CONTRADICTED: Verdict = "contradicted"
PARTLY: Verdict = "partly"
UNDECIDED: Verdict = "undecided"
NOT_HERE: Verdict = "not measurable here"

# what a claim is about; verdicts are counted by it
Kind = Literal["arithmetic", "rule of the method", "accuracy", "speed"]
ARITHMETIC: Kind = "arithmetic"
RULE: Kind = "rule of the method"
ACCURACY: Kind = "accuracy"
SPEED: Kind = "speed"
KINDS = (ARITHMETIC, RULE, ACCURACY, SPEED)

# what a file makes fail that is read as something it is not
_DAMAGE = (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, StopIteration)
_ROUNDING = 1e-9  # of a difference between a number and its printed form


@dataclass(frozen=True)
class StepEvidence:
    """What one step of evidence gave.

    Attributes:
        result: its numbers, or None if there are none.
        missing: why there are none.
        failed: the code under test broke down, which is a finding about it.
        command: how to make it.
        commit: of the code that made it.
        device: that it was made on.
        samples: how many cases, questions, runs or repetitions.
        file: where it is kept.
        when: ``now``, ``kept`` or ``recorded``; see :mod:`eval.claims`.
        seconds: it took.
    """

    result: dict[str, Any] | None
    missing: str = ""
    failed: bool = False
    command: str | None = None
    commit: str | None = None
    device: str | None = None
    samples: int | None = None
    file: str | None = None
    when: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Judgement:
    """A verdict and the numbers it rests on.

    ``by`` names the step that gave them, if not the claim's first; ``cells`` holds the verdict on each score of a row.
    """

    verdict: Verdict
    why: str
    ours: dict[str, Any] | None = None
    difference: Any = None
    needs: str | None = None
    by: str | None = None
    cells: dict[str, dict[str, Any]] | None = None


Evidence = Mapping[str, StepEvidence]
Numbers = Mapping[str, float]


@dataclass(frozen=True)
class Claim:
    """Something the paper (or this project about itself) says, and how it is judged.

    Attributes:
        identity: short name, unique.
        source: where it is said.
        text: what is said.
        paper: the numbers as printed.
        steps: names of the steps that may give evidence, the most telling first.
        judge: from the evidence to a judgement; called only if the first step did not break down.
        broken: verdict if the first step broke down.
        kind: what it is about; the catalogue gives it to a family of claims that does not say itself.
    """

    identity: str
    source: str
    text: str
    paper: Mapping[str, Any]
    steps: tuple[str, ...]
    judge: Callable[[Evidence], Judgement]
    broken: Verdict = NOT_HERE
    kind: Kind | None = None


def half_digit(digits: int) -> float:
    """Tolerance of a number that is printed with so many digits behind the point."""
    return 0.5 * 10.0**-digits + _ROUNDING


def differences(ours: Numbers, paper: Numbers) -> dict[str, float]:
    """Ours minus the paper's, of every number that both have."""
    return {name: round(ours[name] - paper[name], 6) for name in paper if name in ours}


def as_printed(ours: Numbers, paper: Numbers, digits: int) -> Judgement:
    """Reproduced if every number of the paper is ours to the printed digit, else contradicted."""
    gaps, tolerance = differences(ours, paper), half_digit(digits)
    wrong = [name for name in paper if name not in gaps or not abs(gaps[name]) <= tolerance]
    shown = ", ".join(f"{name} {ours.get(name, math.nan):.4g} (printed {paper[name]})" for name in wrong or paper)
    why = f"{'not equal' if wrong else 'equal'} to the {digits} printed digit(s): {shown}"
    return Judgement(CONTRADICTED if wrong else REPRODUCED, why, dict(ours), gaps)


def at_most(value: float, limit: float, name: str, digits: int) -> Judgement:
    """Reproduced if a number is no larger than the printed one."""
    gap = round(value - limit, 6)
    verdict = REPRODUCED if gap <= half_digit(digits) else CONTRADICTED
    word = "at most" if verdict == REPRODUCED else "more than"
    return Judgement(verdict, f"{name} is {value:.4g}, {word} the printed {limit}", {name: value}, {name: gap})


def all_hold(facts: Mapping[str, bool], ours: dict[str, Any], what: str) -> Judgement:
    """Reproduced if every one of several statements holds, contradicted with those that do not.

    Raises:
        ValueError: without a statement, for nothing holds of nothing.
    """
    if not facts:
        raise ValueError(f"{what}: nothing was measured")
    broken = [name for name, holds in facts.items() if not holds]
    why = f"{what}: " + (f"{', '.join(broken)} do(es) not hold" if broken else ", ".join(facts))
    return Judgement(CONTRADICTED if broken else REPRODUCED, why, ours)


def better(difference: float, low: float, high: float, what: str) -> Judgement:
    """A paired difference that should be above zero: its interval decides."""
    ours = {"difference": difference, "low": low, "high": high}
    verdict = REPRODUCED if low > 0 else CONTRADICTED if high < 0 else UNDECIDED
    word = {REPRODUCED: "better", CONTRADICTED: "worse", UNDECIDED: "no difference shown"}[verdict]
    interval = f"{100 * difference:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"
    return Judgement(verdict, f"{what}: {interval}, {word}", ours, difference)


def not_here(why: str, needs: str, ours: dict[str, Any] | None = None, by: str | None = None) -> Judgement:
    """No verdict on this machine."""
    return Judgement(NOT_HERE, why, ours, None, needs, by)


def first(evidence: Evidence, names: Sequence[str]) -> tuple[str, dict[str, Any]] | None:
    """Name and result of the first step that gave one."""
    for name in names:
        result = evidence[name].result if name in evidence else None
        if result is not None:
            return name, result
    return None


def result_of(evidence: Evidence, name: str) -> dict[str, Any]:
    """The result of a step that gave one."""
    result = evidence[name].result
    assert result is not None
    return result


def judged(claim: Claim, evidence: Evidence) -> Judgement:
    """The verdict on one claim; a broken-down or absent first step is spoken of, never passed over.

    Files that were read and are not what they claim to be count as absent, and the reason names them.
    """
    leading = evidence[claim.steps[0]]
    if leading.failed:
        return Judgement(claim.broken, f"the check broke down: {leading.missing}", needs=leading.missing)
    if first(evidence, claim.steps) is None:
        reasons = dict.fromkeys(evidence[name].missing for name in claim.steps if evidence[name].missing)
        missing = "; ".join(reasons) or "nothing was measured"
        return not_here(missing, missing)
    try:
        return claim.judge(evidence)
    except _DAMAGE as error:
        found = {name: evidence[name] for name in claim.steps if evidence[name].result is not None}
        read = {name: given for name, given in found.items() if given.when in ("kept", "recorded")}
        if not read:
            raise
        files = ", ".join(str(given.file) for given in read.values())
        why = f"{files} cannot be judged by ({type(error).__name__}: {error}): remove it or measure again"
        spoiled = {name: replace(given, result=None, missing=why) for name, given in read.items()}
        return judged(claim, {**evidence, **spoiled})
