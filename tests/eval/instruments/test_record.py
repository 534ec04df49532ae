"""Results with provenance, and the README's measured section made from them."""

import contextlib
import io
import json
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
    (folder / "parity.json").write_text('{"result": {}}')
    with pytest.raises(InputError, match=r"parity\.json"):
        measured(tmp_path)


def test_the_readme_says_what_the_results_say() -> None:
    assert written(Path("results")) == Path("results/README.md").read_text(encoding="utf-8")
