"""Runs as users start them: killed and started again, in two processes, and the stock model by its own command line."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import psutil
import pytest

from eval.benchmarks import run
from eval.benchmarks.lmms import worker
from eval.benchmarks.lmms.results import load_result
from tests.eval.benchmarks.lmms_runs import (
    FRAMES,
    HOLITOM,
    THREE,
    VANILLA,
    command,
    enter,
    run_here,
    same_but_times,
    write_config,
)

TASKS = f"mvbench_action_antonym,{THREE}"  # 3 + 2 + 4 + 6 questions
PATIENCE = 600.0  # seconds, on a machine that does other things
Call = Callable[..., tuple[int, str, str]]


def start(arguments: list[str], **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "eval.benchmarks.run", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, **more,
    )  # fmt: skip


@pytest.fixture
def call(benchmarks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """The command in this process, in the place of the first of its processes: exit status, output and errors.

    Those that answer with ``--num-processes`` are processes of their own; with ``started`` so is what it becomes.
    """

    def become(program: str, words: list[str], env: dict[str, str]) -> NoReturn:
        assert words[1:3] == ["-m", "eval.benchmarks.lmms.worker"]
        worker.main(words[3:])
        sys.exit(0)

    def start_instead(program: str, words: list[str], env: dict[str, str]) -> NoReturn:
        done = subprocess.run(words, executable=program, env=env, capture_output=True, text=True, timeout=PATIENCE)
        sys.stdout.write(done.stdout)
        sys.stderr.write(done.stderr)
        sys.exit(done.returncode)

    def called(words: list[str], started: bool = False) -> tuple[int, str, str]:
        with monkeypatch.context() as patch:
            enter(None, tmp_path / "cache", patch)
            patch.setenv("HF_HOME", str(benchmarks / "hf"))
            patch.chdir(tmp_path)
            patch.setenv("OMP_NUM_THREADS", "1")
            patch.setattr(os, "execve", start_instead if started else become)
            patch.setattr(sys, "argv", ["run", *words])
            capsys.readouterr()
            with pytest.raises(SystemExit) as end:
                run.main()
            return int(end.value.code or 0), *capsys.readouterr()

    return called


def last_line(ended: tuple[int, str, str]) -> dict[str, Any]:
    """The line of JSON that a run which succeeded ends in."""
    status, out, err = ended
    assert status == 0, err[-3000:]
    return json.loads(out.splitlines()[-1])


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines(keepends=True) if path.exists() else []


@contextmanager
def killing_the_second(folder: Path) -> Iterator[None]:
    """SIGKILL for the second of the processes that this one starts meanwhile, once each has answered two questions."""
    over = threading.Event()

    def kill() -> None:
        while min(len(lines(folder / f"answers/rank-{rank}.jsonl")) for rank in (0, 1)) < 2:
            assert not over.wait(0.01), "nobody was killed"
        ranks = {one.environ().get("RANK"): one for one in psutil.Process().children(recursive=True)}
        os.kill(ranks["1"].pid, signal.SIGKILL)

    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(kill)
        try:
            yield
        finally:
            over.set()
        killing.result()


@pytest.fixture
def arguments(tiny: Path, benchmarks: Path, tmp_path: Path) -> Callable[..., list[str]]:
    def made(config: dict[str, Any], name: str, *more: str) -> list[str]:
        path = write_config(tmp_path / "config.yaml", config)
        return command(path, tiny, benchmarks, TASKS, tmp_path / name, *more)

    return made


def test_killed_and_started_again(
    arguments: Callable[..., list[str]], call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one process and in two: no finished answer is lost or computed twice, and the results are the plain ones."""
    killed, shared = tmp_path / "killed", tmp_path / "shared"
    log = killed / "answers" / "rank-0.jsonl"
    process = start(arguments(HOLITOM, "killed"))
    wait_for(lambda: len(lines(log)) >= 5, process)
    process.kill()  # SIGKILL; there is one process, so nothing goes on behind it
    process.communicate()
    before = [line for line in lines(log) if line.endswith("\n")]
    assert 5 <= len(before) < 15
    assert not (killed / "result.json").exists()

    with killing_the_second(shared):
        status, _, err = call(arguments(HOLITOM, "shared", "--num-processes", "2"))
    assert status == 2
    assert "error: a process was killed" in err
    assert "the same command continues" in err
    assert not (shared / "result.json").exists()
    done = sum(len(lines(shared / f"answers/rank-{rank}.jsonl")) for rank in (0, 1))
    assert done < 15

    last = last_line(call(arguments(HOLITOM, "killed")))
    assert lines(log)[: len(before)] == before
    one, samples = load_result(killed)
    assert (one["times"]["questions_resumed"], one["times"]["questions_computed"]) == (len(before), 15 - len(before))
    assert last["scores"]["videomme"] == one["tasks"]["videomme"]["score"]
    assert len(samples) == 15

    last_line(call(arguments(HOLITOM, "shared", "--num-processes", "2"), started=True))
    two, _ = load_result(shared)
    assert two["times"]["questions_resumed"] == done
    assert two["times"]["questions_computed"] == 15 - done
    same_but_times(killed, shared)
    plain, _ = run_here(monkeypatch, arguments(HOLITOM, "undisturbed", "--no-reuse", "--prefetch", "0"))
    assert (plain["times"]["questions_computed"], plain["times"]["videos_encoded"]) == (15, 15)
    same_but_times(killed, tmp_path / "undisturbed")


