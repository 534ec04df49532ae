"""The learned tiny model: an instrument whose numbers say nothing about the paper's model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eval.instruments.significance import paired_p
from eval.report.page.blocks import Block, Notice, Section, Sheet
from eval.report.page.charts import Series, curves, method_label
from eval.report.page.samples import SampleSet
from eval.report.page.sheets import sheet_of
from eval.report.page.sources import ResultFile, Sources
from eval.report.tables.tiny import DUELS, SCORES, about, duels, family_columns, in_main_table, scored
from llava.errors import InputError

NO_EVIDENCE = "Numbers of this section are no evidence about the 7B model; they are never held against the paper."
_PERCENT = 100


def tiny_section(sources: Sources, sets: Mapping[str, SampleSet]) -> Section:
    """Scores, families and pairs of every main table of the tiny model.

    Args:
        sources: what was read.
        sets: answers by the path of the record they belong to; with them pairs get the p of a paired test.
    """
    records = [record for record in sources.of("tiny") if record.result["table"] == "main"]
    blocks: list[Block] = []
    for notice in dict.fromkeys(str(record.result["notice"]) for record in records):
        blocks.append(Notice(f"{notice} {NO_EVIDENCE}", "instrument"))
    if not records:
        blocks.append(Notice("Not measured: no main table of the tiny model. bash scripts/table_tiny.sh", "absent"))
    for record in records:
        for made in sources.tried(record.path, _of_record, record, sets.get(record.path)):
            blocks += made
    return Section("tiny", "Instrument: the learned tiny model", blocks)


def source_note(record: ResultFile) -> str:
    """Where the numbers come from."""
    data = record.data
    return f"{record.path}: {data['command']}, {data.get('date', 'no date')}, commit {data['commit']}, {data['device']}"


def _of_record(record: ResultFile, answers: SampleSet | None) -> list[Block]:
    stem = record.slug
    rows, title = scored(record.result, in_main_table(record.result)), about(record.result)
    main = f"Main table of the tiny model, {title}"
    blocks: list[Block] = [sheet_of(stem, main, SCORES, rows, score_notes(record))]
    if len(record.result["settings"]) > 1:
        blocks.append(flops_chart(stem, record))
    blocks.append(sheet_of(f"{stem}-families", f"Families of questions, %, {title}", family_columns(rows), rows))
    if record.result["duels"]:
        blocks.append(_duels(stem, record, answers))
    return blocks


def score_notes(record: ResultFile) -> list[str]:
    """What the numbers are, and where they come from."""
    some = next(iter(record.result["rows"].values()))
    return [
        f"{some['questions']} questions; the score is the mean over the scored families, ± its standard error. "
        "Differences are paired on the same questions, intervals a 95 % bootstrap over clips; one that holds zero is "
        "called no difference shown.",
        source_note(record),
    ]


def _duels(stem: str, record: ResultFile, answers: SampleSet | None) -> Sheet:
    rows = duels(record.result)
    for row in rows:
        row["p"] = None if answers is None else paired_test(answers, *row["pair"].split(" - "))
    notes = [
        "Paired differences in points with the 95 % interval of a bootstrap over clips (all families weigh alike). "
        "p is of the same clustered comparison; a dash stands where the answers are not at hand."
    ]
    return sheet_of(f"{stem}-pairs", f"Paired tests, {about(record.result)}", DUELS, rows, notes)


def paired_test(answers: SampleSet, name: str, other: str) -> float | None:
    """p of the clustered paired test on the scored questions that both answered; None where a run is absent."""
    if name not in answers.runs or other not in answers.runs:
        return None
    both = zip(answers.runs[name].right, answers.runs[other].right, answers.scored, answers.questions, strict=True)
    pairs = [
        (float(mine), float(theirs), question["video"], question["task"])
        for mine, theirs, counts, question in both
        if counts and mine is not None and theirs is not None
    ]
    if not pairs:
        return None
    mine, theirs, videos, families = zip(*pairs, strict=True)
    return paired_p(mine, theirs, videos, families)


def full_row(rows: Mapping[str, Any]) -> Mapping[str, Any]:
    """The run with all tokens.

    Raises:
        InputError: there is none.
    """
    found = next((row for name, row in rows.items() if name.startswith("vanilla")), None)
    if found is None:
        raise InputError("holds no run with all tokens: measure it again")
    return found


def flops_chart(stem: str, record: ResultFile) -> Block:
    """Score against FLOPs, both relative to all tokens."""
    result = record.result
    rows = result["rows"]
    full = full_row(rows)
    lines: dict[str, list[tuple[str, Any]]] = {}
    for name in result["settings"]:
        if result["settings"][name] is not None:
            lines.setdefault(name.partition("_r")[0], []).append((name, rows[name]))
    series = []
    for method, points in lines.items():
        points.sort(key=lambda point: point[1]["gflops"])
        series.append(
            Series(
                method_label(method),
                [_PERCENT * row["gflops"] / full["gflops"] for _, row in points],
                [_PERCENT * row["score"] for _, row in points],
                [_PERCENT * row["error"] for _, row in points],
                [name for name, _ in points],
                method,
            )
        )
    said = f"Score of every method over the FLOPs of its prefill, {about(result)}; bars are standard errors."
    band = (_PERCENT * full["score"], _PERCENT * full["error"], "all tokens")
    axes = ("prefill FLOPs, % of all tokens", "score, %")
    return curves(f"{stem}-flops", f"Tiny model: score against FLOPs, {about(result)}", series, axes, said, band)
