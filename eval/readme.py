"""Write the measured section of the README from the results in the repository; nothing in it is typed by hand.

python -m eval.readme          # README.md from results/
python -m eval.readme --check  # exit status 1 if the README says something else than the results
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from eval.cli import Parser, user_errors
from eval.record import write_whole
from llava.errors import InputError

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def _source(record: dict[str, Any]) -> str:
    return (
        f"`{record['command']}`, commit {record['commit']}, {record['device']}, "
        f"torch {record['torch']}, transformers {record['transformers']}"
    )


def parity_section(record: dict[str, Any]) -> list[str]:
    """Largest differences to the recordings."""
    result = record["result"]
    limits = {"outer": "1e-5", "inner": "1e-5", "dpc": "1e-5", "e2e": "1e-3"}
    names = {"outer": "outer stage", "inner": "inner merge", "dpc": "DPC-KNN", "e2e": "whole runs, logits"}
    rows = [f"| {names[kind]} | {result['max_abs_error'][kind]:.1e} | {limits[kind]} |" for kind in names]
    failed = ", ".join(result["failed"]) or "none"
    return [
        f"**Recordings of the release**: {result['cases']} cases, failed: {failed}.", "",
        "| | largest absolute error | limit |", "|---|---|---|", *rows, "", f"From {_source(record)}.",
    ]  # fmt: skip


def outer_section(record: dict[str, Any]) -> list[str]:
    """Time of the outer stage, beside a plain restatement of the release's steps where that was run."""
    result = record["result"]
    sizes = result["settings"]
    names = {"holitom": "this project", "plain": "plain restatement of the release's steps"}
    rows = []
    for name, times in result["times"].items():
        cpu = times["cpu_ms"]
        span = f"{cpu['median']:.0f} ({cpu['min']:.0f} to {cpu['max']:.0f})"
        rows.append(f"| {names[name]} | {span} | {times['wall_ms']['median']:.0f} |")
    ratio = "" if result["cpu_speedup"] is None else f"Ratio of CPU times {result['cpu_speedup']}; "
    return [
        f"**Outer stage**, {sizes['frames']} x {sizes['tokens']} x {sizes['dim']} {sizes['dtype']}, "
        f"{sizes['repetitions']} interleaved repetitions, {sizes['threads']} thread(s), synthetic clip:", "",
        "| | CPU ms, median (range) | wall ms |", "|---|---|---|", *rows, "",
        f"{ratio}peak memory above the input {result['peak_above_input_mb']:.0f} MB. From {_source(record)}.",
    ]  # fmt: skip


def counts_section(record: dict[str, Any]) -> list[str]:
    """Nominal and real token counts of every row."""
    result = record["result"]
    rows = [
        f"| {row['config']} | {row['nominal'] or '-'} | {row['measured']} | {_tera(row['nominal_tflops'])} "
        f"| {_tera(row['measured_tflops'])} |"
        for row in result["rows"]
    ]
    return [
        f"**Visual tokens of every row**, {result['frames']} x {result['tokens_per_frame']} of {result['video']}, "
        "a tiny random model with 28 layers; FLOPs by the paper's formula at the 7B sizes. Methods whose count depends "
        "on the clip end under budget where little moves:", "",
        "| config | nominal tokens | real tokens | nominal T | real T |", "|---|---|---|---|---|", *rows, "",
        f"From {_source(record)}.",
    ]  # fmt: skip


def _tera(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def methods_section(record: dict[str, Any]) -> list[str]:
    """Time each method adds to a prefill."""
    result = record["result"]
    sizes = result["settings"]
    rows = [
        f"| {row['method']} | {_ms(row['signals_ms'])} | {_ms(row['outer_ms'])} | {_ms(row['inner_ms'])} "
        f"| {_ms(row['total_ms'])} | {row['ratio']:.1f} |"
        for row in result["rows"]
    ]
    return [
        f"**Time each method adds to a prefill** at the 7B geometry, {sizes['frames']} x {sizes['tokens']} x "
        f"{sizes['dim']} {sizes['dtype']} on {sizes['device']}, {sizes['threads']} thread(s), {sizes['repetitions']} "
        "interleaved repetitions, medians in ms. What it saves is not in here:", "",
        "| method | tower signals | outer stage | inner stage | total | / uniform |", "|---|---|---|---|---|---|",
        *rows, "",
        f"From {_source(record)}.",
    ]  # fmt: skip


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


SECTIONS = {
    "parity.json": parity_section,
    "bench_outer.json": outer_section,
    "bench_outer_long.json": outer_section,
    "token_counts.json": counts_section,
    "bench_methods.json": methods_section,
}


def measured(results: Path) -> str:
    """The section, from what is in ``results/*/``; what is absent is called not measured.

    Raises:
        InputError: if a result file cannot be read.
    """
    lines: list[str] = []
    for name, section in SECTIONS.items():
        found = sorted(results.glob(f"*/{name}"))
        if not found:
            lines += [f"`{name}`: not measured.", ""]
        for path in found:
            try:
                lines += [*section(json.loads(path.read_text())), ""]
            except (KeyError, TypeError, json.JSONDecodeError) as error:
                raise InputError(f"{path} is no result of this command ({error!r}): measure it again") from None
    return "\n".join(lines).rstrip()


@user_errors
def main() -> None:
    """Command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    try:
        text = options.readme.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{options.readme} cannot be read ({error.strerror}): name the README") from None
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise InputError(f"{options.readme} lacks the lines {BEGIN} and {END}")
    new = f"{head}{BEGIN}\n{measured(options.results)}\n{END}{tail}"
    if options.check:
        print(f"{options.readme} " + ("agrees with" if new == text else "differs from") + f" {options.results}")
        sys.exit(0 if new == text else 1)
    write_whole(options.readme, new)


if __name__ == "__main__":
    main()
