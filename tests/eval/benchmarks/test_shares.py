"""Shares started apart on one folder: killed, started twice, and the result of one process."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from eval.benchmarks.lmms.claims import WorkClaim
from eval.benchmarks.run import make_job, parser
from eval.benchmarks.shares import share_of, shared_job
from llava.errors import InputError
from tests.eval.benchmarks.lmms_runs import HOLITOM, THREE, command, run_here, same_but_times, write_config

TASKS = f"mvbench_action_antonym,{THREE}"  # 3 + 2 + 4 + 6 questions
PATIENCE = 600.0  # seconds, on a machine that does other things


def start(arguments: list[str], share: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "eval.benchmarks.run", *arguments, "--share", f"{share}/3"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def wait_for(folder: Path, pattern: str, process: subprocess.Popen[str]) -> Path:
    end = time.monotonic() + PATIENCE
    while not (found := [path for path in folder.glob(pattern) if path.stat().st_size]):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)
    return found[0]


def test_three_shares_one_killed_one_started_twice(
    tiny: Path, benchmarks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, output = write_config(tmp_path / "config.yaml", HOLITOM), tmp_path / "shared"
    arguments = command(config, tiny, benchmarks, TASKS, output)
    victim = start(arguments, 1)
    log = wait_for(output / "answers", "rank-*-1.0.jsonl", victim)
    victim.send_signal(signal.SIGSTOP)  # alive and silent: the same share is refused
    twice = start(arguments, 1)
    _, err = twice.communicate(timeout=PATIENCE)
    assert twice.returncode == 2
    assert f"error: share-1 is being done by process {victim.pid}" in err
    victim.kill()
    victim.communicate()
    before = [line for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]

    processes = [start(arguments, share) for share in (0, 1, 2)]
    ends = [process.communicate(timeout=PATIENCE) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], ends
    assert sum('"scored": true' in out for out, _ in ends) == 1
    logged = [json.loads(line) for path in (output / "answers").glob("rank-*.jsonl") for line in path.open()]
    keys = [(entry["task"], entry["doc_id"]) for entry in logged]
    assert len(keys) == len(set(keys)) == 15  # exactly once, the killed share's finished answers included
    assert len(before) >= 1
    assert log.read_text().startswith("".join(before))

    run_here(monkeypatch, command(config, tiny, benchmarks, TASKS, tmp_path / "plain"))
    same_but_times(output, tmp_path / "plain")


@pytest.fixture
def held(tmp_path: Path) -> Iterator[WorkClaim]:
    with WorkClaim(tmp_path, "work") as claim:
        yield claim


def test_a_living_holder_is_not_replaced(held: WorkClaim) -> None:
    with pytest.raises(InputError, match="is being done by process"):
        WorkClaim(held.folder, "work")


def test_a_holder_elsewhere_is_watched(held: WorkClaim) -> None:
    """One that beats is left alone; a silent one is replaced, and told so when it wakes."""
    held._stop.set()
    held._beats.join()
    held._path(0, "claim").write_text(json.dumps({"place": "elsewhere", "pid": 1}))
    with WorkClaim(held.folder, "work", patience=0.05) as second:
        assert second.turn == 1
        with pytest.raises(InputError, match="took over"):
            held.check()
        second.check()


def test_only_one_takes_over(held: WorkClaim, monkeypatch: pytest.MonkeyPatch) -> None:
    """A contender that saw the old holder dead meets the claim of a faster one and does not replace it."""
    held.release()
    held._path(0, "done").unlink()
    held._path(0, "claim").write_text(json.dumps({"place": "elsewhere", "pid": 1}))
    seen = WorkClaim._see_dead

    def slow(self: WorkClaim, turn: int, patience: float) -> None:
        seen(self, turn, patience)
        if turn == 0 and not held._path(1, "claim").exists():
            monkeypatch.setattr(WorkClaim, "_see_dead", seen)
            WorkClaim(held.folder, "work", patience)

    monkeypatch.setattr(WorkClaim, "_see_dead", slow)
    with pytest.raises(InputError, match="is being done by process"):
        WorkClaim(held.folder, "work", patience=0.05)


def test_released_work_can_be_claimed_again(tmp_path: Path) -> None:
    assert [WorkClaim(tmp_path, "work").release() for _ in range(3)] == [None] * 3
    assert WorkClaim(tmp_path, "work").turn == 3


@pytest.mark.parametrize("text", ["3/3", "-1/3", "1", "a/b", "0/0", "1/3/4"])
def test_no_share(text: str) -> None:
    with pytest.raises(InputError, match="I/N with I from 0"):
        share_of(text)


def test_shares_of_other_questions_have_another_folder(tiny: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "config.yaml", HOLITOM)
    plain = command(config, tiny, None, TASKS, tmp_path / "out")
    ways = [plain, [*plain, "--prefetch", "3"], [*plain, "--limit", "1"], [*plain, "--set", "outer.retain_ratio=0.3"]]
    same, prefetch, limit, ratio = [shared_job(make_job(parser().parse_args(words)), 3).array for words in ways]
    assert same == prefetch
    assert len({same, limit, ratio}) == 3
