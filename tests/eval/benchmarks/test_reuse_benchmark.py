"""The benchmark of reuse refuses ways that answer otherwise, and numbers that make no model."""

from pathlib import Path

import pytest

from eval.benchmarks.reuse import WAYS, check_equal, read_arguments
from eval.benchmarks.sweep_runs import _left
from llava.errors import InputError


def test_other_answers_are_an_error(tmp_path: Path) -> None:
    for name in WAYS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "samples.jsonl").write_text("{}\n")
    assert check_equal(tmp_path) == "3 runs, byte for byte"
    (tmp_path / "reuse" / "samples.jsonl").write_text("{ }\n")
    with pytest.raises(InputError, match=r"2 different samples.jsonl in 3 runs"):
        check_equal(tmp_path)


@pytest.mark.parametrize("words", [["--videos", "0"], ["--layers", "2"], ["--repetitions", "0"]])
def test_wrong_arguments(words: list[str]) -> None:
    with pytest.raises(InputError, match=f"{words[0]} = {words[1]} is out of range"):
        read_arguments(words)


def test_a_sweep_tells_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 160.0)
    assert _left(100.0, 0, 5) == ""
    assert _left(100.0, 3, 5) == " (about 0:00:40 left)"
