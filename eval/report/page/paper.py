"""The paper's tables and figures: paper, ours, difference, verdict."""

from __future__ import annotations

from collections.abc import Sequence

from eval.benchmarks.runs import average
from eval.claims.speed_claims import SPEED_SHARE
from eval.efficiency.sheets import FORMULA
from eval.instruments.sheets import OnPage, TableColumn
from eval.paper.config_names import config_stem
from eval.paper.grids import Grid
from eval.paper.rows import MODELS, scores_of
from eval.paper.scores import EFFICIENCY
from eval.report.page.blocks import ABSENT, NOT_MEASURED, Block, Cell, Chart, Column, Notice, Section, Sheet, figure
from eval.report.page.charts import Series, curves
from eval.report.page.claims import verdict_rule
from eval.report.page.findings import (
    Finding,
    flops_findings,
    score_findings,
    speed_findings,
    tally,
)
from eval.report.page.harness import harness_blocks
from eval.report.page.sheets import sheet_of
from eval.report.page.sources import Sources
from eval.report.tables.layout import Comparison
from eval.report.tables.scores import (
    ScoreRow,
    ScoreSection,
    averages,
    harness_note,
    reported_notes,
    score_columns,
    title_of,
)
from eval.report.tables.sections import outside

TRIPLE = ("paper", "ours", "diff.")
_JUDGED = (  # what stands beside numbers of the paper
    TableColumn("verdict", "why", page=(OnPage(verdict="verdict"),)),
    TableColumn("evidence", page=(OnPage(wide=True, code=lambda text: text.endswith(".json")),)),
)
RULES = (
    "A cell has the verdict of claims.json, and this page judges nothing itself; u is the standard error of the "
    "difference, ± that of our score, questions about one video taken together. FLOPs are reproduced when they round "
    f"to the printed digit. A speed-up is reproduced when ours, at the paper's sizes on a GPU, is at least "
    f"{SPEED_SHARE:.0%} of the printed one. Runs on miniature data, tiny models or a part of the questions are "
    "rehearsals and are not held against the paper."
)


def paper_sections(sources: Sources, grids: Sequence[Grid]) -> list[ScoreSection]:
    """The paper's score tables with our real runs, an empty one where there is none; rehearsals are left out."""
    return [section for kind, section in sources.sections(grids) if kind != "ablation"]


def all_findings(sources: Sources, grids: Sequence[Grid]) -> dict[tuple[str, str], list[Finding]]:
    """Every printed number by the table or figure it stands in: title, and id of our table on the page."""
    found: dict[tuple[str, str], list[Finding]] = {}
    for section in paper_sections(sources, grids):
        for row in section.rows:
            key = (f"{section.title}: scores", section.slug)
            found.setdefault(key, []).extend(score_findings(sources, section, row, grids))
    for finding in flops_findings(sources):
        found.setdefault((finding.source, "flops"), []).append(finding)
    found["Efficiency figure: speed-ups", "efficiency-figure"] = speed_findings(sources)
    return found


def paper_section(sources: Sources, grids: Sequence[Grid]) -> Section:
    """One table for each table of the paper, then its FLOPs, its efficiency figure and accuracy against FLOPs."""
    blocks: list[Block] = [Notice(f"{verdict_rule(sources)} {RULES}", "rule")]
    for section in paper_sections(sources, grids):
        blocks.append(score_sheet(sources, section, grids))
    blocks += harness_blocks(sources)
    blocks.append(flops_sheet(flops_findings(sources)))
    blocks.append(efficiency_sheet(speed_findings(sources)))
    blocks += [accuracy_chart(section) for section in paper_sections(sources, grids)[:1]]
    return Section("paper", "The paper's tables and figures", blocks)


def score_sheet(sources: Sources, section: ScoreSection, grids: Sequence[Grid]) -> Sheet:
    """Scores of every row: paper, ours and difference for each benchmark and the average."""
    tasks = score_columns(section.runs)
    columns = [Column("Method"), Column("tokens kept, %"), Column("verdict")]
    for title in [*map(title_of, tasks), "Average"]:
        columns += [Column(name, title) for name in TRIPLE]
    rows = []
    for row in section.rows:
        findings = score_findings(sources, section, row, grids)
        cells = [Cell(row.label), figure(None if row.paper is None else row.paper.retained, 0), _verdict(findings)]
        for finding in findings:
            cells += three(finding)
        rows.append([*cells, *three(averages(section, row)[0])])
    notes = [note for task in tasks if (note := outside(section, task))]
    notes += [note for note in (harness_note(section),) if note]
    notes += reported_notes(section, tasks)
    if len(section.runs) < len(section.rows):
        checkpoint = MODELS[section.model][1]
        notes.append(f"What was not run needs the checkpoint {checkpoint}, a GPU and the videos of the benchmarks.")
    if "egoschema_subset" in tasks:
        notes.append("EgoSchema: ours are the 500 questions with public answers, the paper's all 5,031.")
    if section.model == "llava_onevision_7b":
        notes.append("FastVID's printed rows are copied by the paper from the FastVID paper, with other baselines.")
    else:
        notes.append("The scores that the paper prints for this model are not known here; its FLOPs are (below).")
    return Sheet(section.slug, section.title, columns, rows, notes)


