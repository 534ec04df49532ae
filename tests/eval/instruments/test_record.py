"""Results with provenance, and the README's measured section made from them."""

import contextlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from eval.instruments.kinds import stamped
from eval.instruments.record import main
from eval.report.readme.__main__ import written
from eval.report.readme.measured import measured
from llava.errors import InputError

TIMES = {"cpu_ms": {"median": 80.0, "min": 70.0, "max": 90.0}, "wall_ms": {"median": 81.0, "min": 71.0, "max": 91.0}}
SETTINGS = {"frames": 32, "tokens": 196, "dim": 3584, "dtype": "float32", "repetitions": 10, "threads": 1}
FACTS = {
    "command": "python -m x", "commit": "abc", "device": "cpu", "threads": 2, "torch": "2.13", "transformers": "5.23",
}  # fmt: skip


def record(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in this process, which has loaded what it needs; the measurement runs in one of its own."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    words = mock.patch.object(sys, "argv", ["record", *arguments])
    with words, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return subprocess.CompletedProcess(list(arguments), code, out.getvalue(), err.getvalue())


def test_a_result_is_written_with_its_command_and_commit(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.json"
    code = "print('table'); print('{\"a\": 1}')"
    done = record(str(path), "--allow-dirty", "--", "python", "-c", code)
    assert done.returncode == 0, done.stderr
    written = json.loads(path.read_text())
    assert written["result"] == {"a": 1}
    assert written["command"].startswith("python -c")
    assert {"commit", "device", "torch", "date"} <= set(written)
    assert "table" in done.stdout


def test_a_tree_that_changed_meanwhile_is_told(tmp_path: Path) -> None:
    """A clean commit must not stand over what was measured with other files."""
    path = tmp_path / "x.json"
    done = record(str(path), "--allow-dirty", "--", "python", "-c", 'print(\'{"commit": "0ab-dirty"}\')')
    assert done.returncode == 0, done.stderr
    assert json.loads(path.read_text())["commit"] == "0ab-dirty"
    assert "recorded as commit 0ab-dirty" in done.stderr


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["python", "-c", "print('no json')"], "not JSON"),
        (["python", "-c", ""], "not JSON"),
        (["python", "-c", "print(1); raise SystemExit(3)"], "status 3"),
        (["no-such-program"], "cannot be run"),
        ([], "no command"),
    ],
)
def test_a_failed_measurement_writes_nothing(tmp_path: Path, command: list[str], message: str) -> None:
    path = tmp_path / "x.json"
    path.write_text("old")
    done = record(str(path), "--allow-dirty", "--", *command)
    assert done.returncode == 2
    assert message in done.stderr
    assert path.read_text() == "old"


def test_the_section_holds_the_numbers_of_the_results(tmp_path: Path) -> None:
    folder = tmp_path / "cpu"
    folder.mkdir()
    errors = {"outer": 2e-6, "inner": 1e-6, "dpc": 3e-7, "e2e": 1.2e-5}
    parity = {"cases": 50, "failed": [], "max_abs_error": errors}
    (folder / "parity.json").write_text(json.dumps(stamped("parity", {**FACTS, "result": parity})))
    outer = {"settings": SETTINGS, "times": {"holitom": TIMES}, "cpu_speedup": 2.5, "peak_above_input_mb": 33.3}
    (folder / "bench_outer.json").write_text(json.dumps(stamped("outer", {**FACTS, "result": outer})))
    text = measured(tmp_path)
    for part in (
        "50 cases",
        "2.0e-06",
        "80 (70 to 90)",
        "2.5",
        "33 MB",
        "commit abc",
        "`bench_outer_long.json`: not measured",
    ):
        assert part in text
    growth = {"frames": [32, 1024], "kind": "cpu_ms", "over_linear": 1.07}
    times = {"holitom": TIMES, "longer": TIMES}
    (folder / "bench_outer_long.json").write_text(
        json.dumps(
            stamped("outer", {**FACTS, "result": {**outer, "times": times, "cpu_speedup": None, "growth": growth}})
        )
    )
    text = measured(tmp_path)
    assert "| this project, 1024 frames | 80 (70 to 90) | 81 |" in text
    assert "from 32 to 1024 frames 1.07 times linear" in text
    ways = {
        "plain": {"seconds": [52.0, 50.0], "median": 51.0, "tower_passes": 6, "times_faster": 1.0},
        "reuse": {"seconds": [20.0, 20.8], "median": 20.4, "tower_passes": 2, "times_faster": 2.5},
    }
    sizes = {"questions": 6, "videos": 2, "frames": 8, "tower_layers": 2, "layers": 3, "width": 1280}
    reuse = {**sizes, "equal": "4 runs, byte for byte", "ways": ways}
    (folder / "reuse.json").write_text(json.dumps(stamped("reuse", {**FACTS, "result": reuse})))
    text = measured(tmp_path)
    assert "**6 questions on 2 videos** of 1280 pixels' width, 8 frames, random weights, 2 layers of the tower" in text
    assert "| reuse | 20.4 (20.0 to 20.8) | 2 | 2.50x |" in text
    (folder / "parity.json").write_text('{"result": {}}')
    with pytest.raises(InputError, match=r"parity\.json"):
        measured(tmp_path)


