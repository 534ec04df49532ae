"""Shares started apart on one folder: killed, started twice, and the result of one process."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from eval.benchmarks import run, shares
from eval.benchmarks.lmms import claims
from eval.benchmarks.lmms.claims import WorkClaim
from eval.benchmarks.lmms.worker import ANSWERS
from eval.benchmarks.run import make_job, parser
from eval.benchmarks.shares import SCORED, score_once, share_of, shared_job
from llava.errors import InputError
from tests.eval.benchmarks.lmms_runs import HOLITOM, command, enter, run_here, same_but_times, write_config

TASKS = "egoschema_subset,videomme"  # 2 + 6 questions about 4 videos
QUESTIONS = 8
VICTIM = 0  # one of the shares with most questions
PATIENCE = 600.0  # seconds, on a machine that does other things


def wait_for(folder: Path, pattern: str, process: subprocess.Popen[str]) -> Path:
    end = time.monotonic() + PATIENCE
    while not (found := [path for path in folder.glob(pattern) if path.stat().st_size]):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)
    return found[0]


@pytest.fixture
def arguments(tiny: Path, benchmarks: Path, tmp_path: Path) -> list[str]:
    """A command whose folder is ``tmp_path / "shared"``."""
    config = write_config(tmp_path / "config.yaml", HOLITOM)
    return command(config, tiny, benchmarks, TASKS, tmp_path / "shared")


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(
    arguments: list[str],
    benchmarks: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Call:
    """The command with more words, in this process: exit status, output and errors.

    Where it is given a list, what it becomes is started, and the process appended to it.
    """

    def called(*more: str, started: list[subprocess.Popen[str]] | None = None) -> tuple[int, str, str]:
        def become(program: str, words: list[str], env: dict[str, str]) -> NoReturn:
            if started is None:
                shares.main(words[3:])
            else:
                env = {**env, "OMP_NUM_THREADS": "1"}
                pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
                started.append(subprocess.Popen(words, executable=program, env=env, text=True, **pipes))
            sys.exit(0)

        with monkeypatch.context() as patch:
            enter(benchmarks, tmp_path / "cache", patch)
            for name, value in (("RANK", "0"), ("WORLD_SIZE", "1")):  # a share sets them
                patch.setenv(name, value)
            patch.setattr(os, "execve", become)
            patch.setattr(sys, "argv", ["run", *arguments, *more])
            capsys.readouterr()
            status = 0
            try:
                run.main()
            except SystemExit as end:
                status = int(end.code or 0)
            return status, *capsys.readouterr()

    return called


def test_three_shares_one_killed_one_started_twice(
    arguments: list[str], call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, started = tmp_path / "shared", []
    call("--share", f"{VICTIM}/3", started=started)
    [victim] = started
    log = wait_for(output / "answers", f"rank-*-{VICTIM}.0.jsonl", victim)
    victim.send_signal(signal.SIGSTOP)  # alive and silent: the same share is refused
    status, _, err = call("--share", f"{VICTIM}/3")
    assert status == 2
    assert f"error: share-{VICTIM} is being done by process {victim.pid}" in err
    victim.kill()
    victim.communicate()
    before = [line for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
    assert len(before) >= 1
    assert not list(output.glob("answers/*/share-*.json"))  # killed before it was done

    ends = [call("--share", f"{share}/3") for share in range(3)]
    assert [status for status, _, _ in ends] == [0, 0, 0], ends
    assert ['"scored": true' in out for _, out, _ in ends] == [False, False, True]
    logged = [json.loads(line) for path in (output / "answers").glob("rank-*.jsonl") for line in path.open()]
    keys = [(entry["task"], entry["doc_id"]) for entry in logged]
    assert len(keys) == len(set(keys)) == QUESTIONS  # exactly once, the killed share's finished answers included
    assert log.read_text().startswith("".join(before))

    run_here(monkeypatch, [*arguments, "-o", str(tmp_path / "plain")])
    same_but_times(output, tmp_path / "plain")
    for name in ("result.json", "samples.jsonl"):
        (output / name).unlink()
    assert call("--merge", "3")[0] == 0
    same_but_times(output, tmp_path / "plain")


def test_merging_names_the_share_that_is_missing(call: Call, tmp_path: Path) -> None:
    status, out, err = call("--merge", "3")
    assert (status, out) == (2, "")
    assert err == "error: process 0 left no answers: run the same command again\n"
    assert not list(tmp_path.glob("shared/answers/*/job-*"))
    assert call("--merge", "3")[0] == 2  # the claim of the one that failed is released


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--merge", "0"], "--merge = 0 is out of range"),
        (["--merge", "3", "--share", "0/3"], "give one of them"),
        (["--merge", "3", "--num-processes", "2"], "go without --num-processes"),
        (["--share", "0/3", "--no-resume"], "go without --num-processes and --no-resume"),
    ],
)
def test_options_that_do_not_fit_together(call: Call, words: list[str], why: str) -> None:
    status, _, err = call(*words)
    assert status == 2
    assert why in err


def test_of_two_that_score_one_is_told(call: Call, arguments: list[str]) -> None:
    job = shared_job(make_job(parser().parse_args(arguments)), 3)
    with WorkClaim(job.folder / ANSWERS / str(job.array), "score"):
        status, out, _ = call("--merge", "3")
    assert status == 0
    assert "scored_by_another" in out


def test_a_folder_that_cannot_be_written_is_no_other_scorer(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = shared_job(make_job(parser().parse_args(arguments)), 3)

    def refused(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(claims.os, "open", refused)
    with pytest.raises(InputError, match=r"cannot be written \(Permission denied\)"):
        score_once(job)


def test_a_result_already_scored_is_left_as_it_is(call: Call, arguments: list[str], tmp_path: Path) -> None:
    """No share is read: there are none."""
    job = shared_job(make_job(parser().parse_args(arguments)), 3)
    folder = job.folder / ANSWERS / str(job.array)
    folder.mkdir(parents=True)
    (folder / SCORED).touch()
    (tmp_path / "shared" / "result.json").write_text("scored")
    assert call("--merge", "3")[0] == call("--share", "1/3")[0] == 0
    assert (tmp_path / "shared" / "result.json").read_text() == "scored"


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
