"""A table of text, numbers and comparisons, written as Markdown, CSV or LaTeX."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

NOT_RUN = "n/a"


def number(value: float | None, digits: int = 1, sign: bool = False) -> str:
    """A rounded number, or ``n/a``; never a minus before a zero."""
    if value is None or math.isnan(value):
        return NOT_RUN
    rounded = round(value, digits) + 0.0
    return f"{rounded:{'+' if sign else ''}.{digits}f}"


def in_percent(share: float | None) -> float | None:
    """A share in percent; None stays None."""
    return None if share is None else 100 * share


@dataclass(frozen=True)
class Comparison:
    """The paper's score, ours with its standard error, and the difference; marks point to notes.

    ``withheld`` stands in the place of our score when it may not be shown.
    """

    paper: float | None = None
    ours: float | None = None
    error: float | None = None
    comparable: bool = True
    mark: str = ""
    withheld: str = ""

    columns = ("paper", "ours", "standard error", "difference")

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's; None where one of them is missing or they are not about the same thing."""
        if self.paper is None or self.ours is None or not self.comparable:
            return None
        return self.ours - self.paper

    def fields(self) -> list[str]:
        """One text for each of :attr:`columns`."""
        ours = self.withheld or number(self.ours) + (self.mark if self.ours is not None else "")
        return [number(self.paper), ours, number(self.error), number(self.difference, sign=True)]

    def text(self) -> str:
        """``paper / ours ± error / difference``."""
        if self.paper is None and self.ours is None and not self.withheld:
            return NOT_RUN
        paper, ours, error, gap = self.fields()
        spread = f" ± {error}" if self.ours is not None and error != NOT_RUN else ""
        return f"{paper} / {ours}{spread} / {gap}"


@dataclass(frozen=True)
class Interval:
    """A paired difference in points with the ends of its interval and the p of the paired test."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None

    columns = ("difference", "low", "high", "p")

    def fields(self) -> list[str]:
        """One text for each of :attr:`columns`."""
        return [
            number(self.value, sign=True),
            number(self.low, sign=True),
            number(self.high, sign=True),
            number(self.p, 3),
        ]

    @classmethod
    def of_shares(cls, row: Mapping[str, Any]) -> Self:
        """In points, from a record that holds shares of 1."""
        return cls(*(100 * row[key] for key in cls.columns[:3]))

    def range(self) -> str:
        """``difference [low, high]``."""
        value, low, high, _ = self.fields()
        return f"{value} [{low}, {high}]"

    def text(self) -> str:
        """``difference [low, high] p``."""
        return NOT_RUN if self.value is None else f"{self.range()} p {self.fields()[-1]}"


Cell = str | Comparison | Interval


@dataclass(frozen=True)
class Table:
    """A table with a heading and notes; ``slug`` names its files."""

    slug: str
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = field(default_factory=tuple)


def _text(cell: Cell) -> str:
    return cell if isinstance(cell, str) else cell.text()


def markdown(table: Table) -> str:
    """The table as GitHub shows it."""
    lines = [f"## {table.title}", ""]
    lines += [f"| {' | '.join(table.header)} |", f"|{'---|' * len(table.header)}"]
    for row in table.rows:
        lines.append("| " + " | ".join(_text(cell).replace("|", "\\|") for cell in row) + " |")
    lines += [""] if table.notes else []
    lines += [f"* {note}" for note in table.notes]
    return "\n".join(lines) + "\n"


def comma_separated(table: Table) -> str:
    """The table with a column for each number; the title and notes are left to the other formats."""
    kinds: list[type[Comparison] | type[Interval] | None] = []
    for place in range(len(table.header)):
        cells = [row[place] for row in table.rows if not isinstance(row[place], str)]
        kinds.append(type(cells[0]) if cells else None)  # type: ignore[arg-type]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    header: list[str] = []
    for name, kind in zip(table.header, kinds, strict=True):
        header += [name] if kind is None else [f"{name} {column}" for column in kind.columns]
    writer.writerow(header)
    for row in table.rows:
        line: list[str] = []
        for cell, kind in zip(row, kinds, strict=True):
            line += (
                cell.fields() if not isinstance(cell, str) else [cell] + [""] * (len(kind.columns) - 1 if kind else 0)
            )
        writer.writerow(line)
    return out.getvalue()


_LATEX = {"\\": r"\textbackslash{}", "±": r"$\pm$", "†": r"$\dagger$", "‡": r"$\ddagger$", "~": r"\textasciitilde{}"}
_LATEX |= {"^": r"\textasciicircum{}", **{sign: f"\\{sign}" for sign in "&%$#_{}"}}


def latex_text(text: str) -> str:
    """Text with every sign that LaTeX takes for a command written out."""
    return re.sub("[" + re.escape("".join(_LATEX)) + "]", lambda match: _LATEX[match[0]], text)


def latex(table: Table) -> str:
    """The table as a ``tabular`` without packages."""
    columns = "l" + "r" * (len(table.header) - 1)
    lines = [r"\begin{table}", rf"\caption{{{latex_text(table.title)}}}", rf"\begin{{tabular}}{{{columns}}}", r"\hline"]
    lines += [" & ".join(map(latex_text, table.header)) + r" \\", r"\hline"]
    lines += [" & ".join(latex_text(_text(cell)) for cell in row) + r" \\" for row in table.rows]
    lines += [r"\hline", r"\end{tabular}"]
    lines += [rf"\\ {latex_text(note)}" for note in table.notes]
    return "\n".join([*lines, r"\end{table}", ""])
