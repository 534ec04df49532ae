"""From runs to tables: which run is which line, and scores beside the paper's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from eval.benchmarks.runs import Run, Score, average, tasks_in_order
from eval.paper.benchmarks import BY_TASK, PAPER_HARNESS, PAPER_TASKS
from eval.paper.reported import reported
from eval.paper.rows import MODELS, PaperRow, rows_of, scores_of
from eval.report.tables.layout import NOT_RUN, Cell, Comparison, Table, in_percent, number


@dataclass(frozen=True)
class ScoreRow:
    """One line of a table: a point of a grid, the paper's row it reproduces, and the run, if it was run.

    ``withheld`` says of each task whose score may not be shown why not.
    """

    label: str
    point: str
    paper: PaperRow | None
    run: Run | None
    baseline: Run | None = None
    withheld: Mapping[str, str] = field(default_factory=dict)

    @property
    def full_label(self) -> str:
        """The label with the share of tokens, for tables without a column of it."""
        if self.paper is None or self.label != self.paper.method or self.paper.retained == 100:
            return self.label
        return f"{self.label}, {self.paper.retained} %"

    def may_show(self, task: str) -> bool:
        """Whether the run has answers of a task and stands beside the uncompressed run's."""
        return self.run is not None and task not in self.withheld and bool(self.run.answers(task))


@dataclass(frozen=True)
class ScoreSection:
    """The lines of one table, for one campaign (or for none, when nothing was run)."""

    slug: str
    title: str
    model: str
    rows: Sequence[ScoreRow]
    notes: list[str] = field(default_factory=list)

    @property
    def runs(self) -> list[Run]:
        """What was run."""
        return [row.run for row in self.rows if row.run is not None]

    @property
    def rehearsal(self) -> str | None:
        """Why the numbers say nothing about the paper."""
        return next((run.rehearsal for run in self.runs), None)

    @property
    def heading(self) -> str:
        """The title, with a warning in front for a rehearsal."""
        return (
            f"REHEARSAL, no reproduction of the paper ({self.rehearsal}): {self.title}"
            if self.rehearsal
            else self.title
        )

    def vanilla(self) -> Run | None:
        """The uncompressed run with the configuration's own number of frames."""
        return next((run for run in self.runs if run.name == f"{self.model}/vanilla"), None)


def score_columns(runs: Sequence[Run]) -> list[str]:
    """The paper's four benchmarks, EgoSchema as what was run of it, then other tasks."""
    found = tasks_in_order(runs)
    paper = [task for task in PAPER_TASKS if task != "egoschema_subset" or task in found or "egoschema" not in found]
    return paper + [task for task in found if task not in paper]


def harness_note(section: ScoreSection) -> str | None:
    """Whose definitions asked and scored, and whether the uncompressed model is held against the paper; None unrun."""
    versions = list(dict.fromkeys(run.harness for run in section.runs))
    if not versions:
        return None
    said = f"Asked, read and scored with the task definitions of lmms-eval {', '.join(versions)}"
    if versions == [PAPER_HARNESS]:
        return f"{said}, the paper's."
    return (
        f"{said}; the paper's are {PAPER_HARNESS}'s (--harness {PAPER_HARNESS}), so the uncompressed model is not held "
        "against its scores."
    )


def reported_notes(section: ScoreSection, tasks: Sequence[str]) -> list[str]:
    """What others report of the uncompressed model, beside the paper's score, for one table of a model."""
    if section.model != "llava_onevision_7b" or section.rehearsal or not section.runs:
        return []
    scores, found = scores_of(rows_of(section.model)[0]), []
    for task in tasks:
        said = "; ".join(
            f"{one.scores[task]:g} in {one.source}, {one.date} ({one.setting})"
            for one in reported(task, "Vanilla", 100)
        )
        printed = None if scores is None else scores.of(task)
        if said:
            found.append(f"{title_of(task)}, uncompressed: the paper prints {printed}; reported since: {said}.")
    return found


