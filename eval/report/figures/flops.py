"""Figures of ``python -m eval.efficiency.flops``: accuracy against FLOPs, and FLOPs by stage.

    python -m eval.report.figures.flops results/cpu/flops.json -o outputs/flops

The file is a recorded result or the last line of ``eval.efficiency.flops``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from eval.efficiency.flops.real import MAIN
from eval.instruments.cli import Parser, user_errors
from eval.instruments.kinds import FAULTS, no_result, read_record
from eval.paper.config_names import config_stem
from eval.paper.rows import PaperRow, main_rows, scores_of
from eval.report.figures import new_figure
from eval.report.figures.tiny import score_by_flops
from holitom.files import whole_file
from llava.errors import InputError

_MARKERS = "osD^v<>pX"
_WIDTH, _HEIGHT = 6.5, 4.8  # inches of one panel
_STAGES = (("tower", "tower"), ("projector", "projector"), ("method", "compression"), ("llm", "language model"))


def _lines(axes: Any, points: Sequence[tuple[PaperRow, float]]) -> None:
    """A line through the retentions of every method: share of FLOPs against the printed accuracy."""
    methods: dict[str, list[tuple[float, float]]] = {}
    for row, share in points:
        scores = scores_of(row)
        if scores is not None and scores.percent is not None:
            methods.setdefault(row.method, []).append((share, scores.percent))
    for number, (method, pairs) in enumerate(methods.items()):
        pairs.sort()
        strong = method.startswith("HoliTom")
        axes.plot(
            *zip(*pairs, strict=True),
            marker=_MARKERS[number % len(_MARKERS)],
            label=method,
            linewidth=2.2 if strong else 1,
            alpha=1 if strong else 0.7,
        )
    axes.axhline(100, color="black", linewidth=0.8, linestyle="--")
    axes.set_xscale("log")
    ticks = [5, 10, 20, 50, 100]
    axes.set_xticks(ticks, [f"{tick}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_ylabel("average accuracy printed by the paper, % of vanilla")
    axes.legend(fontsize=7)


def accuracy_by_flops(counted: Sequence[dict[str, Any]]) -> Any:
    """The paper's accuracies against FLOPs: by its formula, and real ones of the whole prefill."""
    real = {row["config"]: row["prefill"]["total"] for row in counted if row["geometry"] == MAIN}
    title = "LLaVA-OneVision-7B: accuracies as printed by the paper, not measured here"
    figure, (left, right) = new_figure(2, 2 * _WIDTH, _HEIGHT, title, 9)
    _lines(left, [(row, row.percent) for row in main_rows()])
    left.set_xlabel("FLOPs by the paper's formula (language model, visual tokens), % of vanilla")
    named = [(row, config_stem(*row.key)) for row in main_rows()]
    _lines(right, [(row, 100 * real[name] / real["vanilla"]) for row, name in named if name in real])
    right.set_xlabel("real FLOPs of the whole prefill (tower included), % of vanilla")
    return figure


def stage_bars(counted: Sequence[dict[str, Any]]) -> Any:
    """FLOPs of every stage of a prefill: all tokens beside HoliTom at its lowest retention, for every checkpoint."""
    names = list(dict.fromkeys(row["geometry"] for row in counted))
    title = "real FLOPs of a prefill by stage, at the paper's token counts"
    figure, axes = new_figure(len(names), len(names) * _WIDTH, _HEIGHT, title, 9)
    for place, name in zip(axes, names, strict=True):
        rows = [row for row in counted if row["geometry"] == name]
        shown = [rows[0], next(row for row in reversed(rows) if row["config"].startswith("holitom_r"))]
        bottom = [0.0] * len(shown)
        for stage, label in _STAGES:
            heights = [(row["prefill"][stage] or 0) / 1e12 for row in shown]
            place.bar([row["config"] for row in shown], heights, bottom=bottom, label=label)
            bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
        place.set_title(name, fontsize=9)
        place.set_ylabel("1e12 FLOPs")
        place.legend(fontsize=7)
    return figure


def measured_tables(results: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Recorded main tables of the learned tiny model below ``results``, with a name for each."""
    for path in sorted(results.glob("*/main.json")):
        try:
            record = read_record(path, "tiny")
            if record["result"]["table"] == "main":
                yield path.parent.name, record
        except FAULTS as error:
            raise no_result(path, "tiny", repr(error)) from None


def write_figures(folder: Path, counted: Sequence[dict[str, Any]], results: Path) -> list[Path]:
    """Write every figure as a PNG; returns their paths.

    Args:
        folder: made if it is absent.
        counted: rows of :func:`eval.efficiency.flops.real.record`.
        results: folder with measured results, of which accuracies of our own are taken where present.

    Raises:
        InputError: if matplotlib is absent or the folder cannot be written.
    """
    figures = {"flops_stages": stage_bars(counted)}
    if any(row["geometry"] == MAIN for row in counted):
        figures["flops_accuracy_paper"] = accuracy_by_flops(counted)
    for name, record in measured_tables(results):
        figures[f"flops_accuracy_measured_{name}"] = score_by_flops(record)
    paths = [folder / f"{name}.png" for name in figures]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, figure in zip(paths, figures.values(), strict=True):
            with whole_file(path) as part:
                figure.savefig(part, format="png", dpi=150)
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror}): name a folder of yours") from None
    return paths


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Real rows of a FLOPs result, recorded or as it was printed.

    Raises:
        InputError: if the file holds none.
    """
    try:
        found = read_record(path, "flops")
        rows = found.get("result", found)["real"]
        stage_bars(rows)
    except FAULTS as error:
        raise no_result(path, "flops", repr(error)) from None
    return list(rows)


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("result", type=Path, help="JSON file")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for figures")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder with measured results")
    options = parser.parse_args(arguments)
    if options.output.exists() and not options.output.is_dir():
        raise InputError(f"-o {options.output} is a file: name a folder")
    for path in write_figures(options.output, read_rows(options.result), options.results):
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
