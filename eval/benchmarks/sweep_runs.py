"""The points of a sweep, run one after the other, each failure kept apart from the rest."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from eval import HOME, PACKAGE
from eval.benchmarks.lmms.results import RESULT, SAMPLES
from eval.instruments.cli import user_errors
from eval.instruments.fingerprints import checkpoint_identity
from eval.instruments.record import write_whole
from eval.paper.benchmarks import HARNESS
from eval.paper.grids import POINT_FILE
from eval.synthetic.world.dataset import VARIABLE, data_folder
from holitom.settings import load_config
from holitom.shipped import CONFIGS
from llava.errors import InputError

ROOT = CONFIGS.parent


@dataclass(frozen=True)
class Request:
    """One run of ``eval.benchmarks.run``.

    Attributes:
        name: of the point.
        config: the configuration's file.
        overrides: of the point and of the rehearsal.
        output: folder of the result.
        tasks: names for ``--tasks``.
        data: folder of the benchmarks, or None.
        checkpoint: instead of the configuration's, or None.
        limit: questions per task, or None.
        rehearsal: why the result says nothing about the paper, or None.
        include_path: folder with more task definitions, or None.
        on_bad_video: "stop" or "count".
        model_args: of the stock model.
        harness: version of lmms-eval whose definitions ask, read and score.
        harness_folder: where that version is, or None for the default.
    """

    name: str
    config: str
    overrides: Sequence[str]
    output: str
    tasks: Sequence[str]
    data: str | None
    checkpoint: str | None
    limit: int | None
    rehearsal: str | None
    include_path: str | None = None
    on_bad_video: str = "stop"
    model_args: Sequence[str] = ()
    harness: str = HARNESS
    harness_folder: str | None = None

    def shown_config(self) -> str:
        """The configuration's file as results name it: relative to this project where it lies in it."""
        path = Path(self.config).resolve()
        return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)

    def record(self) -> dict[str, Any]:
        """What ``point.json`` says; folders of this machine are left out."""
        return {
            "name": self.name,
            "config": self.shown_config(),
            "overrides": list(self.overrides),
            "tasks": list(self.tasks),
            "limit": self.limit,
            "checkpoint": None if self.checkpoint is None else Path(self.checkpoint).name,
            "on_bad_video": self.on_bad_video,
            "model_args": list(self.model_args),
            "harness": self.harness,
            "rehearsal": self.rehearsal,
        }

    def arguments(self) -> list[str]:
        """The command line of ``eval.benchmarks.run``, with absolute paths."""
        local = Path(self.checkpoint or "")  # a folder here, or a name of the hub
        given = {
            "--tasks": ",".join(self.tasks),
            "-o": _absolute(self.output),
            "--on-bad-video": self.on_bad_video,
            "--harness": self.harness,
            "--data": _absolute(self.data),
            "--include-path": _absolute(self.include_path),
            "--harness-folder": _absolute(self.harness_folder),
            "--checkpoint": _absolute(self.checkpoint) if local.is_dir() else self.checkpoint,
            "--limit": None if self.limit is None else str(self.limit),
        }
        pairs = [(option, value) for option, value in given.items() if value is not None]
        pairs += [("--set", change) for change in self.overrides]
        pairs += [("--model-args", argument) for argument in self.model_args]
        return [str(Path(self.config).resolve()), *(word for pair in pairs for word in pair)]


def _absolute(path: str | None) -> str | None:
    return None if path is None else str(Path(path).resolve())


