"""The page read by the standard library's parser, so that tests can hold it against the JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any


@dataclass
class Page(HTMLParser):
    """The page read by the standard library: tables with the exact values, ids, links, scripts and text."""

    source: str
    tables: dict[str, list[list[tuple[str, str | None]]]] = field(default_factory=dict)
    heads: dict[str, list[str]] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    tallies: list[dict[str, int]] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self.table, self.cell, self.script, self.verdict = "", None, "", ""
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        self.ids += [found["id"]] if found.get("id") else []
        self.links += [found["href"]] if "href" in found else []
        self.sources += [found["src"]] if "src" in found else []
        if tag == "table":
            self.table = found["data-sheet"] or ""
            self.tables[self.table], self.heads[self.table] = [], []
        elif tag == "tr" and self.table:
            self.row: list[tuple[str, str | None]] = []
        elif tag in ("td", "th") and self.table:
            self.cell = (found.get("scope"), found.get("data-value"), [])
        elif tag == "script":
            self.script = found.get("id") or "code"
        elif tag == "div" and found.get("class") == "tally":
            self.tallies.append({})
        elif tag == "li" and "data-verdict" in found:
            self.verdict = found["data-verdict"] or ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self.table = ""
        elif tag in ("td", "th") and self.cell is not None:
            scope, value, words = self.cell
            text = " ".join("".join(words).split())
            if scope == "col":
                self.heads[self.table].append(text)
            elif scope not in ("colgroup",):
                self.row.append((text, value))
            self.cell = None
        elif tag == "tr" and self.table and len(self.row) == len(self.heads[self.table]) > 0:
            self.tables[self.table].append(self.row)
        elif tag == "script":
            self.script = ""

    def handle_data(self, data: str) -> None:
        if self.script:
            if self.script != "code":
                self.data[self.script] = json.loads(data)
            return
        self.text += data
        if self.cell is not None:
            self.cell[2].append(data)
        if self.verdict and data.strip().isdigit():
            self.tallies[-1][self.verdict] = int(data)
            self.verdict = ""

    def numbers(self, table: str) -> list[list[float | None]]:
        """The exact values of a table's cells."""
        return [[None if value is None else float(value) for _, value in row] for row in self.tables[table]]

    def column(self, table: str, title: str) -> list[tuple[str, float | None]]:
        """Text and value of the cells of one column."""
        place = self.heads[table].index(title)
        return [
            (row[place][0], None if row[place][1] is None else float(row[place][1] or "nan"))
            for row in self.tables[table]
        ]
