"""MLVU and LVBench: answers read and scored as lmms-eval does, compared in pairs, in a column of their own."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from eval.benchmarks.lmms.scoring import judge
from eval.benchmarks.loading import load_runs
from eval.benchmarks.runs import difference
from eval.paper.benchmarks import BY_TASK, MLVU_TASKS
from eval.paper.grids import paper_grids
from eval.report.tables.__main__ import build
from tests.eval.benchmarks.made_results import share, write_run

MODEL = "llava_onevision_7b"
utils = pytest.importorskip("lmms_eval.tasks.mlvu.utils", reason="lmms-eval is not installed")


def kind_of(number: int) -> str:
    """Kinds of very different size: half of the questions are of the first one."""
    return MLVU_TASKS[0] if number % 2 else MLVU_TASKS[number // 2 % 7]


def with_kinds(samples: list[dict[str, Any]]) -> None:
    for sample in samples:
        if sample["task"] == "mlvu_dev":
            sample["fields"] = {"task_type": kind_of(sample["doc_id"])}


def runs_of(root: Path, **right: tuple[list[bool], list[bool]]) -> list[Any]:
    for place, name in enumerate(("vanilla", "holitom_r15")):
        write_run(root / name, f"{MODEL}/{name}", {task: marks[place] for task, marks in right.items()},
                  samples=with_kinds)  # fmt: skip
    return sorted(load_runs(root), key=lambda run: run.method != "vanilla")


def by_kind(marks: list[bool]) -> float:
    """The aggregation that lmms-eval ships."""
    rows = [
        {"task_type": kind_of(number), "pred_answer": "A" if right else "B", "answer": "A"}
        for number, right in enumerate(marks)
    ]
    return float(utils.mlvu_aggregate_results_dev(rows))


def test_mlvu_is_the_mean_of_its_kinds_also_in_pairs(tmp_path: Path) -> None:
    full = [number % 3 > 0 for number in range(84)]
    fewer = [number % 2 > 0 and number % 3 > 0 for number in range(84)]
    vanilla, holitom = runs_of(tmp_path, mlvu_dev=(full, fewer))
    for run, marks in ((vanilla, full), (holitom, fewer)):
        assert run.score("mlvu_dev").value == pytest.approx(by_kind(marks))
    plain = 100 * (sum(fewer) - sum(full)) / 84
    found = difference(holitom, vanilla, "mlvu_dev")
    assert found is not None
    assert found.value == pytest.approx(by_kind(fewer) - by_kind(full))
    assert abs(found.value - plain) > 5  # the kinds matter here
    assert found.low < found.value < found.high < 0
    assert found.p < 0.05


def test_a_column_more_and_no_number_of_the_others_changes(tmp_path: Path) -> None:
    videomme = (share(60, 40), share(60, 30))
    tables = []
    for name, more in (("one", {}), ("two", {"lvbench": videomme, "mlvu_dev": videomme})):
        built, _ = build(runs_of(tmp_path / name, videomme=videomme, **more), paper_grids())
        tables.append({table.slug: table for table in built})
    before, after = (table["main"] if "main" in table else next(iter(table.values())) for table in tables)
    assert set(after.header) - set(before.header) == {"MLVU dev", "LVBench"}
    places = [after.header.index(column) for column in before.header]
    shown = [[str(row[place]) for place in places[:-1]] for row in after.rows]
    assert shown == [[str(found) for found in row[:-1]] for row in before.rows]
    for task in ("mlvu_dev", "lvbench"):
        assert after.header.index(BY_TASK[task].title) > after.header.index("VideoMME")


def lvbench_task() -> Any:
    from lmms_eval.tasks.lvbench.utils import lvbench_process_results  # noqa: PLC0415

    return SimpleNamespace(process_results=lvbench_process_results)


@pytest.mark.parametrize(("answer", "parsed"), [("B", "B"), ("(C) because", "C"), ("no idea at all", None)])
def test_answers_are_read_as_the_tasks_read_them(answer: str, parsed: str | None) -> None:
    mlvu = SimpleNamespace(process_results=utils.mlvu_process_results)
    for task in (mlvu, lvbench_task()):
        doc = {"question": "Which?\n(A) a\n(B) b", "answer": "B", "task_type": "ego"}
        found = judge(task, doc, answer, task.process_results(doc, [answer]), "B")
        assert (found.target, found.parsed, found.parsed_ok) == ("B", parsed, parsed is not None)
        assert found.correct is (parsed == "B")
