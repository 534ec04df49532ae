"""The table of a latency result on a terminal."""

from __future__ import annotations

from typing import Any

from eval.efficiency.latency.run import OWN_STAGES

_STAGES = ("tower", "projector", "prefill")


def milliseconds(value: dict[str, float] | None) -> str:
    """A median with as many digits as it is worth."""
    if value is None:
        return "-"
    median = value["median"]
    return f"{median:.2f}" if median < 10 else f"{median:.1f}" if median < 1000 else f"{median:.0f}"


def factor(value: float | None) -> str:
    """A ratio to vanilla."""
    return "-" if value is None else f"{value:.2f}x"


def share(value: float | None) -> str:
    """What a method adds, as a part of vanilla's time to first token."""
    return "-" if value is None else f"{value:.2%}"


def print_table(result: dict[str, Any]) -> None:
    """One line per row, every time beside the tokens it belongs to; factors and overhead are against vanilla."""
    weights = "random weights" if result["random_weights"] else result["checkpoint"]
    print(
        f"{result['geometry']} ({weights}), {result['frames']} frames, {result['dtype']}, {result['attention']}, "
        f"{result['device']}; medians of {result['repetitions']} in ms"
    )
    times = ("overhead", "first token", "", "per token", "", "peak MB")
    clip = None
    for row in result["rows"]:
        if row["clip"] != clip:
            clip = row["clip"]
            print(f"\n{clip:<28}{'tokens':>20}" + "".join(f"{head:>12}" for head in (*_STAGES, *OWN_STAGES, *times)))
        tokens, stages, ratios = row["tokens"], row["stages_ms"], row["against_vanilla"] or {}
        cells = [milliseconds(stages[stage]) for stage in (*_STAGES, *OWN_STAGES)]
        cells += [share(ratios.get("overhead"))]
        cells += [milliseconds(stages["time_to_first_token"]), factor(ratios.get("time_to_first_token"))]
        cells += [milliseconds(stages["time_per_output_token"]), factor(ratios.get("time_per_output_token"))]
        cells += [f"{row['peak_memory_mb']:.0f}"]
        counts = f"{tokens['before_llm']} > {tokens['inside_llm']}"
        print(f"{row['config']:<28}{counts:>20}" + "".join(f"{cell:>12}" for cell in cells))
    print()
