"""Charts as Plotly specifications: the library draws them in the reader's browser, nothing is drawn here.

Colours are those of Okabe and Ito, which colour-blind readers tell apart; every method has a marker of its own as well.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.report.page.blocks import Chart

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
_MARKERS = (
    "circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "star", "pentagon", "hexagram",
    "triangle-left", "triangle-right", "bowtie", "hourglass",
)  # fmt: skip
# methods keep their colour and marker in every chart; others follow in their order of appearance
_KNOWN = (
    "holitom", "holitom_without_inner", "visionzip", "prunevid", "fastvid", "vidcom2", "vanilla", "fastv", "pdrop",
    "dycoke", "evs", "uniform", "random",
)  # fmt: skip
TITLES = {
    "holitom": "HoliTom", "holitom_without_inner": "HoliTom (w/o M)", "visionzip": "VisionZip", "prunevid": "PruneVid",
    "fastvid": "FastVID", "vidcom2": "VidCom2", "vanilla": "all tokens", "fastv": "FastV", "pdrop": "PDrop",
    "dycoke": "DyCoke", "evs": "EVS", "uniform": "uniform", "random": "random",
}  # fmt: skip
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


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


def plain(text: str) -> str:
    """Text that Plotly shows as it is: it reads some markup in labels otherwise."""
    return html.escape(str(text), quote=False)


def style(method: str, place: int = 0) -> tuple[str, str, str]:
    """Colour, marker and dash of a method, the same in every chart."""
    number = _KNOWN.index(method) if method in _KNOWN else len(_KNOWN) + place
    dash = ("solid", "dot")[number // len(_COLOURS) % 2]
    return _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)], dash


def curves(
    slug: str, title: str, series: Sequence[Series], axes: tuple[str, str], said: str,
    band: tuple[float, float, str] | None = None,
) -> Chart:  # fmt: skip
    """Lines with markers and error bars.

    Args:
        slug: id on the page.
        title: heading of the chart.
        series: the lines.
        axes: titles of the horizontal and the vertical axis.
        said: what the chart shows, in words.
        band: a value to hold the lines against, its error, and its name.
    """
    import plotly.graph_objects as go  # noqa: PLC0415

    drawn = go.Figure()
    for place, line in enumerate(series):
        colour, marker, dash = style(line.method or line.name, place)
        known = [error is not None for error in line.errors]
        drawn.add_scatter(
            x=[plain(at) if isinstance(at, str) else at for at in line.x], y=list(line.y), name=plain(line.name),
            mode="lines+markers" if line.lines else "markers",
            error_y={"array": list(line.errors), "thickness": 1, "width": 3} if any(known) else None,
            marker={"symbol": marker + ("-open" if line.dashed else ""), "size": 9, "color": colour},
            line={"color": colour, "width": 1.5, "dash": "dash" if line.dashed else dash},
            text=[plain(name) for name in line.names] or None,
            hovertemplate="%{text}<br>%{x:.4g}, %{y:.4g}<extra></extra>" if line.names else None,
        )  # fmt: skip
    if band is not None:
        value, error, name = band
        drawn.add_hrect(y0=value - error, y1=value + error, fillcolor="#000000", opacity=0.07, line_width=0)
        drawn.add_hline(y=value, line={"color": "#000000", "dash": "dash", "width": 1}, annotation_text=plain(name),
                        annotation_position="bottom right", annotation_font_size=11)  # fmt: skip
    return _chart(drawn, slug, title, axes, said)


def stacked(
    slug: str, title: str, bars: Sequence[str], parts: Mapping[str, Sequence[float | None]], axis: str, said: str
) -> Chart:
    """Horizontal bars, each a sum of parts."""
    import plotly.graph_objects as go  # noqa: PLC0415

    drawn = go.Figure()
    shapes = ("", "/", "\\", "x", "-", "|", "+", ".")
    for place, (name, values) in enumerate(parts.items()):
        drawn.add_bar(
            x=list(values), y=[plain(bar) for bar in bars], name=plain(name), orientation="h",
            marker={
                "color": _COLOURS[place % len(_COLOURS)],
                "line": {"color": "#ffffff", "width": 1},
                "pattern": {"shape": shapes[place % len(shapes)], "fillmode": "overlay", "fgcolor": "#ffffff",
                            "fgopacity": 0.55, "solidity": 0.2, "size": 6},
            },
        )  # fmt: skip
    drawn.update_layout(barmode="stack", height=max(320, 34 * len(bars) + 150))
    drawn.update_yaxes(autorange="reversed", automargin=True)
    return _chart(drawn, slug, title, (axis, ""), said)


def _chart(drawn: Any, slug: str, title: str, axes: tuple[str, str], said: str) -> Chart:
    drawn.update_layout(
        template="simple_white", font={"family": _FONT, "size": 12, "color": "#1a1a1a"},
        margin={"l": 60, "r": 15, "t": 15, "b": 50}, paper_bgcolor="#ffffff", plot_bgcolor="#ffffff",
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "xanchor": "left", "x": 0, "font": {"size": 11},
                "traceorder": "normal"},
        hoverlabel={"namelength": -1}, showlegend=True,
    )  # fmt: skip
    drawn.update_layout(height=drawn.layout.height or 440)
    drawn.update_xaxes(title_text=plain(axes[0]), gridcolor="#e6e6e6", showgrid=True, automargin=True)
    drawn.update_yaxes(title_text=plain(axes[1]), gridcolor="#e6e6e6", showgrid=True, automargin=True)
    raw = drawn.to_plotly_json()
    raw["layout"]["template"] = _small(raw["layout"]["template"])
    return Chart(slug, title, {"data": raw["data"], "layout": raw["layout"]}, said)


def _small(template: Any) -> dict[str, Any]:
    """The part of a template that lines and bars use; the rest would be half of a small page."""
    whole = template.to_plotly_json() if hasattr(template, "to_plotly_json") else dict(template)
    return {"layout": {key: whole["layout"][key] for key in ("xaxis", "yaxis", "hovermode", "colorway")
                       if key in whole["layout"]}}  # fmt: skip