def three(found: Finding | Comparison, digits: int = 1) -> list[Cell]:
    """Cells of :data:`TRIPLE`; a finding's difference carries its verdict where both numbers are there."""
    ours = figure(found.ours, digits, small="" if found.error is None else f"± {found.error:.1f}")
    gap = figure(found.difference, digits, sign=True)
    if isinstance(found, Finding) and found.difference is not None:
        interval = found.why.partition(",")[0] if found.error is not None else ""
        gap = Cell(gap.text, gap.value, found.verdict, small=interval)
    return [figure(found.paper, digits), ours, gap]


def _verdict(findings: Sequence[Finding]) -> Cell:
    """The verdicts of one row together, and why its numbers are absent."""
    counts = {verdict: count for verdict, count in tally(findings).items() if count}
    reasons = "; ".join(dict.fromkeys(finding.why for finding in findings if finding.ours is None))
    if not counts:
        measured = any(finding.ours is not None for finding in findings)
        return Cell("no printed score") if measured else Cell("", verdict=NOT_MEASURED, small=reasons)
    if len(counts) == 1:
        return Cell("", verdict=next(iter(counts)), small=reasons)
    return Cell(", ".join(f"{count} {verdict}" for verdict, count in counts.items()), small=reasons)


def flops_sheet(findings: Sequence[Finding]) -> Sheet:
    """TFLOPs of the prefill as printed and by the paper's formula."""
    rows = [
        {
            **vars(finding),
            "model": finding.source.partition(", ")[2],
            "method": finding.row,
            "paper_tflops": finding.paper,
            "tflops": finding.ours,
            "difference": finding.difference,
        }
        for finding in findings
    ]
    note = "The paper's formula, 4nd² + 2n²d + 2ndm for each layer, counts visual tokens in the language model only."
    return sheet_of("flops", "FLOPs of the prefill", (*FORMULA, *_JUDGED), rows, (note,))


def efficiency_sheet(findings: Sequence[Finding]) -> Sheet:
    """The paper's bars, and its speed-ups beside ours."""
    columns = [
        Column("Method"),
        Column("tower + other + LLM, ms", "paper"),
        Column("sum, ms", "paper"),
        Column("tokens/s", "paper"),
        *(Column(name, "time to first token, times faster") for name in TRIPLE),
        *(Column(name, "decoding, times faster") for name in TRIPLE),
        Column("why", wide=True),
    ]
    rows = []
    for (method, retained), times in EFFICIENCY.items():
        label = f"{method}, {retained} %"
        own = [finding for finding in findings if finding.row == label]
        bar = [Cell(times.bar.replace(" ", "\u00a0")), figure(times.total_ms, 0)]
        cells = [Cell(label), *bar, figure(times.decode_tokens_per_second)]
        for finding in own:
            cells += three(finding, 2)
        if not own:
            cells += [Cell(ABSENT)] * 6
        why = "; ".join(dict.fromkeys(finding.why for finding in own)) or "what the others are held against"
        rows.append([*cells, Cell(why)])
    notes = (
        "The bars stand at different shares of tokens; the shares named here are inferred from the scores printed "
        "beside them. The paper's GPU is not known here, so milliseconds are not compared, ratios are.",
    )
    return Sheet("efficiency-figure", "Efficiency figure", columns, rows, notes)


def accuracy_chart(section: ScoreSection) -> Chart:
    """Average score against FLOPs: the paper's points, and ours where all four benchmarks were run."""
    lines: dict[str, list[ScoreRow]] = {}
    for row in section.rows:
        if row.paper is not None:
            lines.setdefault(row.paper.method, []).append(row)
    series = []
    for method, rows in lines.items():
        key = config_stem(method, 100)
        places = [(row, scores.average) for row in rows if (scores := scores_of(row.paper)) and scores.average]
        names = [f"{row.full_label}, paper" for row, _ in places]
        flops = [row.paper.paper_tflops for row, _ in places if row.paper]
        if places:
            series.append(Series(f"{method}, paper", flops, [score for _, score in places], (), names, key, True))
        own = [(row, mean) for row in rows if row.run and not row.withheld and (mean := average(row.run))]
        if own:
            tflops = [row.paper.tflops for row, _ in own if row.paper]
            names = [f"{row.full_label}, ours" for row, _ in own]
            values, errors = [mean[0] for _, mean in own], [mean[1] for _, mean in own]
            series.append(Series(f"{method}, ours", tflops, values, errors, names, key))
    measured = any(not line.dashed for line in series)
    ours = "filled ones ours with their standard error" if measured else "none of ours was measured"
    said = "Average score of the four benchmarks over the TFLOPs of the prefill. "
    said += f"Open markers and broken lines are the paper's, {ours}."
    axes = ("prefill TFLOPs (the paper's formula)", "average score, %")
    return curves("accuracy-flops", f"Accuracy against FLOPs, {MODELS[section.model][0]}", series, axes, said)
