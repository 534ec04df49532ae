"""Every table of the paper from the results at hand: paper / ours / difference, with errors that one can trust.

    python -m eval.report.tables results/lmms                                 # Markdown on the terminal
    python -m eval.report.tables results/lmms -o results/tables --format md,csv,latex

Reads what eval.benchmarks.run and eval.benchmarks.sweep leave. Scores are rebuilt from the answers: MVBench is the mean
of its 20 sub-tasks, a bad video or an unparsable answer is wrong. A compressed score stands beside the uncompressed one
of the same setup or is withheld (exit status 1); scores are marked when the uncompressed model, asked by the paper's
harness, contradicts the paper's score (eval.claims.score_rule). Rehearsals (tiny checkpoints, miniature data, --limit)
are called so and never held against the paper. What was not run is n/a. The last line is JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.benchmarks.loading import load_runs
from eval.benchmarks.runs import Run
from eval.instruments.cli import Parser, provenance, user_errors
from eval.instruments.record import check_target, write_whole
from eval.paper.grids import Grid, paper_grids
from eval.report.tables.details import category_tables, difference_table
from eval.report.tables.efficiency import efficiency_table
from eval.report.tables.layout import Table, comma_separated, latex, markdown
from eval.report.tables.scores import score_columns, score_table
from eval.report.tables.sections import names_of, outside, sections
from llava.errors import InputError

FORMATS = ("md", "csv", "latex")


def build(runs: Sequence[Run], grids: Sequence[Grid]) -> tuple[list[Table], dict[str, Any]]:
    """All tables, and what to say about them in one line."""
    tables: list[Table] = []
    summary: dict[str, Any] = {"withheld": [], "outside_paper": [], "rehearsals": 0, "reproductions": 0}
    for kind, section in sections(runs, grids):
        columns = score_columns(section.runs)
        scores = score_table(section, {task: note for task in columns if (note := outside(section, task))})
        tables.append(scores)
        differences = difference_table(section)
        tables += [differences] if differences else []
        if kind != "ablation":
            tables += [efficiency_table(section), *category_tables(section)]
        summary["withheld"] += [f"{row.point}: {why}" for row in section.rows for why in row.withheld.values()]
        summary["outside_paper"] += [note for note in scores.notes if note.startswith("‡")]
        if any(row.run for row in section.rows):
            summary["rehearsals" if section.rehearsal else "reproductions"] += 1
    for key in ("withheld", "outside_paper"):
        summary[key] = list(dict.fromkeys(summary[key]))
    summary["tables"] = len(tables)
    return tables, summary


def write(tables: Sequence[Table], folder: Path, formats: Sequence[str]) -> list[Path]:
    """``tables.md``, ``tables.tex`` and a CSV file for each table."""
    written: list[Path] = []
    if "md" in formats:
        written.append(folder / "tables.md")
        write_whole(written[-1], "\n".join(map(markdown, tables)))
    if "latex" in formats:
        written.append(folder / "tables.tex")
        write_whole(written[-1], "\n".join(map(latex, tables)))
    if "csv" in formats:
        for table in tables:
            written.append(folder / f"{table.slug}.csv")
            write_whole(written[-1], comma_separated(table))
    return written


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("results", type=Path, help="folder with results, searched with all folders below it")
    parser.add_argument("-o", "--output", type=Path, help="folder for the tables; default: Markdown on the terminal")
    parser.add_argument("--format", default="md", help=f"with commas between them: {','.join(FORMATS)}")
    options = parser.parse_args(arguments)
    formats = options.format.split(",")
    for name in formats:
        if name not in FORMATS:
            raise InputError(f"--format {name!r} is unknown; write one or more of {','.join(FORMATS)}")
    if options.output is None and formats != ["md"]:
        raise InputError(f"--format {options.format} needs a folder: name one with -o")
    if options.output is not None:
        check_target(options.output / "tables.md")
    runs = load_runs(options.results)
    grids = paper_grids()
    tables, summary = build(runs, grids)
    summary["in_no_table"] = [str(run.folder) for run in runs if run.name not in names_of(grids)]
    if options.output is None:
        print("\n".join(map(markdown, tables)))
        files = []
    else:
        files = [str(path) for path in write(tables, options.output, formats)]
        print(f"{len(tables)} tables in {options.output}")
    for line in (*summary["withheld"], *summary["outside_paper"]):
        print(f"warning: {line}", file=sys.stderr)
    print(json.dumps({"results": str(options.results), "runs": len(runs), "files": files, **summary, **provenance()}))
    sys.exit(1 if summary["withheld"] else 0)


if __name__ == "__main__":
    main()
