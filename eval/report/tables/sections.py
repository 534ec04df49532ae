"""Which lines each of the paper's tables has, with the runs that were made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from eval.benchmarks.runs import Run, baseline_of, obstacle, one_per_point
from eval.claims.benchmark_evidence import measured
from eval.claims.judging import CONTRADICTED
from eval.claims.score_rule import judge_score
from eval.paper.benchmarks import PAPER_HARNESS
from eval.paper.config_names import config_stem
from eval.paper.grids import Grid, Point, row_of
from eval.paper.rows import PaperRow, rows_of, scores_of
from eval.report.tables.scores import ScoreRow, ScoreSection, model_title, title_of

Lines = Sequence[tuple[str, str, PaperRow | None]]


def outlines(grids: Sequence[Grid]) -> Iterator[tuple[str, str, str, str, Lines]]:
    """Slug, kind, title, model and lines of each of the paper's tables, in its order."""
    for kind, models in (("main", ["llava_onevision_7b"]), ("backbone", ["llava_video_7b", "llava_onevision_72b"])):
        title = "Main table" if kind == "main" else "Second-backbone table"
        points = [grid.points for grid in grids if grid.table == kind]
        for model in models:
            slug = "main" if kind == "main" else f"backbone_{model}"
            yield slug, kind, f"{title}, {model_title(model)}", model, paper_points(model, points)
    for grid in grids:
        if grid.table == "ablation":
            model = grid.points[0].model
            yield (
                grid.name,
                "ablation",
                f"Ablation, {model_title(model)}: {grid.title}",
                model,
                ablation_points(grid.points),
            )


def sections(runs: Sequence[Run], grids: Sequence[Grid]) -> Iterator[tuple[str, ScoreSection]]:
    """Kind and section of every table; one for each campaign that has a run of it, an empty one without any."""
    for slug, kind, title, model, lines in outlines(grids):
        names = {name for _, name, _ in lines}
        campaigns: dict[str, list[Run]] = {}
        for run in runs:
            if run.name in names:
                campaigns.setdefault(run.campaign, []).append(run)
        real_first = sorted(
            campaigns.values(), key=lambda members: (members[0].rehearsal is not None, members[0].campaign)
        )
        for number, members in enumerate(real_first or [[]]):
            rows = make_rows(lines, one_per_point(members))
            yield kind, ScoreSection(slug if number == 0 else f"{slug}_{number + 1}", title, model, rows)


def names_of(grids: Sequence[Grid]) -> set[str]:
    """The points that the tables look for."""
    return {name for *_, lines in outlines(grids) for _, name, _ in lines}


def paper_points(model: str, grids: Sequence[Sequence[Point]]) -> list[tuple[str, str, PaperRow | None]]:
    """Label, point and row of every line of a main table: the paper's rows in order, then what it does not list."""
    lines: list[tuple[str, str, PaperRow | None]] = [
        (row.method, f"{model}/{config_stem(*row.key)}", row) for row in rows_of(model)
    ]
    known = {point for _, point, _ in lines}
    more = {
        point.name: None for points in grids for point in points if point.model == model and point.name not in known
    }
    return lines + [(name.partition("/")[2], name, None) for name in more]


def ablation_points(points: Sequence[Point]) -> list[tuple[str, str, PaperRow | None]]:
    """Label, point and row of every line of an ablation."""
    lines = []
    for point in points:
        row = row_of(point.model, point.settings().as_dict())
        lines.append((point.name.partition("/")[2], point.name, row))
    return lines


def make_rows(lines: Lines, runs: dict[str, Run]) -> list[ScoreRow]:
    """Look up each line's run and the uncompressed run it stands beside."""
    rows = []
    for label, name, paper in lines:
        run = runs.get(name)
        if run is None:
            rows.append(ScoreRow(label, name, paper, None))
            continue
        baseline = baseline_of(run, runs.values())
        reasons = {task: obstacle(run, baseline, task) for task in run.tasks}
        rows.append(ScoreRow(label, name, paper, run, baseline, {task: why for task, why in reasons.items() if why}))
    return rows


def outside(section: ScoreSection, task: str) -> str | None:
    """What to say when the uncompressed model's score contradicts the paper's, or None."""
    vanilla, rows = section.vanilla(), rows_of(section.model)
    if vanilla is not None and vanilla.harness != PAPER_HARNESS:
        return None
    scores = scores_of(rows[0]) if rows else None
    printed = None if scores is None else scores.of(task)
    ours = None if vanilla is None else measured(vanilla, task)
    if section.rehearsal or printed is None or ours is None:
        return None
    found = judge_score(printed, ours)
    if found.verdict != CONTRADICTED:
        return None
    return (
        f"‡ {title_of(task)}: the uncompressed model has {ours.score:.1f}, the paper {printed:.1f}: {found.verdict}, "
        f"the difference has a standard error of {found.error:.2f}"
    )
