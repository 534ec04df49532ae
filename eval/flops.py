"""FLOPs by the paper's own formula, for every row of its two efficiency columns, and where real token counts differ.

    python -m eval.flops

prints one line per row (the paper's value, ours, the difference), then the rows whose method really keeps another
number of tokens than the paper counts, as far as results/ holds measurements of it (``python -m eval.token_counts``).
The last line of stdout is one JSON document with the same data.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.cli import Parser, user_errors
from eval.paper_rows import as_record, main_rows, other_backbone_rows
from llava.errors import InputError


def measured_counts(results: Path) -> list[dict[str, Any]]:
    """Rows of the measured token counts in ``results/*/token_counts.json``; empty if nothing was measured.

    Raises:
        InputError: if a file cannot be read.
    """
    if not results.is_dir() and results != Path("results"):
        raise InputError(f"--results {results} is no folder: name one with measured results")
    rows = []
    for path in sorted(results.glob("*/token_counts.json")):
        try:
            rows += json.loads(path.read_text())["result"]["rows"]
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise InputError(f"{path} is no result of eval.token_counts ({error!r}): measure it again") from None
    return rows


def print_rows(records: list[dict[str, Any]]) -> None:
    """The table."""
    line = "{:<19} {:<15} {:>4} {:>13} {:>7} {:>7} {:>6} {:>7} {:>6}"
    print(line.format("model", "method", "kept", "tokens", "paper T", "ours T", "diff", "paper %", "ours %"))
    for record in records:
        model, method, kept, tokens, paper, ours, difference, percent, our_percent, _ = record.values()
        percent = "-" if percent is None else percent
        numbers = (f"{paper:.1f}", f"{ours:.3f}", f"{difference:+.3f}", percent, our_percent)
        print(line.format(model, method, f"{kept}%", "{} > {}".format(*tokens), *numbers))
    print(f"{sum(record['agrees'] for record in records)} of {len(records)} rows agree with the printed digits")


def print_differences(measured: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows whose real count is not the nominal one; returns them."""
    if not measured:
        print("real token counts: not measured (python -m eval.token_counts)")
        return []
    differ = [row for row in measured if row["nominal"] is not None and row["nominal"] != row["measured"]]
    print(f"\nreal token counts that differ from the nominal ones ({len(differ)} of {len(measured)} measured rows):")
    for row in differ:
        flops = f"{row['nominal_tflops']:.3f} T nominal, {row['measured_tflops']:.3f} T real"
        print(f"{row['config']:<28} {row['nominal']:>26} nominal {row['measured']:>26} real   {flops}")
    return differ


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Print every row, and the same as one JSON line at the end."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder with measured token counts")
    options = parser.parse_args(arguments)
    records = [as_record(row) for row in (*main_rows(), *other_backbone_rows())]
    print_rows(records)
    differ = print_differences(measured_counts(options.results))
    formula = "4nd^2 + 2n^2d + 2ndm per layer, visual tokens only"
    print(json.dumps({"formula": formula, "rows": records, "real_counts_that_differ": differ}))


if __name__ == "__main__":
    main()