def title_of(task: str) -> str:
    """Name of a task in a heading."""
    return BY_TASK[task].title if task in BY_TASK else task


def score_table(section: ScoreSection, warnings: Mapping[str, str]) -> Table:
    """Paper / ours / difference for every benchmark, the average, and its share of the uncompressed model's.

    Args:
        section: the lines.
        warnings: of tasks on which the uncompressed model contradicts the paper.
    """
    columns = score_columns(section.runs)
    header = ["Method", "Tokens before LLM, % (paper / measured)", "TFLOPs (paper / its formula)"]
    header += [title_of(task) for task in columns] + ["Average", "% of vanilla", "Bad videos / unparsable answers"]
    rows: list[list[Cell]] = []
    for row in section.rows:
        cells = [compared(section, row, task, task in warnings) for task in columns]
        rows.append([row.label, _kept(row), _flops(row), *cells, *averages(section, row), _lost(row, columns)])
    notes = [
        "Each cell: the paper's score / ours ± standard error (questions about one video taken together) / difference."
    ]
    if "egoschema_subset" in columns and section.model == "llava_onevision_7b":
        notes.append("† EgoSchema: ours are the 500 questions with public answers, the paper's all 5,031.")
    notes += warnings.values()
    notes += [note for note in (harness_note(section),) if note]
    notes += reported_notes(section, columns)
    notes += [
        f"{row.full_label}: withheld, {why}" for row in section.rows for why in dict.fromkeys(row.withheld.values())
    ]
    return Table(section.slug, section.heading, header, rows, [*notes, *section.notes])


def compared(section: ScoreSection, row: ScoreRow, task: str, marked: bool = False) -> Comparison:
    """The paper's score of one task beside ours; ``marked`` where the uncompressed model contradicts the paper."""
    scores = scores_of(row.paper)
    printed = None if scores is None else scores.of(task)
    if row.run is None:
        return Comparison(printed)
    if task in row.withheld:
        return Comparison(printed, withheld="withheld")
    score: Score | None = row.run.score(task)
    if score is None:
        return Comparison(printed)
    mark = ("†" if task == "egoschema_subset" and printed is not None else "") + ("‡" if marked else "")
    return Comparison(printed, score.value, score.error, section.rehearsal is None, mark)


def averages(section: ScoreSection, row: ScoreRow) -> list[Comparison]:
    """The average of the paper's benchmarks, and its share of the uncompressed model's."""
    scores = scores_of(row.paper)
    printed = (None, None) if scores is None else (scores.average, scores.percent)
    ours = None if row.run is None or row.withheld else average(row.run)
    if ours is None or row.baseline is None:
        return [Comparison(value) for value in printed]
    comparable = section.rehearsal is None
    reference = average(row.baseline)
    percent = None if reference is None or reference[0] == 0 else 100 * ours[0] / reference[0]
    mark = "" if scores is None else "†"
    return [Comparison(printed[0], *ours, comparable, mark), Comparison(printed[1], percent, None, comparable, mark)]


def _kept(row: ScoreRow) -> str:
    measured = None if row.run is None else in_percent(row.run.result["retention"]["before_llm"]["mean"])
    return f"{NOT_RUN if row.paper is None else row.paper.retained} / {number(measured)}"


def _flops(row: ScoreRow) -> str:
    return NOT_RUN if row.paper is None else f"{row.paper.paper_tflops:.1f} / {row.paper.tflops:.2f}"


def _lost(row: ScoreRow, columns: Sequence[str]) -> str:
    if row.run is None:
        return NOT_RUN
    scores = [score for task in columns if (score := row.run.score(task)) is not None]
    return f"{sum(score.bad for score in scores)} / {sum(score.unparsed for score in scores)}"


def model_title(model: str) -> str:
    """The model as the tables call it."""
    return MODELS.get(model, (model,))[0]
