"""The tables of real FLOPs on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from eval.efficiency.flops.real import MAIN, deviations

# a table that is not cut where the output is no terminal
console = Console(highlight=False, soft_wrap=True, markup=False, width=None if sys.stdout.isatty() else 160)
_COLUMNS = (
    "", "tokens", "tower T", "proj. T", "method T", "LLM T", "LLM %", "total T", "total %", "token G", "KV MB",
    "peak MB", "counted",
)  # fmt: skip
NOTE = (
    "T and G: 1e12 and 1e9 FLOPs, a multiplication and its addition counted as two, causal attention counted once. "
    "tokens: of the video before the LLM > in its last layer, newlines included. % of vanilla. token: the first token "
    "after the prefill. peak: most bytes alive besides the weights, bfloat16. method: what compression itself computes "
    "as matrix products; - where no closed form is known, and then it is missing in the sum. counted: largest "
    "difference of a FLOPs column or the KV column from the count of the real graph."
)


def worst(closed: dict[str, Any], counted: dict[str, Any] | None) -> float | None:
    """Largest deviation of a row from its count, the peak left out; None if it was not counted."""
    if counted is None:
        return None
    return max(value for name, value in deviations(closed, counted).items() if name != "peak_activation_bytes")


def _relative(value: float) -> str:
    return "equal" if value == 0 else f"{value:.1e}"


def stage_table(closed: Sequence[dict[str, Any]], counted: Mapping[str, dict[str, Any]]) -> Table:
    """Rows of one checkpoint, vanilla first.

    Args:
        closed: the rows.
        counted: those that were counted, by configuration.
    """
    full = closed[0]
    text = full["tokens"]["text"]
    title = f"{full['geometry']}: real FLOPs, closed form at the paper's token counts, {text} text tokens"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in _COLUMNS:
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for row in closed:
        prefill, tokens, method = row["prefill"], row["tokens"], row["prefill"]["method"]
        difference = worst(row, counted.get(row["config"]))
        table.add_row(
            row["config"],
            f"{tokens['before_llm']} > {tokens['after_inner']}",
            *(f"{prefill[name] / 1e12:.2f}" for name in ("tower", "projector")),
            "-" if method is None else f"{method / 1e12:.3f}",
            f"{prefill['llm'] / 1e12:.2f}",
            f"{prefill['llm'] / full['prefill']['llm']:.1%}",
            f"{prefill['total'] / 1e12:.2f}",
            f"{prefill['total'] / full['prefill']['total']:.1%}",
            f"{row['decode_per_token'] / 1e9:.2f}",
            f"{row['kv_cache_bytes'] / 1e6:.1f}",
            f"{row['peak_activation_bytes'] / 1e6:.0f}",
            "-" if difference is None else _relative(difference),
        )
    return table


def show(real: Mapping[str, Any]) -> None:
    """One table for every checkpoint, what the columns mean, and how well closed form and count agree.

    Args:
        real: what :func:`eval.efficiency.flops.__main__.real_flops` returns.
    """
    closed, counted, largest, headline = (
        real[name] for name in ("closed_form", "counted", "largest_deviations", "headline")
    )
    for name in dict.fromkeys(row["geometry"] for row in closed):
        runs = {row["config"]: row for row in counted if row["geometry"] == name}
        console.print()
        console.print(stage_table([row for row in closed if row["geometry"] == name], runs))
    console.print(NOTE)
    if headline is not None:
        paper, llm, total = (headline[f"{name}_percent"] for name in ("paper_formula", "llm", "prefill"))
        console.print(
            f"{headline['config']} of {MAIN}: {paper:.1f} % of vanilla by the paper's formula; of the real FLOPs "
            f"{llm:.1f} % of the language model's and {total:.1f} % of the whole prefill's"
        )
    if not counted:
        console.print("the real graph was not counted (--count none)")
        return
    parts = ", ".join(f"{name} {_relative(value)}" for name, value in largest.items())
    console.print(f"closed form against {len(counted)} counted rows, largest relative differences: {parts}")
