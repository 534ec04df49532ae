"""One description of a table, two renderers: the same text in both, dashes for what is absent, details on one alone."""

from eval.instruments.sheets import TableColumn, factor, markdown, milliseconds, per, terminal

COLUMNS = (
    TableColumn("", "name"),
    TableColumn("tera", "flops.total", per(1e12, ".2f")),
    TableColumn("kept", form=".1%", detail=True),
    TableColumn(
        "how much faster than vanilla", lambda row: row["times"] and row["times"]["ratio"], factor, short="faster"
    ),
)
ROWS = [
    {"name": "one", "flops": {"total": 1.5e12}, "kept": 0.25, "times": {"ratio": 2}},
    {"name": "another", "flops": None, "kept": None, "times": None},
]


def test_markdown_leaves_details_out() -> None:
    assert markdown(COLUMNS, ROWS) == [
        "| | tera | how much faster than vanilla |",
        "|---|---|---|",
        "| one | 1.50 | 2.00x |",
        "| another | - | - |",
    ]


def test_a_terminal_has_every_column_aligned() -> None:
    assert terminal(COLUMNS, ROWS).splitlines() == [
        "         tera   kept  faster",
        "one      1.50  25.0%   2.00x",
        "another     -      -       -",
    ]


def test_no_rows_give_the_headings() -> None:
    assert len(markdown(COLUMNS, [])) == 2
    assert terminal(COLUMNS, []).strip().startswith("tera")


def test_digits_follow_the_size_of_a_median() -> None:
    assert [milliseconds({"median": value}) for value in (9.994, 10.04, 999.94, 1000.4)] == [
        "9.99",
        "10.0",
        "999.9",
        "1000",
    ]
