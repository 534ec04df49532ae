"""One description of a table on the page: the numbers of Markdown with what is exact behind them."""

from __future__ import annotations

import pytest

from eval.efficiency.sheets import FORMULA, METHODS, OUTER, STAGE_TIMES, TOKENS
from eval.instruments.sheets import OnPage, TableColumn, listed
from eval.report.page.blocks import ABSENT, Cell
from eval.report.page.sheets import sheet_of
from eval.report.tables.tiny import DUELS, SCORES, duels, family_columns, scored
from llava.errors import InputError
from tests.eval.report.page.made import TINY, latency, tiny

COLUMNS = (
    TableColumn("name", page=(OnPage("method", code=True),)),
    TableColumn("share", form=".1%", page=(OnPage("share, %"),)),
    TableColumn("range", lambda row: f"{row['low']} to {row['high']}", page=tuple(
        OnPage(key, "ends", key, "+.2f", optional=True) for key in ("low", "high"))),
    TableColumn("ms", "ms.median", page=(OnPage(key="ms"),)),
    TableColumn("tokens", page=(OnPage(sorted_by=lambda text: float(text[:3])),)),
    TableColumn("count", page=(OnPage(small=lambda row: f"of {row['all']}"),)),
    TableColumn("file", page=(OnPage(verdict="found", wide=True, code=lambda text: text.endswith(".json")),)),
    TableColumn("not there"),
)  # fmt: skip
ROW = {
    "name": "a",
    "share": 0.125,
    "low": -0.004,
    "high": None,
    "ms": {"median": 2.25, "min": 1, "max": 3},
    "tokens": "640 > 320",
    "count": 7,
    "all": 9,
    "file": "a.json",
    "found": "reproduced",
}


def test_the_form_tells_digits_sign_and_percent() -> None:
    sheet = sheet_of("s", "t", COLUMNS, [ROW])
    assert [(column.title, column.group) for column in sheet.columns] == [
        ("method", ""), ("share, %", ""), ("low", "ends"), ("high", "ends"), ("ms", ""), ("tokens", ""), ("count", ""),
        ("file", ""),
    ]  # fmt: skip
    assert sheet.rows[0] == [
        Cell("a", code=True),
        Cell("12.5", 12.5),
        Cell("+0.00", -0.004),
        Cell(ABSENT),
        Cell("2.2", 2.25, small="1.0 to 3.0"),
        Cell("640 > 320", 640.0),
        Cell("7", 7.0, small="of 9"),
        Cell("a.json", verdict="reproduced", code=True),
    ]
    assert [column.wide for column in sheet.columns] == [False] * 7 + [True]
    assert not sheet_of("s", "t", COLUMNS, [{**ROW, "file": "worked out here"}]).rows[0][-1].code


@pytest.mark.parametrize("key", ["name", "share", "ms", "tokens", "count"])
def test_a_row_without_what_it_must_have_is_refused(key: str) -> None:
    with pytest.raises(InputError, match=r"a row has no .*: measure it again"):
        sheet_of("s", "t", COLUMNS, [{**ROW, key: None}])


def test_page_and_files_show_the_same_scores() -> None:
    result = tiny(TINY)
    rows = scored(result, TINY, 1.25)
    _, lines = listed(SCORES, rows)
    for line, cells in zip(lines, sheet_of("s", "t", SCORES, rows).rows, strict=True):
        name, score, full, low, high = (cells[place] for place in (0, 1, 2, 4, 5))
        assert line[:3] == [name.text, f"{score.text} {score.small}", f"{full.text}%"]
        assert line[3] == f"{cells[3].text} [{low.text}, {high.text}]"
        assert line[4:7] == [cells[6].text, f"{cells[7].text} ({cells[7].small})", cells[8].text]
        assert line[7].startswith(f"{cells[9].text} (")
    families = family_columns(rows)
    assert listed(families, rows)[1] == [[cell.text for cell in row] for row in sheet_of("s", "t", families, rows).rows]
    [pair], [cells] = listed(DUELS, duels(result))[1], sheet_of("s", "t", DUELS, duels(result)).rows
    assert pair == [cells[0].text, f"{cells[1].text} [{cells[2].text}, {cells[3].text}]", cells[4].text]


def test_no_table_of_the_page_has_two_columns_of_one_name() -> None:
    for columns in (TOKENS, FORMULA, METHODS, OUTER, STAGE_TIMES, SCORES, DUELS):
        heads = [(part.group, part.heading or column.heading) for column in columns for part in column.page]
        assert len(set(heads)) == len(heads) > 2
    assert len(sheet_of("s", "t", STAGE_TIMES, latency()["result"]["rows"]).rows) == 3
