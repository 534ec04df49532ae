"""Tables and figures of the tiny model from its measured results; nothing in them is typed by hand.

    python -m eval.report.tables.tiny results/tiny

Reads every JSON file of the folder that ``python -m eval.instruments.record`` wrote around
``python -m eval.synthetic.answers.table`` and writes ``tables.md`` and the figures beside them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.instruments.cli import Parser, user_errors
from eval.instruments.kinds import kind_of, no_result, read_json, read_record
from eval.instruments.record import write_whole
from eval.instruments.sheets import OnPage, TableColumn, listed
from eval.report.figures.tiny import figures
from eval.report.tables.layout import Interval, Table, markdown
from eval.synthetic.answers.scores import NOTICE
from holitom.files import whole_file
from llava.errors import InputError

Row = Mapping[str, Any]


def _percent(share: float) -> str:
    return "n/a" if math.isnan(share) else f"{share:.1%}"


def _error(row: Row) -> str:
    return f"± {100 * row['error']:.1f}"


def _kept(row: Row) -> str:
    return f"{row['outer'] / row['before']:.1%}"


_GAP = "points against all tokens"
# score with standard error, paired difference with its 95 % interval, tokens and FLOPs of the rows of scored()
SCORES = (
    TableColumn("run", page=(OnPage(code=True),)),
    TableColumn(
        "score %",
        lambda row: f"{100 * row['score']:.1f} {_error(row)}",
        page=(OnPage("score, %", "", "score", ".1%", _error),),
    ),
    TableColumn("of full", "retention", _percent, page=(OnPage("of full, %", form=".1%"),)),
    TableColumn(
        "points against full [95 %]",
        Interval.of_shares,
        Interval.range,
        page=tuple(OnPage(key, _GAP, key, "+.1%") for key in Interval.columns[:3]),
    ),
    TableColumn("verdict", page=(OnPage("says"),)),
    TableColumn(
        "tokens to the LLM",
        lambda row: f"{row['outer']:.1f} ({_kept(row)})",
        page=(OnPage("to the LLM", "visual tokens", "outer", ".1f", _kept),),
    ),
    TableColumn("in its last layer", "inside", ".1f", page=(OnPage(group="visual tokens"),)),
    TableColumn(
        "prefill GFLOPs",
        lambda row: f"{row['gflops']:.3f} ({row['gflops'] / row['full_gflops']:.1%})",
        page=(OnPage(key="gflops", form=".3f"),),
    ),
)
# pairs of runs on the same questions, as duels() gives them
DUELS = (
    TableColumn("pair", page=(OnPage(code=True),)),
    TableColumn(
        "points [95 %]",
        Interval.of_shares,
        Interval.range,
        page=tuple(OnPage("points" if key == "difference" else key, "", key, "+.1%") for key in Interval.columns[:3]),
    ),
    TableColumn("the first is", "verdict", page=(OnPage(),)),
    TableColumn("p", form=".4f", detail=True, page=(OnPage(optional=True),)),
)


def scored(result: Row, names: Iterable[str], full_gflops: float | None = None) -> list[Row]:
    """Rows of :data:`SCORES` of a result of ``eval.synthetic.answers.table``."""
    return [{"run": name, "full_gflops": full_gflops, **result["rows"][name]} for name in names]


def in_main_table(result: Row) -> list[str]:
    """Names of the runs that a main table shows."""
    return [name for name in result["rows"] if name in result["frames"] or name == "blank"]


def family_columns(rows: Sequence[Row]) -> list[TableColumn]:
    """Columns of the shares of right answers by family, of rows of :func:`scored`."""
    return [SCORES[0], *map(_family_column, rows[0]["families"])]


def _family_column(name: str) -> TableColumn:
    def share(row: Row) -> float | None:
        return row["families"].get(name)  # a name of the record, whatever it holds, and no path

    return TableColumn(name, share, lambda value: f"{100 * value:.0f}", page=(OnPage(form=".0%"),))


def duels(result: Row) -> list[dict[str, Any]]:
    """Rows of :data:`DUELS`."""
    return [{"pair": name, **duel} for name, duel in result["duels"].items()]


def about(result: Row) -> str:
    """Split and frames of a result."""
    return f"split {result['split']}, {', '.join(map(str, sorted(set(result['frames'].values()))))} frames"


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
    title = f"{about(result)} (tiny learned model, rendered clips)"
    rows = scored(result, in_main_table(result), max(row["gflops"] for row in result["rows"].values()))
    tables = [
        Table(stem, f"Main table, {title}", *listed(SCORES, rows), _notes(record)),
        Table(f"{stem}_families", f"Families in percent, {title}", *listed(family_columns(rows), rows), [NOTICE]),
    ]
    if result["duels"]:
        title = f"Pairs on the same questions, {title}"
        tables.append(Table(f"{stem}_duels", title, *listed(DUELS, duels(result)), [NOTICE]))
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
            *listed(SCORES, scored(result, grid["points"], full)),
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
    parser = Parser(description=__doc__)
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
        path = options.results / f"{name}.png"
        with whole_file(path) as part:
            figure.savefig(part, format="png", dpi=120, bbox_inches="tight", metadata={"Software": None})
        pictures.append(str(path))
    print(json.dumps({"tables": len(tables), "page": str(options.results / "tables.md"), "pictures": pictures}))


if __name__ == "__main__":
    main()
