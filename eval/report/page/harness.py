"""The dispute about the uncompressed model: two releases of the harness, and what others report since the paper."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from eval.paper.reported import REPORTS
from eval.paper.scores import MAIN_SCORES
from eval.report.page.blocks import Block, Cell, Column, Notice, Sheet, figure
from eval.report.page.sources import Sources
from eval.report.tables.scores import title_of

MAKE = "bash scripts/harness_030.sh, then python -m eval.benchmarks.versions"


def harness_blocks(sources: Sources) -> list[Block]:
    """What is reported, and what differs between the paper's harness and the installed one, shown by runs."""
    blocks: list[Block] = [_reports()]
    recorded = sources.of("harness_versions")
    if not recorded:
        return [*blocks, Notice(f"The two releases of the harness were not compared: {MAKE}", "absent")]
    return [*blocks, _differences(recorded[0].result), _log(recorded[0].result)]


def _reports() -> Sheet:
    columns = [Column(name) for name in ("benchmark", "method", "paper", "reported", "diff.", "where", "said of it")]
    rows = []
    for report in REPORTS:
        for task, score in report.scores.items():
            printed = MAIN_SCORES[report.method, report.retained].of(task)
            gap = None if printed is None else score - printed
            label = report.method if report.retained == 100 else f"{report.method}, {report.retained} %"
            rows.append(
                [
                    Cell(title_of(task)),
                    Cell(label),
                    figure(printed),
                    figure(score, 2),
                    figure(gap, 1, sign=True),
                    Cell(f"{report.source}, {report.date}"),
                    Cell(report.setting),
                ]
            )
    notes = (
        "Reported by others with the published checkpoint; nothing of it was measured here. The authors name lmms-eval "
        "0.3.0 (cokeshao/HoliTom#7 and #8). Only a run with --harness 0.3.0 is held against the paper's baseline.",
    )
    return Sheet("reported-scores", "What others report of the published checkpoint", columns, rows, notes)


def _differences(found: Mapping[str, Any]) -> Sheet:
    columns = [Column("benchmark"), Column("what"), Column(found["paper"]), Column(found["ours"]), Column("shown by")]
    rows = [
        [
            Cell(title_of(line["task"])),
            Cell(line["what"]),
            *(Cell(json.dumps(line[key])) for key in ("old", "new")),
            Cell(line["shown"]),
        ]
        for line in found["differences"]
    ]
    same = ", ".join(title_of(task) for task in found["unchanged"])
    questions = sum(found["questions"].values())
    notes = (
        f"Both releases ran on the same {questions} miniature questions, {found['forms']} forms of an answer each. "
        f"Asked, read and scored alike: {same}. "
        f"Frames of a clip are {'equal' if found['frames_equal'] else 'different'}.",
    )
    return Sheet("harness-differences", "What differs between the releases of lmms-eval", columns, rows, notes)


def _log(found: Mapping[str, Any]) -> Sheet:
    versions = (found["paper"], found["ours"])
    rows = [
        [
            Cell(title_of(task)),
            *(figure(found["log"][version][task], 2) for version in versions),
            figure(found["forms"] * count, 0),
        ]
        for task, count in found["questions"].items()
    ]
    notes = ("No model made these answers: every form of the right one, to every question. They show reading alone.",)
    columns = [Column("benchmark"), *(Column(version, "score, %") for version in versions), Column("answers")]
    return Sheet("harness-log", "One log of answers, scored by both releases", columns, rows, notes)
