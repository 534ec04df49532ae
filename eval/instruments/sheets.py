"""One description of a table for every place that shows it: key, heading and form of each column, and two renderers.

Markdown and the terminal are here; :func:`eval.report.page.sheets.sheet_of` sets the same columns on the page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ABSENT = "-"
Key = str | Callable[[Mapping[str, Any]], Any]
Form = str | Callable[[Any], str]


@dataclass(frozen=True)
class OnPage:
    """How the page sets a column, where that differs; a number keeps its exact value there, for sorting.

    Attributes:
        heading: above it.
        group: a heading above several columns.
        key, form: of the value, if others; a number's form tells its digits, its sign and whether it is in percent.
        small: what stands below it in small print.
        code: whether a text is a name; or what tells it of a text.
        verdict: key of a verdict, shown as a badge in front of the text.
        wide: whether it holds sentences.
        optional: whether the value may be absent.
        sorted_by: number of a text.
    """

    heading: str = ""
    group: str = ""
    key: Key = ""
    form: str = ""
    small: Callable[[Mapping[str, Any]], str] | None = None
    code: bool | Callable[[str], bool] = False
    verdict: str = ""
    wide: bool = False
    optional: bool = False
    sorted_by: Callable[[str], float] | None = None


@dataclass(frozen=True)
class TableColumn:
    """One column.

    Attributes:
        heading: above it.
        key: path of the value in a row, ``stages_ms.tower``; or what gives the value of a row. The heading if empty.
        form: how a value is written: a format, or a function. None is written as a dash.
        short: the heading on a terminal, where another one is needed.
        detail: shown on the terminal and left out of the page of tables.
        page: the columns that the reviewer's page makes of it.
    """

    heading: str
    key: Key = ""
    form: Form = ""
    short: str = ""
    detail: bool = False
    page: tuple[OnPage, ...] = ()

    def value(self, row: Mapping[str, Any]) -> Any:
        """The value of a row, see :func:`look_up`."""
        return look_up(row, self.key or self.heading)

    def text(self, row: Mapping[str, Any]) -> str:
        """The value as it is shown."""
        value = self.value(row)
        if value is None:
            return ABSENT
        return format(value, self.form) if isinstance(self.form, str) else self.form(value)


def look_up(row: Mapping[str, Any], key: Key) -> Any:
    """The value that a key names; None where a part of the path is None."""
    if callable(key):
        return key(row)
    found: Any = row
    for part in key.split("."):
        found = None if found is None else found.get(part)
    return found


def milliseconds(value: Mapping[str, float]) -> str:
    """A median with as many digits as it is worth."""
    median = value["median"]
    return f"{median:.2f}" if median < 10 else f"{median:.1f}" if median < 1000 else f"{median:.0f}"


def tenths(value: Mapping[str, float]) -> str:
    """Median and range with one decimal."""
    return f"{value['median']:.1f} ({value['min']:.1f} to {value['max']:.1f})"


def factor(value: float | None) -> str:
    """A ratio."""
    return ABSENT if value is None else f"{value:.2f}x"


def per(unit: float, form: str) -> Callable[[float], str]:
    """Form of a value in another unit: ``per(1e12, ".2f")``."""
    return lambda value: format(value / unit, form)


def listed(columns: Sequence[TableColumn], rows: Iterable[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Headings and lines of text, without the columns of detail."""
    shown = [column for column in columns if not column.detail]
    return [column.heading for column in shown], [[column.text(row) for column in shown] for row in rows]


def markdown(columns: Sequence[TableColumn], rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Lines of a table as GitHub shows it, without the columns of detail."""
    header, lines = listed(columns, rows)
    head, *rest = [f"| {' | '.join(line)} |".replace("|  |", "| |") for line in (header, *lines)]
    return [head, f"|{'---|' * len(header)}", *rest]


def terminal(columns: Sequence[TableColumn], rows: Iterable[Mapping[str, Any]]) -> str:
    """The table with aligned columns, the first to the left."""
    lines = [[column.short or column.heading for column in columns]]
    lines += [[column.text(row) for column in columns] for row in rows]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    pads = [str.ljust, *[str.rjust] * (len(widths) - 1)]
    aligned = [[pad(cell, width) for pad, cell, width in zip(pads, line, widths, strict=True)] for line in lines]
    return "\n".join("  ".join(cells) for cells in aligned)
