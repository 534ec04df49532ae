"""Charts as SVG pictures of matplotlib, with their points beside them for programs that read the page.

Colours are those of Okabe and Ito, which colour-blind readers tell apart; every method has a marker of its own as well.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.report.page.blocks import Chart
from eval.report.page.svg import small_svg, svg_address
from holitom.methods import facts_of, title_of

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*", "p", "h", "<", ">", "d", "8")
_FULL = ("#000000", "X", "solid")
_TAKEN = 13  # places of the colours and markers that methods bring
_HATCHES = ("", "//", "\\\\", "xx", "--", "||", "++", "..")
_WIDTH = 6.8  # inches
_NOT_XML = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\ufffe\\uffff]")


@dataclass(frozen=True)
class Series:
    """Points of one line: ``x``, ``y`` and the half-widths of their error bars, with a name for each point."""

    name: str
    x: Sequence[float | str]
    y: Sequence[float | None]
    errors: Sequence[float | None] = ()
    names: Sequence[str] = ()
    method: str = ""
    dashed: bool = False
    lines: bool = True

    def plain(self) -> dict[str, Any]:
        """As the data beside a chart has it."""
        return {
            "name": plain(self.name),
            "x": [plain(at) if isinstance(at, str) else at for at in self.x],
            "y": list(self.y),
            "errors": list(self.errors),
            "names": [plain(name) for name in self.names],
        }


@dataclass(frozen=True)
class Drawn:
    """What stands around a chart."""

    slug: str
    title: str
    axes: tuple[str, str]
    said: str


def plain(text: str) -> str:
    """Text of the data beside a chart, without markup."""
    return html.escape(str(text), quote=False)


def method_label(method: str) -> str:
    """What a method is called: its name in the paper's tables if it is in them."""
    return "all tokens" if method == "vanilla" else facts_of(method).paper_row or title_of(method)


def style(method: str, place: int = 0) -> tuple[str, str, str]:
    """Colour, marker and dash: a method's own in every chart; others follow in their order of appearance."""
    own = _FULL if method == "vanilla" else facts_of(method).style
    if own is not None:
        return own
    number = _TAKEN + place
    dash = ("solid", "dotted")[number // len(_COLOURS) % 2]
    return _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)], dash


def curves(
    slug: str,
    title: str,
    series: Sequence[Series],
    axes: tuple[str, str],
    said: str,
    band: tuple[float, float, str] | None = None,
) -> Chart:
    """Lines with markers and error bars.

    Args:
        slug: id on the page.
        title: heading of the chart.
        series: the lines.
        axes: titles of the horizontal and the vertical axis.
        said: what the chart shows, in words.
        band: a value to hold the lines against, its error, and its name.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415

    drawn = Figure(figsize=(_WIDTH, 4.4), layout="constrained")
    axis = drawn.subplots()
    data: list[dict[str, Any]] = []
    for place, line in enumerate(series):
        _draw(axis, line, style(line.method or line.name, place))
        data.append(line.plain())
    if band is not None:
        value, error, name = band
        axis.axhspan(value - error, value + error, color="#000000", alpha=0.07, linewidth=0)
        axis.axhline(value, color="#000000", linestyle="--", linewidth=1, label=_label(name))
        data.append({"name": plain(name), "y": [value], "errors": [error]})
    return _chart(drawn, Drawn(slug, title, axes, said), data)


def _draw(axis: Any, line: Series, look: tuple[str, str, str]) -> None:
    colour, marker, dash = look
    points = [at for at, value in enumerate(line.y) if value is not None]
    errors = [line.errors[at] or 0.0 for at in points] if any(e is not None for e in line.errors) else None
    axis.errorbar(
        [_label(line.x[at]) for at in points],
        np.array([line.y[at] for at in points], dtype=float),
        errors,
        label=_label(line.name),
        color=colour,
        marker=marker,
        markersize=6,
        linewidth=1.4 if line.lines else 0.0,
        elinewidth=1,
        capsize=2,
        linestyle="--" if line.dashed else dash,
        markerfacecolor="none" if line.dashed else colour,
    )


def stacked(
    slug: str, title: str, bars: Sequence[str], parts: Mapping[str, Sequence[float | None]], axis: str, said: str
) -> Chart:
    """Horizontal bars, each a sum of parts."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    drawn = Figure(figsize=(_WIDTH, max(3.2, 0.34 * len(bars) + 1.5)), layout="constrained")
    axes = drawn.subplots()
    low = [0.0] * len(bars)
    data = []
    for place, (name, values) in enumerate(parts.items()):
        widths = [value or 0.0 for value in values]
        axes.barh(
            range(len(bars)),
            widths,
            left=low,
            label=_label(name),
            color=_COLOURS[place % len(_COLOURS)],
            edgecolor="#ffffff",
            linewidth=0.8,
            hatch=_HATCHES[place % len(_HATCHES)],
        )
        low = [left + width for left, width in zip(low, widths, strict=True)]
        data.append({"name": plain(name), "x": list(values), "y": [plain(bar) for bar in bars]})
    axes.set_yticks(range(len(bars)), [_label(bar) for bar in bars])
    axes.invert_yaxis()
    return _chart(drawn, Drawn(slug, title, (axis, ""), said), data)


def _label(value: Any) -> Any:
    """Text that matplotlib shows as it is: it reads formulas between dollars otherwise, and writes what XML forbids."""
    if not isinstance(value, str):
        return value
    return _NOT_XML.sub("\ufffd", value.encode("utf-8", "replace").decode()).replace("$", r"\$")


def _chart(drawn: Any, facts: Drawn, data: Sequence[Mapping[str, Any]]) -> Chart:
    import matplotlib as mpl  # noqa: PLC0415

    (axis,) = drawn.axes
    axis.set_xlabel(_label(facts.axes[0]))
    axis.set_ylabel(_label(facts.axes[1]))
    axis.grid(color="#e6e6e6", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    if axis.get_legend_handles_labels()[0]:
        drawn.legend(loc="outside upper left", ncols=4, fontsize=7.5, frameon=False)
    picture = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": facts.slug, "font.family": "sans-serif"}):
        drawn.savefig(picture, format="svg", metadata={"Date": None, "Creator": None})
    return Chart(facts.slug, facts.title, {"data": data}, facts.said, svg_address(small_svg(picture.getvalue())))
