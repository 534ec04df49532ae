"""The first section of the tables: who beats HoliTom at its own share, from a record made here."""

from pathlib import Path
from typing import Any

import pytest

from eval.instruments.kinds import stamped
from eval.report.readme.field import field
from tests.eval.report.page.made import write_json


def row(score: float, verdict: str | None = None) -> dict[str, Any]:
    """A row of one number of frames, ``verdict`` against HoliTom."""
    if verdict is None:
        return {"score": score}
    difference = {"better": 0.1, "worse": -0.1}[verdict]
    return {"score": score, "against_holitom": {"difference": difference, "low": -0.2, "high": 0.3, "verdict": verdict}}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    few = {"vanilla": row(0.9), "holitom_r10": row(0.5), "fastvid_r10": row(0.6, "better")}
    more = {"vanilla": row(0.9), "holitom_r10": row(0.6), "fastvid_r10": row(0.7, "better")}
    by_frames = {"4": {**few, "evs_r10": row(0.55, "better")}, "8": {**more, "evs_r10": row(0.5, "worse")}}
    result = {"by_frames": by_frames, "questions": 12}
    facts = {"command": "made", "commit": "abc", "device": "none", "torch": "2", "transformers": "5"}
    (tmp_path / "tiny").mkdir()
    write_json(tmp_path / "tiny" / "tradeoff.json", stamped("tradeoff", {**facts, "result": result}))
    return tmp_path


def test_only_who_is_better_everywhere_is_named(results: Path) -> None:
    first, *lines = field(results).splitlines()
    assert first.startswith("**Better than HoliTom at 10 % of the tokens at every number of frames: FastVID.**")
    assert "12 questions" in first
    table = [line for line in lines if line.startswith("| ")][1:]
    assert table[0] == "| FastVID | 60.0 | +10.0 [-20.0, +30.0] better | 70.0 | +10.0 [-20.0, +30.0] better |"
    assert table[1] == "| HoliTom | 50.0 | - | 60.0 | - |"
    assert len(table) == 3  # vanilla has no share


def test_nothing_measured_is_said(tmp_path: Path) -> None:
    assert field(tmp_path) == "`tradeoff.json`: not measured."
