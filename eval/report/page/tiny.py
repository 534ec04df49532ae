"""The learned tiny model: an instrument whose numbers say nothing about the paper's model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eval.instruments.significance import paired_p
from eval.report.page.blocks import ABSENT, Block, Cell, Column, Notice, Section, Sheet, figure
from eval.report.page.charts import Series, curves, method_label
from eval.report.page.samples import SampleSet
from eval.report.page.sources import ResultFile, Sources
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


def heading(record: ResultFile) -> str:
    """What a record of the tiny model is about."""
    result = record.result
    frames = ", ".join(map(str, sorted(set(result["frames"].values()))))
    return f"split {result['split']}, {frames} frames"


def source_note(record: ResultFile) -> str:
    """Where the numbers come from."""
    data = record.data
    return f"{record.path}: {data['command']}, {data.get('date', 'no date')}, commit {data['commit']}, {data['device']}"


def _of_record(record: ResultFile, answers: SampleSet | None) -> list[Block]:
    stem = record.slug
    blocks: list[Block] = [_scores(stem, record)]
    if len(record.result["settings"]) > 1:
        blocks.append(flops_chart(stem, record))
    blocks.append(_families(stem, record))
    if record.result["duels"]:
        blocks.append(_duels(stem, record, answers))
    return blocks


def score_columns() -> list[Column]:
    """Columns of :func:`score_cells`."""
    gap = "points against all tokens"
    return [
        Column("run"),
        Column("score, %"),
        Column("of full, %"),
        Column("difference", gap),
        Column("low", gap),
        Column("high", gap),
        Column("says"),
        Column("to the LLM", "visual tokens"),
        Column("in its last layer", "visual tokens"),
        Column("prefill GFLOPs"),
    ]


def score_cells(name: str, row: Mapping[str, Any]) -> list[Cell]:
    """One run: score with standard error, paired difference with its 95 % interval, tokens, FLOPs."""
    error = f"± {_PERCENT * row['error']:.1f}"
    gaps = [figure(_PERCENT * row[key], 1, sign=True) for key in ("difference", "low", "high")]
    return [
        Cell(name, code=True),
        figure(_PERCENT * row["score"], small=error),
        figure(_PERCENT * row["retention"]),
        *gaps,
        Cell(str(row["verdict"])),
        figure(row["outer"], small=f"{row['outer'] / row['before']:.1%}"),
        figure(row["inside"]),
        figure(row["gflops"], 3),
    ]


def score_notes(record: ResultFile) -> list[str]:
    """What the numbers are, and where they come from."""
    some = next(iter(record.result["rows"].values()))
    return [
        f"{some['questions']} questions; the score is the mean over the scored families, ± its standard error. "
        "Differences are paired on the same questions, intervals a 95 % bootstrap over clips; one that holds zero is "
        "called no difference shown.",
        source_note(record),
    ]


def _scores(stem: str, record: ResultFile) -> Sheet:
    result = record.result
    shown = [name for name in result["rows"] if name in result["frames"] or name == "blank"]
    rows = [score_cells(name, result["rows"][name]) for name in shown]
    return Sheet(stem, f"Main table of the tiny model, {heading(record)}", score_columns(), rows, score_notes(record))


def _families(stem: str, record: ResultFile) -> Sheet:
    result = record.result
    shown = {name: row for name, row in result["rows"].items() if name in result["frames"] or name == "blank"}
    families = list(next(iter(shown.values()))["families"])
    rows = [
        [Cell(name, code=True), *(figure(_PERCENT * row["families"][family], 0) for family in families)]
        for name, row in shown.items()
    ]
    columns = [Column("run"), *map(Column, families)]
    return Sheet(f"{stem}-families", f"Families of questions, %, {heading(record)}", columns, rows)


def _duels(stem: str, record: ResultFile, answers: SampleSet | None) -> Sheet:
    columns = [
        Column("pair"),
        Column("points"),
        Column("low"),
        Column("high"),
        Column("the first is"),
        Column("p"),
    ]
    rows = []
    for name, duel in record.result["duels"].items():
        gaps = [figure(_PERCENT * duel[key], 1, sign=True) for key in ("difference", "low", "high")]
        test = None if answers is None else paired_test(answers, *name.split(" - "))
        rows.append(
            [
                Cell(name, code=True),
                *gaps,
                Cell(str(duel["verdict"])),
                figure(test, 4) if test is not None else Cell(ABSENT),
            ]
        )
    notes = [
        "Paired differences in points with the 95 % interval of a bootstrap over clips (all families weigh alike). "
        "p is of the same clustered comparison; a dash stands where the answers are not at hand."
    ]
    return Sheet(f"{stem}-pairs", f"Paired tests, {heading(record)}", columns, rows, notes)


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
    said = f"Score of every method over the FLOPs of its prefill, {heading(record)}; bars are standard errors."
    band = (_PERCENT * full["score"], _PERCENT * full["error"], "all tokens")
    axes = ("prefill FLOPs, % of all tokens", "score, %")
    return curves(f"{stem}-flops", f"Tiny model: score against FLOPs, {heading(record)}", series, axes, said, band)
