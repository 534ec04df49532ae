"""Grids of runs: none loses a point, and no two names stand for one."""

from pathlib import Path

import pytest

from eval.paper.grids import load_grid, point_name
from llava.errors import InputError

GRID = "title: t\ntable: ablation\ntasks: [synthvid]\npoints:\n"
FILE = "configs/tiny/holitom_r25.yaml"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            f"{GRID} - {{config: {FILE}, grid: {{outer.retain_ratio: [0.2], outer.retain_ratio: [0.3]}}}}",
            "stands twice",
        ),
        (f"{GRID} - {FILE} outer.retain_ratio=0.2\n - {FILE} outer.retain_ratio=0.20", "stands twice"),
        (f"{GRID} - {FILE} outer.retain_ratio=0.2\n - {FILE} compressor.outer.retain_ratio=2e-1", "stands twice"),
        (f"{GRID} - {FILE} outer.retain_ratio=1\n - {FILE} outer.retain_ratio=1.0", "stands twice"),
        (f"{GRID} - {FILE} outer.retain_ratio=0.2 outer.retain_ratio=0.3", "a key twice"),
        (f"{GRID} - {{config: {FILE}, grid: {{outer.retain_ratio: [2024-01-02]}}}}", "wrong type"),
        (f"1: a\n{GRID} - {FILE}", "no text"),
        (f"{GRID} - ''", "no point"),
        (f"{GRID} - {{config: 3, grid: {{a: [1]}}}}", "name of a file"),
        (f"{GRID} - {{config: {FILE}, grid: {{3: [1]}}}}", "no text"),
        (f"{GRID} - {{config: {FILE}, grid: {{a: [{'1,' * 99}], b: [{'1,' * 99}]}}}}", "more than 1000 points"),
        (f"title: t\ntable: [main]\ntasks: [a]\npoints: [{FILE}]", "table is"),
        (f"title: t\ntable: main\ntasks: [3]\npoints: [{FILE}]", "task 0 is 3"),
        (f"title: t\ntable: main\ntasks: {{a: b}}\npoints: [{FILE}]", "tasks is"),
    ],
)
def test_grids_that_lose_or_hide_a_point(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "grid.yaml").write_text(text)
    with pytest.raises(InputError, match=words) as error:
        load_grid(tmp_path / "grid.yaml")
    assert "\n" not in str(error.value)


def test_a_point_has_one_name_in_any_notation() -> None:
    names = {point_name("m/a.yaml", [f"outer.retain_ratio={text}"]) for text in ("0.2", "0.20", "2e-1", " 0.2 ")}
    assert names == {"m/a,outer.retain_ratio=0.2"}
    assert point_name("m/a.yaml", ["outer.static_rule=attention"]) == point_name(
        "m/a.yaml", ['outer.static_rule="attention"']
    )
