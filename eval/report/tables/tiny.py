"""Tables and figures of the tiny model from its measured results; nothing in them is typed by hand.

    python -m eval.report.tables.tiny results/tiny

Reads every JSON file of the folder that ``python -m eval.instruments.record`` wrote around
``python -m eval.synthetic.answers.table`` and writes ``tables.md`` and the figures beside them.
"""

from __future__ import annotations

import argparse
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.instruments.cli import Parser, user_errors
from eval.instruments.kinds import kind_of, no_result, read_json, read_record
from eval.instruments.record import write_whole
from eval.report.figures.tiny import figures
from eval.report.tables.layout import Interval, Table, markdown
from eval.synthetic.answers.scores import NOTICE
from llava.errors import InputError


def _percent(share: float) -> str:
    return "n/a" if math.isnan(share) else f"{share:.1%}"


def _cells(name: str, row: dict[str, Any], full_flops: float) -> list[str]:
    return [
        name,
        f"{100 * row['score']:.1f} ± {100 * row['error']:.1f}",
        _percent(row["retention"]),
        Interval.of_shares(row).range(),
        row["verdict"],
        f"{row['outer']:.1f} ({row['outer'] / row['before']:.1%})",
        f"{row['inside']:.1f}",
        f"{row['gflops']:.3f} ({row['gflops'] / full_flops:.1%})",
    ]


_HEADER = (
    "run",
    "score %",
    "of full",
    "points against full [95 %]",
    "verdict",
    "tokens to the LLM",
    "in its last layer",
    "prefill GFLOPs",
)


def _notes(record: dict[str, Any]) -> list[str]:
    result = record["result"]
    some = next(iter(result["rows"].values()))
    return [
        NOTICE,
        f"{some['questions']} questions of the split `{result['split']}`, the score is the mean of the families; "
        "intervals are a paired bootstrap over clips, ± is the standard error. A difference whose interval holds zero "
        "is called no difference shown.",
        f"`{record['command']}`, {record['date']}, commit {record['commit']}, {record['device']}, torch "
        f"{record['torch']}, checkpoint {result['checkpoint']}, data {result['data']}.",
    ]


def main_tables(stem: str, record: dict[str, Any]) -> list[Table]:
    """Scores, families and duels of a main table."""
    result = record["result"]
    rows = result["rows"]
    full = max(row["gflops"] for row in rows.values())
    frames = ", ".join(map(str, sorted(set(result["frames"].values()))))
    title = f"split {result['split']}, {frames} frames (tiny learned model, rendered clips)"
    shown = {name: row for name, row in rows.items() if name in result["frames"] or name == "blank"}
    families = list(next(iter(rows.values()))["families"])
    tables = [
        Table(stem, f"Main table, {title}", _HEADER, [_cells(n, r, full) for n, r in shown.items()], _notes(record)),
        Table(
            f"{stem}_families",
            f"Families in percent, {title}",
            ["run", *families],
            [[name, *(f"{100 * row['families'][family]:.0f}" for family in families)] for name, row in shown.items()],
            [NOTICE],
        ),
    ]
    if result["duels"]:
        duels = [[name, Interval.of_shares(duel).range(), duel["verdict"]] for name, duel in result["duels"].items()]
        header = ["pair", "points [95 %]", "the first is"]
        tables.append(Table(f"{stem}_duels", f"Pairs on the same questions, {title}", header, duels, [NOTICE]))
    return tables


def ablation_tables(record: dict[str, Any]) -> list[Table]:
    """One table for each ablation."""
    result = record["result"]
    rows = result["rows"]
    full = rows[next(name for name in rows if name.startswith("vanilla_f"))]["gflops"]
    return [
        Table(
            f"ablation_{name}",
            f"Ablation: {grid['title']} (tiny learned model, rendered clips)",
            _HEADER,
            [_cells(point, rows[point], full) for point in grid["points"]],
            _notes(record),
        )
        for name, grid in result["ablations"].items()
        if grid["points"]
    ]


def load(folder: Path) -> dict[str, dict[str, Any]]:
    """Records of a folder by file name.

    Raises:
        InputError: if there is none, or one is no result of this command.
    """
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            if kind_of(read_json(path)[0]) == "tiny":
                found[path.stem] = read_record(path, "tiny")
        except InputError as error:
            raise no_result(path, "tiny", error) from None
    if not found:
        raise InputError(f"{folder} holds no result of eval.synthetic.answers.table: run scripts/table_tiny.sh")
    return found


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="folder of the results; tables and figures are written there")
    options = parser.parse_args(arguments)
    tables: list[Table] = []
    records = load(options.results)
    for stem, record in records.items():
        tables += ablation_tables(record) if record["result"]["table"] == "ablations" else main_tables(stem, record)
    text = f"# The learned tiny model\n\n**{NOTICE}**\n\n" + "\n".join(map(markdown, tables))
    write_whole(options.results / "tables.md", text)
    pictures = []
    for name, figure in figures(records):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=120, bbox_inches="tight", metadata={"Software": None})
        path = options.results / f"{name}.png"
        part = path.with_suffix(".png.part")
        part.write_bytes(buffer.getvalue())
        part.replace(path)
        pictures.append(str(path))
    print(json.dumps({"tables": len(tables), "page": str(options.results / "tables.md"), "pictures": pictures}))


if __name__ == "__main__":
    main()
