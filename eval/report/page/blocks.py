"""What a page is made of: sections of paragraphs, notices, tables, charts, pictures and the sample browser.

Plain data. The template alone knows HTML, and it escapes every text.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eval.claims.judging import CONTRADICTED, NOT_HERE, PARTLY, REPRODUCED, UNDECIDED
from eval.report.tables.layout import number

NOT_JUDGED, NOT_MEASURED = "not judged", "not measured"
# verdict -> class of its badge; each class has a sign of its own, so that no one needs the colours
TONES = {
    REPRODUCED: "good",
    PARTLY: "part",
    UNDECIDED: "part",
    CONTRADICTED: "bad",
    NOT_JUDGED: "open",
    NOT_MEASURED: "open",
    NOT_HERE: "open",
}
SIGNS = {"good": "✓", "part": "◐", "bad": "✗", "open": "○"}
ABSENT = "\u2013"


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: what is shown.
        value: the exact number behind it, for sorting and for programs that read the page; None: sorted as text.
        verdict: one of the verdicts above, shown as a badge in front of the text.
        small: a second line in small print.
        code: whether the text is a command, a path or a name.
        target: id of a place on this page that the text links to.
    """

    text: str = ""
    value: float | None = None
    verdict: str = ""
    small: str = ""
    code: bool = False
    target: str = ""

    @property
    def number(self) -> bool:
        """Whether the cell holds a number, or stands where one is missing."""
        return self.value is not None or self.text == ABSENT

    @property
    def tone(self) -> str:
        """Class of the verdict's badge."""
        return TONES.get(self.verdict, "open")

    @property
    def sign(self) -> str:
        """Sign of the verdict's badge."""
        return SIGNS[self.tone]


def slugged(text: str) -> str:
    """Text as an id on the page: only letters, digits and dashes, and another id for every other text."""
    plain = re.sub(r"[^A-Za-z0-9-]+", "-", text.replace("/", "--"))
    return plain if plain == text.replace("/", "--") else f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def figure(value: float | None, digits: int = 1, sign: bool = False, unit: str = "", small: str = "") -> Cell:
    """A rounded number that keeps its exact value; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return Cell(ABSENT, small=small)
    return Cell(number(value, digits, sign) + unit, float(value), small=small)


@dataclass(frozen=True)
class Column:
    """Heading of a column; ``group`` stands above several of them, ``wide`` columns hold sentences."""

    title: str
    group: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Sheet:
    """A table that can be sorted and filtered."""

    slug: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()
    kind: str = "sheet"

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows), self.slug

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Headings above the columns and how many columns each spans; empty when no column has one."""
        if not any(column.group for column in self.columns):
            return []
        spans: list[tuple[str, int]] = []
        for column in self.columns:
            if spans and column.group and spans[-1][0] == column.group:
                spans[-1] = (column.group, spans[-1][1] + 1)
            else:
                spans.append((column.group, 1))
        return spans


@dataclass(frozen=True)
class Text:
    """Paragraphs."""

    paragraphs: Sequence[str]
    kind: str = "text"


@dataclass(frozen=True)
class Notice:
    """A sentence in a box: ``instrument``, ``absent``, ``damaged`` or ``rule``."""

    text: str
    tone: str
    kind: str = "notice"


@dataclass(frozen=True)
class Chart:
    """A drawn chart: ``spec`` holds its points, ``said`` tells in words what it shows, ``source`` is its SVG."""

    slug: str
    title: str
    spec: Mapping[str, Any]
    said: str
    source: str = ""
    kind: str = "chart"


@dataclass(frozen=True)
class Picture:
    """An embedded picture: ``source`` is a ``data:`` address of a picture that was decoded once."""

    slug: str
    title: str
    source: str
    said: str
    width: int
    height: int
    kind: str = "picture"


@dataclass(frozen=True)
class Tally:
    """Counts of verdicts for the head of the page."""

    title: str
    counts: Mapping[str, int]
    note: str = ""
    kind: str = "tally"

    @property
    def parts(self) -> list[tuple[str, int, str, str]]:
        """Verdict, count, class and sign."""
        return [(name, count, TONES[name], SIGNS[TONES[name]]) for name, count in self.counts.items()]


@dataclass(frozen=True)
class Card:
    """One claim at the head of the page: what is claimed, what was measured, how sure that is, and the verdict."""

    title: str
    claimed: str
    measured: str
    sure: str
    cell: Cell
    command: str = ""


@dataclass(frozen=True)
class Cards:
    """Claims beside each other."""

    title: str
    cards: Sequence[Card]
    kind: str = "cards"


@dataclass(frozen=True)
class Highlights:
    """Sentences, each with the number that it is about, and what the number was read from."""

    slug: str
    title: str
    facts: Sequence[tuple[str, str, str]]  # number, sentence, source
    kind: str = "facts"


@dataclass(frozen=True)
class Browser:
    """The sample browser; ``sets`` is its data, see :meth:`eval.report.page.samples.SampleSet.packed`."""

    sets: Sequence[Mapping[str, Any]]
    kind: str = "browser"


Block = Sheet | Text | Notice | Chart | Picture | Tally | Cards | Highlights | Browser


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading and an entry in the table of contents."""

    slug: str
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)
