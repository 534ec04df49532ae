"""Figure of ``python -m eval.efficiency.tradeoff``: accuracy of the tiny model against real prefill FLOPs.

    python -m eval.report.figures.tradeoff results/tiny/tradeoff.json -o results/tiny/tradeoff.png

One panel for every number of frames; a line goes through the shares of one method, bars are standard errors over clips.
The file is a recorded result or the last line of the command. The last line is JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.efficiency.tradeoff import method_of
from eval.instruments.cli import Parser, user_errors
from eval.instruments.kinds import FAULTS, no_result, read_record
from eval.report.figures import new_figure

_MARKERS = "osD^v<>pXhP*d"
_STRONG = ("holitom", "holitom_tower")


def panel(axes: Any, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Every row of one number of frames: score in percent against the share of vanilla's FLOPs."""
    methods: dict[str, list[Mapping[str, Any]]] = {}
    for name, row in rows.items():
        methods.setdefault(method_of(name)[0], []).append(row)
    for number, (method, found) in enumerate(methods.items()):
        found.sort(key=lambda row: row["prefill_gflops"])
        strong = method in _STRONG
        axes.errorbar(
            [100 * row["prefill_share"] for row in found],
            [100 * row["score"] for row in found],
            [100 * row["error"] for row in found],
            marker=_MARKERS[number % len(_MARKERS)],
            label=method,
            capsize=2,
            linewidth=2.2 if strong else 1,
            elinewidth=0.6,
            alpha=1 if strong else 0.6,
        )
    axes.set_xlabel("matrix products of a prefill, tower included, % of vanilla")
    axes.set_ylabel("right answers, %")
    axes.legend(fontsize=6, ncols=2)


def tradeoff(result: Mapping[str, Any]) -> Any:
    """The figure.

    Raises:
        InputError: without matplotlib.
    """
    by_frames, title = result["by_frames"], f"{result['notice']} {result['questions']} questions."
    figure, panels = new_figure(len(by_frames), 7 * len(by_frames), 5, title, 8)
    for axes, (frames, rows) in zip(panels, by_frames.items(), strict=True):
        panel(axes, rows)
        axes.set_title(f"{frames} frames", fontsize=9)
    return figure


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("record", type=Path, help="a recorded result")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file of the figure")
    options = parser.parse_args(arguments)
    record = read_record(options.record, "tradeoff")
    try:
        figure = tradeoff(record.get("result", record))
    except FAULTS as error:
        raise no_result(options.record, "tradeoff", repr(error)) from None
    options.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output, dpi=120)
    print(json.dumps({"figure": str(options.output)}))


if __name__ == "__main__":
    main()
