"""Tables behind the scores: differences to the uncompressed model, and scores by category."""

from __future__ import annotations

from collections.abc import Sequence

from eval.benchmarks.runs import Score, categories, difference
from eval.paper.benchmarks import MVBENCH, VIDEOMME_DOMAINS, VIDEOMME_DURATIONS, VIDEOMME_TASKS
from eval.report.tables.layout import NOT_RUN, Cell, Interval, Table, number
from eval.report.tables.scores import ScoreSection, score_columns, title_of

# what a table by category is made of: task, field of the questions, heading, order of the columns
CATEGORIES: tuple[tuple[str, str, str, Sequence[str]], ...] = (
    ("mvbench", "subtask", "MVBench by sub-task", [f"mvbench_{subtask}" for subtask in MVBENCH]),
    ("videomme", "duration", "VideoMME by duration", VIDEOMME_DURATIONS),
    ("videomme", "category", "VideoMME by domain", tuple(VIDEOMME_DOMAINS)),
    (
        "videomme",
        "sub_category",
        "VideoMME by sub-category",
        [sub for subs in VIDEOMME_DOMAINS.values() for sub in subs],
    ),
    ("videomme", "task_category", "VideoMME by kind of question", VIDEOMME_TASKS),
    ("longvideobench_val_v", "duration_group", "LongVideoBench by duration in seconds", ("15", "60", "600", "3600")),
    ("longvideobench_val_v", "question_category", "LongVideoBench by kind of question", ()),
)


def difference_table(section: ScoreSection) -> Table | None:
    """Each method against the uncompressed model on the same questions; None when there is nothing to compare."""
    columns = [task for task in score_columns(section.runs) if any(run.score(task) for run in section.runs)]
    pairs = [
        (row, row.run, row.baseline) for row in section.rows if row.run and row.baseline and row.run is not row.baseline
    ]
    if not pairs or not columns:
        return None
    rows: list[list[Cell]] = []
    for row, run, baseline in pairs:
        cells = [difference(run, baseline, task) if row.may_show(task) else None for task in columns]
        rows.append(
            [row.full_label, *[Interval() if c is None else Interval(c.value, c.low, c.high, c.p) for c in cells]]
        )
    notes = (
        "Points, with the 95 % interval of a paired bootstrap over videos (Student's t below 30 videos); p of the same "
        "clustered comparison, of McNemar's exact test where every video has one question.",
    )
    header = ["Method", *[title_of(task) for task in columns]]
    return Table(
        f"{section.slug}_differences", f"{section.heading}: difference to the uncompressed model", header, rows, notes
    )


def category_tables(section: ScoreSection) -> list[Table]:
    """Scores by category, rebuilt from the answers."""
    tables = []
    for task, key, title, order in CATEGORIES:
        shown = [(row.full_label, row.run) for row in section.rows if row.run is not None and row.may_show(task)]
        scored = [(label, categories(run, task, key)) for label, run in shown]
        found = {label: None for _, scores in scored for label in scores}
        columns = [label for label in order if label in found] + sorted(label for label in found if label not in order)
        if not columns:
            continue
        rows = [[name, *[_plain(scores.get(column)) for column in columns]] for name, scores in scored if scores]
        heading = f"{section.heading}: {title}"
        header = ["Method", *[column.removeprefix("mvbench_") for column in columns]]
        slug = f"{section.slug}_{task}_{key}"
        tables.append(Table(slug, heading, header, rows, ("Score ± standard error (number of questions).",)))
    return tables


def _plain(score: Score | None) -> str:
    return NOT_RUN if score is None else f"{score.value:.1f} ± {number(score.error)} ({score.questions})"
