"""The README's section of checks and costs that need no GPU, from ``results/*/``."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.benchmarks.sheets import REUSE, reuse_rows
from eval.claims.parity.__main__ import LIMITS
from eval.efficiency.sheets import METHODS, OUTER, STEPS, TOKENS, outer_rows, steps_in_short
from eval.instruments.kinds import FAULTS, no_result, read_record
from eval.instruments.sheets import TableColumn, markdown
from llava.errors import InputError


def source(record: dict[str, Any]) -> str:
    """Where a recorded number comes from."""
    return (
        f"`{record['command']}`, commit {record['commit']}, {record['device']}, "
        f"torch {record['torch']}, transformers {record['transformers']}"
    )


def section(text: str, columns: Sequence[TableColumn], rows: Iterable[Mapping[str, Any]], source: str) -> list[str]:
    """Lines of a table with what it is above and where it comes from below."""
    return [text, "", *markdown(columns, rows), "", source]


PARITY_NAMES = {
    "outer": "outer stage",
    "inner": "inner merge",
    "dpc": "DPC-KNN",
    "e2e": "whole runs, logits",
    "flashvid": "FlashVID, outer stage",
    "flashvid_llm_prune": "FlashVID inside the LLM",
    "earlytom_merge": "EarlyTom, frames",
    "earlytom_select": "EarlyTom, tokens",
    "earlytom_tower": "EarlyTom inside the tower",
}
PARITY = (
    TableColumn("", lambda row: PARITY_NAMES[row["kind"]]),
    TableColumn("largest absolute error", "error", ".1e"),
    TableColumn("limit", lambda row: f"{LIMITS[row['kind']]:.0e}".replace("e-0", "e-")),
)


def parity_section(record: dict[str, Any]) -> list[str]:
    """Largest differences to the recordings."""
    result = record["result"]
    errors = {kind: error for kind, error in result["max_abs_error"].items() if error is not None}
    rows = [{"kind": kind, "error": errors[kind]} for kind in PARITY_NAMES if kind in errors]
    text = f"**Recordings of the release**: {result['cases']} cases, failed: {', '.join(result['failed']) or 'none'}."
    return section(text, PARITY, rows, f"From {source(record)}.")


def outer_section(record: dict[str, Any]) -> list[str]:
    """Time of the outer stage, beside a plain restatement of the release's steps where that was run."""
    result = record["result"]
    sizes = result["settings"]
    growth = result.get("growth")
    ratio = "" if result["cpu_speedup"] is None else f"Ratio of CPU times {result['cpu_speedup']}; "
    if growth is not None:
        ratio += f"from {growth['frames'][0]} to {growth['frames'][1]} frames {growth['over_linear']} times linear; "
    text = (
        f"**Outer stage**, {sizes['frames']} x {sizes['tokens']} x {sizes['dim']} {sizes['dtype']}, "
        f"{sizes['repetitions']} interleaved repetitions, {sizes['threads']} thread(s), synthetic clip:"
    )
    peak = f"peak memory above the input {result['peak_above_input_mb']:.0f} MB"
    return section(text, OUTER, outer_rows(result), f"{ratio}{peak}. From {source(record)}.")


def counts_section(record: dict[str, Any]) -> list[str]:
    """Nominal and real token counts of every row."""
    result = record["result"]
    text = (
        f"**Visual tokens of every row**, {result['frames']} x {result['tokens_per_frame']} of {result['video']}, "
        "a tiny random model with 28 layers; FLOPs by the paper's formula at the 7B sizes. Methods whose count depends "
        "on the clip end under budget where little moves; to a tower of random weights all frames are alike, so "
        "`holitom_tower`, which merges them there, keeps one:"
    )
    return section(text, TOKENS, result["rows"], f"From {source(record)}.")


def methods_section(record: dict[str, Any]) -> list[str]:
    """Time each method adds to a prefill."""
    result = record["result"]
    sizes = result["settings"]
    text = (
        f"**Time each method adds to a prefill** at the 7B geometry, {sizes['frames']} x {sizes['tokens']} x "
        f"{sizes['dim']} {sizes['dtype']} on {sizes['device']}, {sizes['threads']} thread(s), {sizes['repetitions']} "
        "interleaved repetitions, medians in ms. What it saves is not in here:"
    )
    return section(text, METHODS, result["rows"], f"From {source(record)}.")


def stages_section(record: dict[str, Any]) -> list[str]:
    """Both stages beside the release's steps, cell by cell."""
    cells = record["result"]["cells"]
    short = steps_in_short(cells)
    lines = [
        "**Both stages beside a plain restatement of the release's steps**, each cell in a process of its own, the two "
        "in turn; CPU ms, median (range). New memory costs a process page faults, which depend on what it freed "
        "before; so the ratio is given once more with all freed memory kept. Pictures of clips go through one random "
        "projection.",
    ]
    if short:
        how = "in brackets with freed memory kept"
        lines[0] += f" In bfloat16 the release's steps take so many times as long ({how}): {short}."
    for stage, columns in STEPS.items():
        if rows := [row for row in cells if row["stage"] == stage]:
            lines += ["", f"The {stage} stage:", "", *markdown(columns, rows)]
    return [*lines, "", f"From {source(record)}."]


def reuse_section(record: dict[str, Any]) -> list[str]:
    """What encoding a video once for all its questions saves."""
    result = record["result"]
    text = (
        f"**{result['questions']} questions on {result['videos']} videos** of {result['width']} pixels' width, "
        f"{result['frames']} frames, random weights, {result['tower_layers']} layers of the tower and "
        f"{result['layers']} of the 0.5B decoder; answers equal: {result['equal']}:"
    )
    return section(text, REUSE, reuse_rows(result), f"From {source(record)}.")


SECTIONS = {
    "parity.json": ("parity", parity_section),
    "parity_newer.json": ("parity", parity_section),
    "bench_outer.json": ("outer", outer_section),
    "bench_outer_long.json": ("outer", outer_section),
    "stages.json": ("stages", stages_section),
    "token_counts.json": ("tokens", counts_section),
    "bench_methods.json": ("methods", methods_section),
    "reuse.json": ("reuse", reuse_section),
}


def from_files(results: Path, name: str, kind: str, section: Callable[[dict[str, Any]], list[str]]) -> list[str]:
    """Lines of a section for every recorded result of a name, in the order of the folders; none if there is none.

    Args:
        results: the folder ``results``.
        name: of the files, with wildcards.
        kind: of the records.
        section: a record to its lines.

    Raises:
        InputError: if a result file cannot be read.
    """
    lines: list[str] = []
    for path in sorted(results.glob(f"*/{name}")):
        try:
            lines += [*section(read_record(path, kind)), ""]
        except FAULTS as error:
            if isinstance(error, InputError):
                raise
            raise no_result(path, kind, repr(error)) from None
    return lines


def measured(results: Path) -> str:
    """The section, from what is in ``results/*/``; what is absent is called not measured.

    Raises:
        InputError: if a result file cannot be read.
    """
    lines: list[str] = []
    for name, (kind, section) in SECTIONS.items():
        lines += from_files(results, name, kind, section) or [f"`{name}`: not measured.", ""]
    return "\n".join(lines).rstrip()
