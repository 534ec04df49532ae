"""Figures of the tiny model's results: score against FLOPs, and a curve or bars for each ablation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from eval.report.figures import new_figure
from eval.synthetic.answers.scores import NOTICE
from holitom.methods import belongs, title_of


def _full(axes: Any, row: dict[str, Any]) -> None:
    score, error = 100 * row["score"], 100 * row["error"]
    axes.axhline(score, color="black", linewidth=0.8, linestyle="--", label="all tokens")
    axes.axhspan(score - error, score + error, color="black", alpha=0.07, linewidth=0)


def score_by_flops(record: dict[str, Any]) -> Any:
    """Score of every method against the FLOPs of its prefill; bars are standard errors."""
    result = record["result"]
    figure, (axes,) = new_figure(1, 8, 5, NOTICE, 7)
    rows = result["rows"]
    full = next(row for name, row in rows.items() if name.startswith("vanilla"))
    _full(axes, full)
    lines: dict[str, list[dict[str, Any]]] = {}
    for name in result["frames"]:
        if not name.startswith("vanilla"):
            lines.setdefault(name.partition("_r")[0], []).append(rows[name])
    for number, (method, points) in enumerate(lines.items()):
        points.sort(key=lambda row: row["gflops"])
        strong = belongs(method, "holitom")
        axes.errorbar(
            [100 * row["gflops"] / full["gflops"] for row in points],
            [100 * row["score"] for row in points],
            yerr=[100 * row["error"] for row in points],
            label=title_of(method),
            marker="osD^v<>pX*hP"[number % 12],
            capsize=2,
            linewidth=2.2 if strong else 1,
            alpha=1 if strong else 0.7,
        )
    axes.set_xlabel("prefill FLOPs of the language model, % of all tokens (the paper's formula)")
    axes.set_ylabel(f"score %, split {result['split']}")
    axes.legend(fontsize=7, ncols=2)
    return figure


def changed_values(points: Mapping[str, Mapping[str, Any]]) -> tuple[str, dict[str, float]] | None:
    """The one setting in which the points of a configuration differ, and its number for each point.

    None when they differ in anything else, or in something that is no number.
    """
    changes = {name: [change.partition("=") for change in point["changes"]] for name, point in points.items()}
    keys = {tuple(key for key, *_ in found) for found in changes.values()}
    if len(keys) != 1 or len(next(iter(keys))) != 1:
        return None
    values = {name: json.loads(found[0][2]) for name, found in changes.items()}
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values.values()):
        return None
    return next(iter(keys))[0], values


def ablation(name: str, grid: dict[str, Any], rows: dict[str, dict[str, Any]]) -> Any:
    """Score over the values of a setting, or a bar for each point."""
    points = grid["points"]
    numbers = changed_values(points) if len({point.partition(",")[0] for point in points}) == 1 else None
    figure, (axes,) = new_figure(1, 6.5, 4, NOTICE, 7)
    _full(axes, next(row for point, row in rows.items() if point.startswith("vanilla_f")))
    heights, errors = ([100 * rows[point][key] for point in points] for key in ("score", "error"))
    axes.errorbar(
        range(len(points)) if numbers is None else list(numbers[1].values()),
        heights,
        yerr=errors,
        marker="o",
        capsize=2,
        linestyle="" if numbers is None else "-",
        label=name,
    )
    if numbers is None:
        labels = [point.replace(",", "\n").replace("_without_inner", " w/o inner") for point in points]
        axes.set_xticks(range(len(points)), labels, fontsize=6, rotation=20)
    else:
        axes.set_xlabel(numbers[0])
    axes.set_title(grid["title"], fontsize=9)
    axes.set_ylabel("score %")
    axes.legend(fontsize=7)
    return figure


def figures(records: Mapping[str, dict[str, Any]]) -> Iterator[tuple[str, Any]]:
    """File name without ending and figure."""
    for stem, record in records.items():
        result = record["result"]
        if result["table"] == "main":
            yield f"{stem}_flops", score_by_flops(record)
        for name, grid in result["ablations"].items():
            if grid["points"]:
                yield f"ablation_{name}", ablation(name, grid, result["rows"])
