"""How much a newcomer must read: everything of ours that a module leads to, lazy imports and annotations included."""

import pytest

from tests.test_layers import FILES, GRAPH

# module -> most files and lines
BUDGETS = {
    "holitom.methods.holitom.outer": (15, 1595),
    "holitom.methods.holitom.inner_merging": (5, 500),
    "holitom.methods.holitom.inner": (30, 2950),
    "holitom.methods.evs": (25, 2150),
    "holitom.methods.fastv": (37, 3450),
    "holitom.methods": (4, 300),
    "eval.report.tables.scores": (10, 1550),
    "eval.claims.flops_claims": (9, 1100),
    "eval.claims.score_claims": (8, 1000),
    "eval.claims.speed_claims": (7, 700),
}


def reading(module: str, graph: dict[str, set[str]]) -> set[str]:
    """The module and all it leads to."""
    found, todo = set(), [module]
    while todo:
        one = todo.pop()
        if one not in found:
            found.add(one)
            todo += graph[one]
    return found


@pytest.mark.parametrize("module", BUDGETS)
def test_a_newcomer_reads_little(module: str) -> None:
    files = reading(module, GRAPH)
    lines = sum(len(FILES[one].read_text().splitlines()) for one in files)
    most_files, most_lines = BUDGETS[module]
    assert len(files) <= most_files, sorted(files)
    assert lines <= most_lines, f"{module} leads to {lines} lines in {len(files)} files"


def test_reading_follows_what_is_read() -> None:
    graph = {"a": {"b"}, "b": {"c", "a"}, "c": set(), "d": {"a"}}
    assert reading("a", graph) == {"a", "b", "c"}
