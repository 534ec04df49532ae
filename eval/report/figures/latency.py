"""Bars of the time to first token, stage by stage, from measured latencies: the paper's efficiency figure.

    python -m eval.report.figures.latency results/h200/latency_llava-onevision-7b.json -o outputs/latency.png

One panel per file and clip; a file is a recorded result or the last line of ``eval.efficiency.latency``. Grey tones and
hatches stay apart in print.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.instruments.cli import Parser, user_errors
from eval.instruments.kinds import FAULTS, no_result, read_record
from eval.instruments.sheets import factor, milliseconds
from holitom.files import whole_file
from llava.errors import InputError

# stage -> (words, grey, hatch), in the order of the run
_BARS = {
    "tower": ("vision tower", "0.80", ""),
    "projector": ("projector, pooling", "0.60", ""),
    "signals": ("compression: reading the tower", "1.0", "////"),
    "outer": ("compression: before the LLM", "1.0", "xxxx"),
    "llm": ("LLM prefill", "0.30", ""),
    "inner": ("compression: inside the LLM", "1.0", "...."),
    "other": ("other", "0.95", ""),
}
_BAR_INCHES, _PANEL_INCHES = 0.36, 1.5


def stage_parts(row: dict[str, Any]) -> dict[str, float]:
    """Medians in ms that a bar is stacked from; ``other`` fills up to the measured time to first token.

    Args:
        row: of a latency result.
    """
    medians = {name: value["median"] for name, value in row["stages_ms"].items() if value is not None}
    inner = medians.get("inner", 0.0)
    parts = {name: medians.get(name, 0.0) for name in ("tower", "projector", "signals", "outer")}
    parts |= {"llm": medians["prefill"] - inner, "inner": inner}
    return {**parts, "other": max(0.0, medians["time_to_first_token"] - sum(parts.values()))}


def panels(results: Sequence[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Title and rows of every panel: one per result and clip."""
    found = []
    for result in results:
        for clip in dict.fromkeys(row["clip"] for row in result["rows"]):
            weights = "random weights" if result["random_weights"] else str(result["checkpoint"])
            what = f"{result['geometry']}, {result['frames']} frames, {result['dtype']}, {result['device']}"
            rows = [row for row in result["rows"] if row["clip"] == clip]
            found.append((f"{what}\n{weights}; {clip}; median of {result['repetitions']}", rows))
    return found


def _draw_panel(axis: Any, title: str, rows: Sequence[dict[str, Any]]) -> None:
    for place, row in enumerate(rows):
        left = 0.0
        for name, width in stage_parts(row).items():
            words, grey, hatch = _BARS[name]
            label = words if place == 0 else None
            axis.barh(place, width, left=left, color=grey, hatch=hatch, edgecolor="black", linewidth=0.6, label=label)
            left += width
        ratios, stages = row["against_vanilla"] or {}, row["stages_ms"]
        text = f"{milliseconds(stages['time_to_first_token'])} ms, {factor(ratios.get('time_to_first_token'))}"
        if row["tokens_per_second"] is not None:
            text += f"; {row['tokens_per_second']['median']:.1f} tokens/s, {factor(ratios.get('tokens_per_second'))}"
        axis.text(left, place, f"  {text}", va="center", fontsize=8)
    counts = [f"{row['config']}\n{row['tokens']['before_llm']} > {row['tokens']['inside_llm']} tokens" for row in rows]
    axis.set_yticks(range(len(rows)), counts, fontsize=8)
    axis.invert_yaxis()
    axis.set_xlim(0, axis.get_xlim()[1] * 1.45)  # room for the words behind the longest bar
    axis.set_xlabel("time to first token, ms", fontsize=8)
    axis.set_title(title, fontsize=9, loc="left")


def draw(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the figure.

    Args:
        results: of ``eval.efficiency.latency``.
        path: a PNG, PDF or SVG file to write.

    Raises:
        InputError: if there are no rows, or the file cannot be written.
    """
    import matplotlib  # noqa: PLC0415

    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    wanted = panels(results)
    if not wanted:
        raise InputError("the results have no rows: measure with eval.efficiency.latency first")
    heights = [_PANEL_INCHES + _BAR_INCHES * len(rows) for _, rows in wanted]
    figure, axes = pyplot.subplots(
        len(wanted), 1, figsize=(10, sum(heights)), squeeze=False, layout="constrained", height_ratios=heights
    )
    try:
        for axis, (title, rows) in zip(axes[:, 0], wanted, strict=True):
            _draw_panel(axis, title, rows)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)
        with whole_file(path) as part:
            figure.savefig(part, dpi=150, format=path.suffix.removeprefix(".") or "png")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be written ({error}): name a PNG file in a folder of yours") from None
    finally:
        pyplot.close(figure)


def read_result(path: Path) -> dict[str, Any]:
    """A latency result, recorded or as it was printed.

    Raises:
        InputError: if the file holds none.
    """
    try:
        found = read_record(path, "latency")
        found = found.get("result", found)
        for row in found["rows"]:
            stage_parts(row)
        panels([found])
    except FAULTS as error:
        raise no_result(path, "latency", repr(error)) from None
    return found


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="+", help="JSON files")
    parser.add_argument("-o", "--output", type=Path, required=True, help="PNG, PDF or SVG file to write")
    options = parser.parse_args(arguments)
    draw([read_result(path) for path in options.results], options.output)
    print(options.output)


if __name__ == "__main__":
    main()
