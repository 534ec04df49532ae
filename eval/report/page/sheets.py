"""Tables of the page from the one description of their columns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eval.instruments.sheets import OnPage, TableColumn, look_up
from eval.report.page.blocks import Cell, Column, Sheet, figure
from llava.errors import InputError

_NUMBER = re.compile(r"([+]?)\.(\d)([f%])")  # sign, digits and unit of a form
Row = Mapping[str, Any]


def sheet_of(
    slug: str, title: str, columns: Sequence[TableColumn], rows: Iterable[Row], notes: Sequence[str] = ()
) -> Sheet:
    """A table from the description of its columns.

    Raises:
        InputError: a row lacks a value that it must have.
    """
    shown = [(part, column) for column in columns for part in column.page]
    headings = [Column(part.heading or column.heading, part.group, part.wide) for part, column in shown]
    return Sheet(slug, title, headings, [[_cell(part, column, row) for part, column in shown] for row in rows], notes)


def _cell(part: OnPage, column: TableColumn, row: Row) -> Cell:
    value = look_up(row, part.key or column.key or column.heading)
    if value is None:
        if not part.optional:
            raise InputError(f"a row has no {part.heading or column.heading}: measure it again")
        return figure(None)
    if isinstance(value, str) or part.code:
        code = part.code(value) if callable(part.code) else part.code
        return Cell(str(value), part.sorted_by and part.sorted_by(value), row.get(part.verdict, ""), code=code)
    if isinstance(value, Mapping):  # repeated measurements
        return figure(value["median"], small=f"{value['min']:.1f} to {value['max']:.1f}")
    form = part.form or column.form
    found = _NUMBER.fullmatch(form) if isinstance(form, str) else None
    small = part.small(row) if part.small else ""
    if found is None:
        return figure(value, 0 if isinstance(value, int) else 1, small=small)
    return figure(100 * value if found[3] == "%" else value, int(found[2]), bool(found[1]), small=small)