def test_both_stages_beside_the_release(tmp_path: Path) -> None:
    def cell(stage: str, ratio: float, kept: float, **facts: object) -> dict[str, object]:
        times = {"cpu_ms": {"median": 2.04, "min": 1, "max": 3}, "page_faults": {"median": 7.0, "min": 0, "max": 9}}
        row = {"stage": stage, "cell": "some", "dtype": "bfloat16", "cpu_ratio": ratio, "kept": {"cpu_ratio": kept}}
        return {**row, "times": {"ours": times, "plain": times}, **facts}

    both = {"other_choices": {"ours": 0, "plain": 3}, "largest_error": {"ours": 0.001, "plain": 2.5}}
    clip = {"static_tokens": 5, "frames": 32, "real": True}
    cells = [
        cell("inner", 1.25, 1.31, **both),
        cell("inner", 9.0, 9.0, **both, **{"dtype": "float32"}),
        cell("outer", 4.04, 2.0, **clip),
        cell("outer", 5.0, 1.5, **clip),
        cell("outer", 1.5, 1.4, **{**clip, "frames": 8}),
        cell("outer", 8.0, 8.0, **{**clip, "real": False}),
        cell("outer", 9.0, 9.0, **clip, **{"dtype": "float16"}),
    ]
    (tmp_path / "cpu").mkdir()
    path = tmp_path / "cpu" / "stages.json"

    def text(cells: list[dict[str, object]]) -> str:
        path.write_text(json.dumps(stamped("stages", {**FACTS, "result": {"cells": cells}})))
        return measured(tmp_path)

    assert (
        "inner stage: 1.2 to 1.2 (1.3 to 1.3); outer stage, 32 frames of real clips: 4.0 to 5.0 (1.5 to 2.0); "
        "outer stage, 8 frames of real clips: 1.5 to 1.5 (1.4 to 1.4)."
    ) in text(cells)
    assert "| some | bfloat16 | 2.0 (1.0 to 3.0) | 2.0 (1.0 to 3.0) | 4.04 | 7 | 2.00 | 5 |" in text(cells)
    assert "| 1.25 | 7 | 1.31 | 0 | 3 | 1.0e-03 | 2.5e+00 |" in text(cells)
    assert "inner stage: 1.2 to 1.2." in text([{**cells[0], "kept": None}])
    assert "times as long" not in text(cells[1:2])


def test_no_result_names_a_folder_of_a_machine() -> None:
    """Nor a tree that was not committed."""
    paths = [path for path in Path("results").rglob("*") if path.suffix in (".json", ".md")]
    assert len(paths) > 30
    private = re.compile(
        r"""(?:^|[\s"'=:(`])/(?:tmp|home|root|work|usr|opt|mnt|var)/|file://|[0-9a-f]-dirty""", re.MULTILINE
    )
    assert not [path for path in paths if private.search(path.read_text(encoding="utf-8"))]
    for folder in ("tmp", "root", "home"):
        assert all(private.search(text) for text in (f'"/{folder}/a"', f"--data /{folder}/b", f"`/{folder}/c`"))
    assert private.search('"file:///d"')
    assert private.search("0ab-dirty")


def test_the_readme_says_what_the_results_say() -> None:
    assert written(Path("results")) == Path("results/README.md").read_text(encoding="utf-8")
