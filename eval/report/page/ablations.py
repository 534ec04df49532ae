"""Ablations: a curve or points and a table for each, of the benchmarks and of the tiny model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eval.paper.grids import Grid
from eval.report.figures.tiny import changed_values
from eval.report.page.blocks import NOT_MEASURED, Block, Cell, Column, Notice, Section, Sheet, slugged
from eval.report.page.charts import Series, curves
from eval.report.page.findings import score_findings
from eval.report.page.paper import TRIPLE, three
from eval.report.page.sheets import sheet_of
from eval.report.page.sources import ResultFile, Sources
from eval.report.page.tiny import NO_EVIDENCE, score_notes
from eval.report.tables.scores import ScoreSection, title_of
from eval.report.tables.scores import score_columns as tasks_of
from eval.report.tables.tiny import SCORES, scored


def ablation_section(sources: Sources, grids: Sequence[Grid]) -> Section:
    """First what was measured of the paper's ablations, then those of the tiny model."""
    blocks: list[Block] = []
    unmeasured: list[list[Cell]] = []
    for kind, section in sources.sections(grids):
        if kind == "ablation" and any(run.method != "vanilla" for run in section.runs):
            blocks += _paper_ablation(sources, section, grids)
        elif kind == "ablation":
            command = f"bash scripts/{section.slug}.sh"
            unmeasured.append([Cell(section.title), Cell("", verdict=NOT_MEASURED), Cell(command, code=True)])
    if unmeasured:
        columns = [Column("ablation", wide=True), Column("verdict"), Column("command")]
        notes = ("Each needs the checkpoint, a GPU and the videos of the benchmarks.",)
        blocks.append(Sheet("ablations-missing", "Not measured on the paper's model", columns, unmeasured, notes))
    tables = [record for record in sources.of("tiny") if record.result["ablations"]]
    for notice in dict.fromkeys(str(record.result["notice"]) for record in tables):
        blocks.append(Notice(f"{notice} {NO_EVIDENCE}", "instrument"))
    for record in tables:
        for made in sources.tried(record.path, _tiny_ablations, record):
            blocks += made
    if not tables:
        blocks.append(Notice("Not measured on the tiny model: bash scripts/table_tiny.sh", "absent"))
    return Section("ablations", "Ablations", blocks)


def _paper_ablation(sources: Sources, section: ScoreSection, grids: Sequence[Grid]) -> list[Block]:
    tasks = tasks_of(section.runs)
    columns = [Column("point")]
    for task in tasks:
        columns += [Column(name, title_of(task)) for name in TRIPLE]
    rows, names = [], [row.label for row in section.rows]
    values: dict[str, list[float | None]] = {task: [] for task in tasks}
    errors: dict[str, list[float | None]] = {task: [] for task in tasks}
    for row in section.rows:
        findings = score_findings(sources, section, row, grids)
        rows.append([Cell(row.label, code=True), *(cell for finding in findings for cell in three(finding))])
        for task, finding in zip(tasks, findings, strict=True):
            values[task].append(finding.ours)
            errors[task].append(finding.error)
    series = [
        Series(title_of(task), names, values[task], errors[task], lines=False)
        for task in tasks
        if any(value is not None for value in values[task])
    ]
    note = "The paper's numbers are known here for the points that are rows of its main table as well."
    sheet = Sheet(section.slug, section.title, columns, rows, (note,))
    said = "Our scores of every point with their standard errors."
    chart = curves(f"{section.slug}-chart", section.title, series, ("point", "score, %"), said)
    return [chart, sheet]


def _tiny_ablations(record: ResultFile) -> list[Block]:
    blocks: list[Block] = []
    for name, grid in record.result["ablations"].items():
        if grid["points"]:
            blocks += _tiny_ablation(slugged(f"{record.path.removesuffix('.json')}/{name}"), record, grid)
    return blocks


def _tiny_ablation(slug: str, record: ResultFile, grid: Mapping[str, Any]) -> list[Block]:
    rows, points = record.result["rows"], grid["points"]
    title = f"Tiny model: {grid['title']}"
    sheet = sheet_of(slug, title, SCORES, scored(record.result, points), score_notes(record))
    said = "Score of every point on the tiny model with its standard error, beside all tokens of as many frames."
    axis, series = ablation_lines(points, rows)
    return [curves(f"{slug}-chart", title, series, (axis, "score, %"), said, _band(record, points)), sheet]


def _band(record: ResultFile, points: Iterable[str]) -> tuple[float, float, str] | None:
    """All tokens of as many frames; None where the points differ in their frames."""
    counts = {record.result["frames"][point] for point in points}
    full = record.result["rows"].get(f"vanilla_f{next(iter(counts))}") if len(counts) == 1 else None
    return None if full is None else (100 * full["score"], 100 * full["error"], "all tokens")


def ablation_lines(points: Mapping[str, Mapping[str, Any]], rows: Mapping[str, Any]) -> tuple[str, list[Series]]:
    """Title of the axis, and a line over the values of a setting for each configuration, or single points."""
    numbers = changed_values(points)
    if numbers is None:
        scores, errors = ([100 * rows[point][key] for point in points] for key in ("score", "error"))
        return "point", [Series("score", [short(point) for point in points], scores, errors, list(points), lines=False)]
    setting, values = numbers
    lines: dict[str, list[str]] = {}
    for point in sorted(points, key=values.__getitem__):
        lines.setdefault(point.partition(",")[0], []).append(point)
    series = []
    for file, names in lines.items():
        scores, errors = ([100 * rows[name][key] for name in names] for key in ("score", "error"))
        method = file.partition("_r")[0]
        series.append(Series(file, [values[name] for name in names], scores, errors, names, method))
    return setting, series


def short(point: str) -> str:
    """A point's name without what all points of a grid share: its changes, or its file where nothing changed."""
    name, _, changes = point.partition(",")
    # outer.retain_ratio=0.2: the value may hold a dot as well
    words = re.sub(r"[^,=]*\.(?=[^,.=]*=)", "", changes).replace(",", ", ") if changes else name
    return words if len(words) < 45 else words[:44] + "…"
