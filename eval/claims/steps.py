"""The steps that give evidence: each is run once, kept under a key of all it depends on, and read by many claims.

A step's result lies in ``<output>/evidence/<step>-<key>.json`` and is written at once, so a killed run loses at most
the step it was in; a change of the code, a configuration, the tiny checkpoint or the step's inputs gives another key.
"""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from eval.claims.judging import StepEvidence
from eval.instruments.cli import provenance
from eval.instruments.fingerprints import digest, file_digest
from eval.instruments.kinds import kind_of, read_json
from eval.instruments.record import write_whole
from holitom.shipped import CONFIGS
from llava.errors import InputError

ROOT = CONFIGS.parent
# what shows numbers and makes none
_SHOWN = re.compile(
    r"eval/(claims/(\w+_claims|catalogue|runner|judging|operating_characteristics|__main__)\.py|demo/app\w*\.py|report/)"
)


@dataclass(frozen=True)
class Context:
    """What one run of all steps is given.

    Attributes:
        output: folder of the evidence.
        quick: take the small samples.
        workers: processes for what is answered in several.
        results: folder of recorded results.
        checkpoint: folder or hub id of a published checkpoint, or None.
        data: folder of the paper's benchmarks, or None.
        deadline: of ``time.monotonic``, behind which no step begins that takes longer; None without a limit.
        say: shows what a step is at.
    """

    output: Path
    quick: bool = False
    workers: int = 1
    results: Path = ROOT / "results"
    checkpoint: str | None = None
    data: Path | None = None
    deadline: float | None = None
    say: Callable[[str], None] = field(default=lambda text: None, compare=False)


@dataclass(frozen=True)
class Step:
    """One measurement.

    Attributes:
        name: unique.
        command: how to make the same evidence alone.
        run: the measurement; its result is plain JSON, with ``samples`` if it counts any.
        own: it runs the code that the claims are about, so that its breakdown is a finding.
        quick_seconds: about what it takes in a quick run on two cores; 0 for what is never left out.
        inputs: what it depends on besides code and configurations, from the context.
        recorded: it only reads what was measured before, and is not kept again.
    """

    name: str
    command: str
    run: Callable[[Context], dict[str, Any]]
    own: bool = False
    quick_seconds: int = 10
    inputs: Callable[[Context], Any] = lambda context: None
    recorded: bool = False


@cache
def code_and_configs() -> str:
    """Hash of all sources that measure, all configurations, the tiny checkpoint and the recordings of the release."""
    found: dict[str, Path] = {}
    for folder, pattern in (("llava", "*.py"), ("holitom", "*.py"), ("eval", "*.py"), ("configs", "*.yaml")):
        found |= {str(path.relative_to(ROOT)): path for path in (ROOT / folder).rglob(pattern)}
    for folder in ("checkpoints/tiny", "tests/goldens"):
        found |= {str(path.relative_to(ROOT)): path for path in (ROOT / folder).rglob("*") if path.is_file()}
    return digest({name: file_digest(path) for name, path in found.items() if not _SHOWN.match(name)})


def key_of(step: Step, context: Context) -> str:
    """Equal for runs whose result would be equal."""
    facts = provenance()
    machine = [facts[name] for name in ("device", "cuda", "threads", "python", "torch", "transformers")]
    return digest([step.name, context.quick, code_and_configs(), step.inputs(context), machine])[:16]


def path_of(step: Step, context: Context) -> Path:
    """Where a step's result is kept."""
    return context.output / "evidence" / f"{step.name}-{key_of(step, context)}.json"


def kept(step: Step, context: Context) -> StepEvidence | None:
    """What an earlier run of the same code and inputs left, or None; a damaged file counts as none."""
    path = path_of(step, context)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        result, commit, device, seconds = raw["result"], raw["commit"], raw["device"], float(raw["seconds"])
        if not isinstance(result, dict):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    samples = result.get("samples")
    return StepEvidence(result, "", False, step.command, commit, device, samples, str(path), "kept", seconds)


def take(step: Step, context: Context) -> StepEvidence:
    """Run a step, or read what it left before; never raises for what the step says or breaks at."""
    found = None if step.recorded else kept(step, context)
    if found is not None:
        return found
    late = context.deadline is not None and time.monotonic() + step.quick_seconds > context.deadline
    if late and step.quick_seconds and not step.recorded:
        return StepEvidence(None, f"left out, the time of --quick is used up: run {step.command!r}, or without --quick")
    start = time.monotonic()
    try:
        with _logged(step, context):
            result = step.run(context)
    except InputError as error:
        return StepEvidence(None, str(error), command=step.command, seconds=time.monotonic() - start)
    except Exception as error:
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return StepEvidence(None, text, step.own, step.command, seconds=time.monotonic() - start)
    return _keep(step, context, result, time.monotonic() - start)


@contextmanager
def _logged(step: Step, context: Context) -> Iterator[None]:
    """What the measuring code prints goes into a file, the terminal shows progress."""
    path = context.output / "logs" / f"{step.name}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        yield


def _keep(step: Step, context: Context, result: dict[str, Any], seconds: float) -> StepEvidence:
    if step.recorded:
        command, commit, device, samples, file = map(result.get, ("command", "commit", "device", "samples", "file"))
        return StepEvidence(result, "", False, command or step.command, commit, device, samples, file, "recorded")
    facts, path = provenance(), path_of(step, context)
    write_whole(path, json.dumps({"step": step.name, "seconds": round(seconds, 2), **facts, "result": result}) + "\n")
    named = step.command, facts["commit"], facts["device"], result.get("samples"), str(path)
    return StepEvidence(result, "", False, *named, "now", seconds)


def last_line(main: Callable[[Sequence[str]], None], arguments: Sequence[str]) -> dict[str, Any]:
    """The line of JSON that a command line of this package ends in, run in this process.

    Raises:
        InputError: if it ends with the status of a user's mistake.
    """
    said = io.StringIO()
    try:
        with redirect_stdout(said):
            main(arguments)
    except SystemExit as stop:
        if stop.code not in (0, None):
            raise InputError(f"{main.__module__} ended with status {stop.code}: run it alone to see why") from None
    document: dict[str, Any] = json.loads(said.getvalue().splitlines()[-1])
    return document


def read_recorded(path: Path) -> dict[str, Any]:
    """The result of a file of :mod:`eval.instruments.record` with its commit, device, command and file.

    Raises:
        InputError: if there is none, or it does not say where it comes from.
    """
    if not path.is_file():
        raise InputError(f"nothing is recorded in {path}")
    try:
        raw, _ = read_json(path)
        kind_of(raw)
        facts = {name: raw[name] for name in ("commit", "device", "command")}
        return {**raw["result"], **facts, "file": str(path)}
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{path} is no recorded result with commit and device: measure it again") from None