def test_two_processes_share_the_questions_of_vanilla_and_of_the_stock_model(
    arguments: Callable[..., list[str]], call: Call, benchmarks: Path, tiny: Path, tmp_path: Path
) -> None:
    """Each question once, by either process; the answers are those of lmms-eval's own command with its own model."""
    last_line(call(arguments(VANILLA, "shared", "--num-processes", "2")))
    result, samples = load_result(tmp_path / "shared")
    shares = [json.loads((tmp_path / f"shared/answers/share-{rank}.json").read_text()) for rank in (0, 1)]
    served = [{(entry["task"], entry["doc_id"]) for entry in share["entries"]} for share in shares]
    assert not served[0] & served[1]
    assert min(map(len, served)) >= 6
    assert served[0] | served[1] == {(sample["subtask"], sample["doc_id"]) for sample in samples}
    assert result["times"]["processes"] == 2
    assert all((tmp_path / f"shared/logs/rank-{rank}.log").exists() for rank in (0, 1))

    offline = {name: "1" for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")}
    caches = {"HF_HOME": str(benchmarks / "hf"), "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    model_args = f"pretrained={tiny},device_map=auto,max_frames_num={FRAMES}"
    subprocess.run(
        [sys.executable, "-m", "lmms_eval", "--model", "llava_onevision", "--model_args", model_args, "--device", "cpu",
         "--tasks", TASKS, "--batch_size", "1", "--log_samples", "--output_path", str(tmp_path / "stock"),
         "--process_docs_parallel", "1", "--verbosity", "DEBUG"],
        cwd=benchmarks / "data", env={**os.environ, **offline, **caches}, check=True, capture_output=True,
    )  # fmt: skip
    stock = {}
    for task in TASKS.split(","):
        [file] = (tmp_path / "stock").rglob(f"*_samples_{task}.jsonl")
        for raw in map(json.loads, file.read_text().splitlines()):
            stock[task, raw["doc_id"]] = raw["filtered_resps"]
    answers = {(sample["subtask"], sample["doc_id"]): sample["answer"] for sample in samples}
    assert {key: text if isinstance(text, str) else text[0] for key, text in stock.items()} == answers
    assert len(set(answers.values())) > 5


def test_an_error_of_a_process_is_one_line(arguments: Callable[..., list[str]], call: Call, tmp_path: Path) -> None:
    status, _, err = call([*arguments(VANILLA, "out"), "--tasks", "videomm", "--num-processes", "2"])
    assert status == 2
    [line] = [line for line in err.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: task 'videomm' is unknown to lmms-eval: did you mean videomme")
    assert "Traceback" not in err
    assert not (tmp_path / "out" / "result.json").exists()