def finished(request: Request) -> bool:
    """Whether the folder holds the whole result of this very request, with the weights that are in the checkpoint now.

    Raises:
        InputError: it holds the result of another one, or of other weights.
    """
    folder = Path(request.output)
    if not (folder / RESULT).is_file():
        return False
    try:
        known = json.loads((folder / POINT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = None
    if known != request.record():
        asked = request.record()
        differs = [key for key in asked if known is None or known.get(key) != asked[key]]
        raise InputError(
            f"{folder} holds a result of other {', '.join(differs)}: name another folder with -o, or delete it"
        )
    if not (folder / SAMPLES).is_file():
        return False
    try:
        weights = json.loads((folder / RESULT).read_text(encoding="utf-8"))["checkpoint"]["weights_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{folder / RESULT} is damaged: delete the folder, the point is run again") from None
    named = request.checkpoint or load_config(request.config, request.overrides).model.pretrained
    local = Path(named or "").expanduser()  # a name of the hub stands for the same weights on every day
    if named and local.is_dir() and weights != checkpoint_identity(local)["weights_sha256"]:
        raise InputError(
            f"{folder} holds a result of other weights than those in {named}: name another folder with -o, or delete it"
        )
    return True


def run_all(requests: Sequence[Request], processes: int = 1, share: Sequence[str] = ()) -> dict[str, str]:
    """Run every request; returns the reasons of those that failed, by name.

    ``share`` holds the words ``--share I/N`` or ``--merge N`` of :mod:`eval.benchmarks.shares`, if any.
    """
    for request in requests:
        path, text = Path(request.output) / POINT_FILE, json.dumps(request.record(), indent=1) + "\n"
        if not share or not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_whole(path, text)
    more = share or (["--num-processes", str(processes)] if processes > 1 else [])
    if more:
        return {request.name: reason for request in requests if (reason := _run_apart(request, more))}
    failed: dict[str, str] = {}
    left = list(requests)
    while left:
        states = _run_in_one_process(left)
        failed |= {name: reason for name, reason in states.items() if reason}
        # a process that dies (out of memory, a crash of a library) takes one point with it, the next one goes on
        started = len(states) or 1
        if not states:
            failed[left[0].name] = "the process could not start, see above"
        left = left[started:]
    return failed


def _run_apart(request: Request, more: Sequence[str]) -> str:
    words = [*request.arguments(), *more]
    words[0] = request.shown_config()
    command = [sys.executable, "-P", "-m", f"{PACKAGE}.benchmarks.run", *words]
    env = {**os.environ, VARIABLE: str(data_folder().absolute())}  # it counts from the caller's folder
    done = subprocess.run(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True, check=False)
    sys.stderr.write(done.stderr)
    lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
    return "" if done.returncode == 0 else lines[-1].removeprefix("error: ")


def _run_in_one_process(requests: Sequence[Request]) -> dict[str, str]:
    """Start a process that runs them in turn; returns name -> reason ("" when it went well) of those it came to."""
    with tempfile.TemporaryDirectory() as folder:
        work, states = Path(folder) / "requests.json", Path(folder) / "states.jsonl"
        work.write_text(json.dumps([asdict(request) for request in requests]))
        states.touch()
        words = [sys.executable, "-P", "-m", f"{PACKAGE}.benchmarks.sweep_runs", str(work), str(states)]
        search = os.pathsep.join([HOME, *filter(None, [os.environ.get("PYTHONPATH")])])
        quiet = {} if sys.stderr.isatty() else {"TQDM_DISABLE": "1"}
        ended = subprocess.run(words, env={**os.environ, **quiet, "PYTHONPATH": search}, check=False)
        found: dict[str, str] = {}
        for line in states.read_text().splitlines():
            state = json.loads(line)
            found[state["name"]] = state.get("reason", f"the process ended with status {ended.returncode}")
        return found


def _run_one(request: Request, words: Sequence[str], cache: str) -> None:
    """One point in this process; ``words`` have absolute paths.

    The first sets what the harness reads when it is imported, and goes where it finds the questions. One cache serves
    all points: each point's own would vanish under a library that keeps the first it was told.
    """
    from eval.benchmarks.launching import environment, prepare  # noqa: PLC0415
    from eval.benchmarks.lmms import worker  # noqa: PLC0415
    from eval.benchmarks.run import make_job, parser  # noqa: PLC0415

    options = parser().parse_args(words)
    job = make_job(options)
    if os.environ.get("HF_DATASETS_CACHE") != cache:  # the first point
        os.environ.update({**environment(job, options.data), "HF_DATASETS_CACHE": cache})
        if options.data is not None:
            os.chdir(options.data / "data")
    prepare(job, resume=True)
    worker.run(replace(job, config_file=request.shown_config(), checkpoint=request.checkpoint or job.checkpoint))


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """What the process of a sweep runs: REQUESTS.json STATES.jsonl."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("requests", type=Path)
    parser.add_argument("states", type=Path)
    options = parser.parse_args(arguments)
    requests = [Request(**raw) for raw in json.loads(options.requests.read_text())]
    states = options.states.resolve()
    words = [request.arguments() for request in requests]  # before the current folder changes
    begun = time.monotonic()
    for number, request in enumerate(requests):
        _say(states, {"name": request.name})
        print(f"point {number + 1} of {len(requests)}: {request.name}{_left(begun, number, len(requests))}", flush=True)
        reason = ""
        try:
            _run_one(request, words[number], str(states.parent / "questions"))
        except InputError as error:
            reason = str(error)
        except Exception as error:  # whatever it is, the other points are not to blame
            traceback.print_exc()
            reason = f"{type(error).__name__}: {error}"
        _say(states, {"name": request.name, "reason": reason})


def _left(begun: float, done: int, points: int) -> str:
    """About how long the rest takes, once a point is done."""
    if not done:
        return ""
    seconds = (time.monotonic() - begun) / done * (points - done)
    return f" (about {timedelta(seconds=round(seconds))} left)"


def _say(path: Path, state: dict[str, str]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(state) + "\n")


if __name__ == "__main__":
    main()
