"""What was measured: every file behind the page with its command, commit, device and sample count."""

from __future__ import annotations

from typing import Any

from eval.benchmarks.runs import Run
from eval.report.page.blocks import ABSENT, Block, Cell, Column, Notice, Section, Sheet, figure
from eval.report.page.sources import ResultFile, Sources


def samples_of(result: dict[str, Any]) -> tuple[float, str] | None:
    """How many samples a result rests on, and of what; None where it does not say."""
    rows = result.get("rows")
    if isinstance(rows, dict) and rows:
        first = next(iter(rows.values()))
        return (float(first["questions"]), "questions") if isinstance(first, dict) and "questions" in first else None
    if isinstance(result.get("cases"), int):
        return float(result["cases"]), "cases"
    settings = result.get("settings")
    for where in (result, settings if isinstance(settings, dict) else {}):
        if isinstance(where.get("repetitions"), int):
            return float(where["repetitions"]), "repetitions"
    if isinstance(rows, list):
        return float(len(rows)), "rows"
    return None


def evidence_section(sources: Sources) -> Section:
    """One line for each file that the page is made from."""
    columns = [
        Column("file"),
        Column("commit"),
        Column("device"),
        Column("samples"),
        Column("command", wide=True),
        Column("date"),
        Column("torch"),
        Column("SHA-256"),
    ]
    rows = []
    for record in [*([sources.claims] if sources.claims else []), *sources.records]:
        for cells in sources.tried(record.path, _record, record):
            rows.append(cells)
    rows += [_run(sources.named(run.folder), run) for run in sources.runs]
    blocks: list[Block] = []
    if rows:
        notes = ["A commit that ends in -dirty was measured with changes that the commit does not hold."]
        blocks.append(Sheet("evidence-table", "Files this page is made from", columns, rows, notes))
    else:
        blocks.append(Notice("Nothing was measured: the folder holds no result that can be shown.", "absent"))
    if sources.others:
        text = f"{len(sources.others)} JSON files without a result of a command are not shown: "
        blocks.append(Notice(f"{text}{', '.join(sources.others)}.", "rule"))
    return Section("evidence", "What was measured, and with what", blocks)


def _record(record: ResultFile) -> list[Cell]:
    data, samples = record.data, samples_of(record.result)
    count = Cell(ABSENT) if samples is None else figure(samples[0], 0, small=samples[1])
    if "claims" in record.result:
        count = figure(len(record.result["claims"]), 0, small="claims")
    return [
        Cell(record.path, code=True),
        *(Cell(str(data.get(key, ABSENT))) for key in ("commit", "device")),
        count,
        Cell(str(data.get("command", "python -m eval.claims")), code=True),
        Cell(str(data.get("date", ABSENT))),
        Cell(str(data.get("torch", ABSENT))),
        Cell(record.sha256[:12], code=True),
    ]


def _run(path: str, run: Run) -> list[Cell]:
    facts = run.result
    times, versions = facts.get("times") or {}, facts.get("versions") or {}
    command = f"python -m eval.benchmarks.run {facts['config']['file']} --tasks {','.join(facts['setup']['tasks'])}"
    command += "".join(f" --set {change}" for change in facts["config"]["overrides"])
    return [
        Cell(path, code=True),
        Cell(str(facts["commit"])),
        Cell(str(facts["setup"].get("device", ABSENT))),
        figure(len(run.samples), 0, small="questions"),
        Cell(command, code=True),
        Cell(str(times.get("finished", ABSENT))),
        Cell(str(versions.get("torch", ABSENT))),
        Cell(ABSENT),
    ]


def problem_section(sources: Sources) -> Section | None:
    """Files that could not be shown, each with the reason; None without any. Made last: sections find more of them."""
    if not sources.problems:
        return None
    rows = [[Cell(problem.path, code=True), Cell(problem.reason)] for problem in sources.problems]
    said = f"{len(rows)} {'entry is' if len(rows) == 1 else 'entries are'} damaged, partial or doubled and not shown."
    blocks: list[Block] = [
        Notice(said, "damaged"),
        Sheet("problem-table", "What could not be shown", [Column("file"), Column("reason", wide=True)], rows),
    ]
    return Section("problems", "Damaged or partial results", blocks)
