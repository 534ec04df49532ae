"""FLOPs of every row of the paper's efficiency columns: by its own formula, really, and counted; and the memory.

    python -m eval.efficiency.flops
    python -m eval.efficiency.flops --geometry llava-onevision-7b --only vanilla holitom_r10

Three parts. First the paper's formula: one line per row (the paper's value, ours, the difference). Then the rows whose
method really keeps another number of tokens than the paper counts, as far as results/ holds measurements of it
(``python -m eval.efficiency.token_counts``). Then real FLOPs by stage, with the bytes of the key-value cache and the
peak of a prefill: the model of the real size runs on torch's meta device under its FLOP counter, without weights. The
last line of stdout is one JSON document with the same data, of which ``python -m eval.report.figures.flops`` draws
figures.

torch counts the full square of causal attention, which is ``llm_square`` here, and ``llm`` is with its lower triangle
alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.efficiency.flops.plans import TEXT_BEFORE, TEXT_BEHIND, plans_of
from eval.efficiency.flops.real import MAIN, count_plans, newer_records, shares
from eval.efficiency.flops.sizes import CHECKPOINTS
from eval.efficiency.sheets import FLOPS, FORMULA, flops_rows
from eval.instruments.cli import Count, Parser, user_errors
from eval.instruments.kinds import FAULTS, no_result, read_record, stamped
from eval.instruments.sheets import terminal
from eval.paper.rows import as_record, main_rows, other_backbone_rows
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
        record = read_record(path, "tokens")
        try:
            rows += record["result"]["rows"]
        except FAULTS as error:
            raise no_result(path, "tokens", repr(error)) from None
    return rows


def print_rows(records: list[dict[str, Any]]) -> None:
    """The table."""
    print(terminal(FORMULA, records))
    print(f"{sum(record['agrees'] for record in records)} of {len(records)} rows agree with the printed digits")


def print_differences(measured: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows whose real count is not the nominal one; returns them."""
    if not measured:
        print("real token counts: not measured (python -m eval.efficiency.token_counts)")
        return []
    differ = [row for row in measured if row["nominal"] is not None and row["nominal"] != row["measured"]]
    print(f"\nreal token counts that differ from the nominal ones ({len(differ)} of {len(measured)} measured rows):")
    for row in differ:
        flops = f"{row['nominal_tflops']:.3f} T nominal, {row['measured_tflops']:.3f} T real"
        print(f"{row['config']:<28} {row['nominal']:>26} nominal {row['measured']:>26} real   {flops}")
    return differ


NOTE = (
    "T and G: 1e12 and 1e9 FLOPs, a multiplication and its addition counted as two, causal attention counted once. "
    "tokens: of the video before the LLM > in its last layer. a later token: the first after the prefill. peak: most "
    "bytes alive besides the weights, bfloat16. method: what compression itself computes as matrix products; - where "
    "its work depends on what a video shows, and then it is missing in the sum."
)


def real_flops(geometries: Sequence[str], text: int, only: Sequence[str] | None = None) -> dict[str, Any]:
    """The rows of some checkpoints, as they stand in the JSON line.

    Args:
        geometries: names of :data:`eval.efficiency.flops.sizes.CHECKPOINTS`.
        text: text tokens of the prompt, at least 2.
        only: configurations beside vanilla; None: all.

    Raises:
        InputError: for a name that no checkpoint has a configuration of.
    """
    before = min(TEXT_BEFORE, text // 2)
    plans = {name: plans_of(name, (before, text - before)) for name in geometries}
    known = {plan.name for each in plans.values() for plan in each}
    wanted = known if only is None else {"vanilla", *only}
    for name in sorted(wanted - known):
        raise InputError(f"--only {name} is no row of {', '.join(geometries)}: name some of {', '.join(sorted(known))}")
    rows = [row for each in plans.values() for row in count_plans([plan for plan in each if plan.name in wanted])]
    newer = newer_records((before, text - before)) if only is None and MAIN in geometries else []
    return {"real": rows, "headline": shares(rows), "newer": newer}


def show(real: dict[str, Any]) -> None:
    """One table for every checkpoint, and what the columns mean."""
    for name in dict.fromkeys(row["geometry"] for row in real["real"]):
        rows = [row for row in real["real"] if row["geometry"] == name]
        text = rows[0]["tokens"]["text"]
        print(f"\n{name}: real FLOPs, counted on the graph at the paper's token counts, {text} text tokens")
        print(terminal(FLOPS, flops_rows(rows)))
    print(NOTE)
    headline = real["headline"]
    if headline is not None:
        paper, llm, total = (headline[f"{name}_percent"] for name in ("paper_formula", "llm", "prefill"))
        print(
            f"{headline['config']} of {MAIN}: {paper:.1f} % of vanilla by the paper's formula; of the real FLOPs "
            f"{llm:.1f} % of the language model's and {total:.1f} % of the whole prefill's"
        )


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder with measured results")
    parser.add_argument("--geometry", nargs="+", choices=CHECKPOINTS, default=list(CHECKPOINTS), help="default: all")
    parser.add_argument("--only", nargs="+", metavar="CONFIG", help="rows beside vanilla whose real graph is counted")
    text = TEXT_BEFORE + TEXT_BEHIND
    parser.add_argument("--text-tokens", action=Count, least=2, default=text, help=f"of the prompt, default {text}")
    return parser.parse_args(arguments)


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Print every row, and the same as one JSON line at the end."""
    options = parse_arguments(arguments)
    records = [as_record(row) for row in (*main_rows(), *other_backbone_rows())]
    print_rows(records)
    differ = print_differences(measured_counts(options.results))
    real = real_flops(list(dict.fromkeys(options.geometry)), options.text_tokens, options.only)
    show(real)
    if real["newer"]:
        print("\nmethods younger than the paper beside it, each at its lowest share:")
        print(terminal(FLOPS, flops_rows(real["newer"])))
    formula = "4nd^2 + 2n^2d + 2ndm per layer, visual tokens only"
    result = {"formula": formula, "rows": records, "real_counts_that_differ": differ, **real}
    print(json.dumps(stamped("flops", result)))


if __name__ == "__main__":
    main()
