"""Benchmark runs against the uncompressed model, and rehearsals, which are shown without the paper's numbers."""

from __future__ import annotations

from collections.abc import Sequence

from eval.benchmarks.runs import Run
from eval.paper.grids import Grid
from eval.report.page.blocks import Block, Cell, Column, Notice, Section, Sheet, figure
from eval.report.page.sources import Sources
from eval.report.tables.details import difference_table
from eval.report.tables.layout import Interval, in_percent
from eval.report.tables.scores import ScoreSection, title_of


def comparison_section(sources: Sources, grids: Sequence[Grid]) -> Section:
    """Paired differences of our own runs on the same questions."""
    blocks: list[Block] = []
    for _, section in sources.sections(grids):
        blocks += _differences(section, "")
    if not blocks:
        text = (
            "Not measured: a paired test needs the uncompressed model's run and a method's on the paper's benchmarks. "
            "Paired differences of the tiny model stand in its own section."
        )
        blocks.append(Notice(text, "absent"))
    return Section("paired", "Paired tests on the benchmarks", blocks)


def _differences(section: ScoreSection, prefix: str) -> list[Sheet]:
    table = difference_table(section)
    if table is None:
        return []
    names = ("points", "low", "high", "p")
    columns = [Column("Method"), *(Column(name, task) for task in table.header[1:] for name in names)]
    rows = []
    for row in table.rows:
        cells = [Cell(str(row[0]))]
        for found in row[1:]:
            assert isinstance(found, Interval)
            cells += [figure(end, 1, sign=True) for end in (found.value, found.low, found.high)]
            cells.append(figure(found.p, 3))
        rows.append(cells)
    return [Sheet(f"{prefix}{table.slug}", table.title, columns, rows, table.notes)]


def rehearsal_section(sources: Sources, grids: Sequence[Grid]) -> Section:
    """Runs on miniature data or tiny models: they show that the machinery works, and nothing about the paper."""
    rehearsals = [run for run in sources.runs if run.rehearsal is not None]
    if not rehearsals:
        return Section("rehearsals", "Rehearsals", [Notice("There are no rehearsals among the results.", "absent")])
    text = "Rehearsals: these runs show that the machinery works. They are never held against the paper."
    blocks: list[Block] = [Notice(text, "instrument")]
    blocks.append(_runs_sheet(sources, rehearsals))
    for _, section in sources.sections(grids, rehearsals=True):
        blocks += _differences(section, "rehearsal-")
    return Section("rehearsals", "Rehearsals", blocks)


def _runs_sheet(sources: Sources, runs: Sequence[Run]) -> Sheet:
    columns = [
        Column("run"),
        Column("why a rehearsal", wide=True),
        Column("benchmark"),
        Column("score, %"),
        Column("questions"),
        Column("tokens kept, %"),
        Column("folder"),
    ]
    rows = []
    for run in runs:
        kept = in_percent(run.result["retention"]["before_llm"]["mean"])
        for task in run.tasks:
            score = run.score(task)
            count = len(run.answers(task))
            rows.append(
                [
                    Cell(run.name, code=True),
                    Cell(str(run.rehearsal)),
                    Cell(title_of(task)),
                    figure(None if score is None else score.value),
                    figure(count, 0),
                    figure(kept),
                    Cell(sources.named(run.folder), code=True),
                ]
            )
    return Sheet("rehearsal-runs", "Scores of the rehearsals", columns, rows)
