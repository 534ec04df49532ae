"""What others report of running the published checkpoint; nothing of it was measured here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ReportedScores:
    """Scores that someone published.

    Attributes:
        source: where.
        date: year and month.
        method: of the main table, with ``retained`` percent of the tokens.
        scores: percent by task.
        setting: what is said about how they were made.
    """

    source: str
    date: str
    method: str
    retained: int
    scores: Mapping[str, float]
    setting: str = "release of the harness not stated"


REPORTS = (
    ReportedScores(
        "cokeshao/HoliTom#16", "2026-09", "Vanilla", 100,
        {"egoschema_subset": 57.0, "videomme": 63.9, "mvbench": 61.5, "longvideobench_val_v": 58.3},
    ),
    ReportedScores("cokeshao/HoliTom#16", "2026-09", "HoliTom", 25, {"egoschema_subset": 54.9}),
    ReportedScores(
        "EvolvingLMMs-Lab/lmms-eval#1541", "2026-09", "Vanilla", 100, {"videomme": 63.93},
        "32 frames, against an expected 58.2",
    ),
)  # fmt: skip


def reported(task: str, method: str, retained: int) -> list[ReportedScores]:
    """What is reported of one score of the main table."""
    return [one for one in REPORTS if task in one.scores and (one.method, one.retained) == (method, retained)]
