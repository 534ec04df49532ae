"""Is what the paper claims true? Every claim with its evidence and a verdict, from what this machine can run.

    bash scripts/verify_claims.sh --quick                          # within ten minutes on two cores
    bash scripts/verify_claims.sh                                  # the whole instrument, about an hour; resumable
    bash scripts/verify_claims.sh --checkpoint DIR --data DIR      # with the paper's benchmarks, on a GPU
    bash scripts/verify_claims.sh --only threshold --only flops    # claims whose names contain one of these

Goldens of the release, exact FLOPs, the search for a better segmentation, measured rules and token counts, the learned
tiny model, times on the device at hand, and benchmarks where checkpoint and data are given. A verdict is computed from
numbers: reproduced, contradicted, partly, undecided, or not measurable here and what it needs. What a run of the same
code and inputs has measured is kept and used again; what results/ records is used and called recorded. ``claims.json``
and a page are written below ``-o``. The last line is JSON; exit status 1 if a claim is contradicted, 2 for a user's
mistake, 130 when stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from eval.claims.catalogue import all_claims
from eval.claims.judging import CONTRADICTED, NOT_HERE, PARTLY, REPRODUCED, UNDECIDED, Claim, StepEvidence
from eval.claims.runner import CLAIMS, contradicted, needed_steps, verify
from eval.claims.steps import ROOT, Context, Step
from eval.instruments.cli import Count, Parser, provenance, user_errors
from eval.instruments.record import check_target
from llava.errors import InputError

QUICK_SECONDS = 480  # behind which a quick run begins nothing new; the last step and the page fit into ten minutes
_COLORS = {REPRODUCED: "green", CONTRADICTED: "bold red", PARTLY: "yellow", UNDECIDED: "yellow", NOT_HERE: "dim"}
_INTERRUPTED = 130  # exit status of what Ctrl-C ended
_WHY = 170  # letters of a reason in the terminal; claims.json has all


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small samples: within ten minutes on two cores")
    parser.add_argument("--checkpoint", help="lmms-lab/llava-onevision-qwen2-7b-ov as a folder or hub id")
    parser.add_argument("--data", type=Path, help="folder of the benchmarks (python -m eval.benchmarks.data plan)")
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="folder of recorded results")
    parser.add_argument("--only", action="append", metavar="TEXT", help="claims whose name contains it; repeatable")
    parser.add_argument(
        "--workers", action=Count, default=min(2, os.cpu_count() or 1), help="processes of the tiny model"
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("outputs/claims"))
    options = parser.parse_args(arguments)
    if (options.checkpoint is None) != (options.data is None):
        given, absent = ("--checkpoint", "--data") if options.data is None else ("--data", "--checkpoint")
        raise InputError(f"{given} is of no use without {absent}: give both, or neither")
    if options.data is not None and not options.data.is_dir():
        raise InputError(f"--data {options.data} is no folder: see python -m eval.benchmarks.data plan")
    if not options.results.is_dir():
        raise InputError(f"--results {options.results} is no folder: name one with recorded results")
    here = Path.cwd()
    if options.results.is_absolute() and options.results.is_relative_to(here):
        options.results = options.results.relative_to(here)  # evidence names files as a reader of the clone knows them
    check_target(options.output / CLAIMS)
    return options


def chosen(only: Sequence[str] | None) -> list[Claim]:
    """The claims asked for.

    Raises:
        InputError: for a text that no claim's name contains.
    """
    claims = all_claims()
    for text in only or ():
        if not any(text in claim.identity for claim in claims):
            raise InputError(
                f"--only {text!r} is in no claim's name; names are {claims[0].identity}, ... (claims.json)"
            )
    return [claim for claim in claims if not only or any(text in claim.identity for text in only)]


class Display:
    """Progress over the steps on the terminal, and one line for each that is done."""

    def __init__(self, console: Console, steps: int) -> None:
        self.console = console
        times = TimeElapsedColumn(), TimeRemainingColumn()
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *times
        self.progress = Progress(*columns, console=console, transient=True)
        self.task = self.progress.add_task("", total=steps)
        self.step = ""

    def say(self, text: str) -> None:
        """What the step is at."""
        self.progress.update(self.task, description=f"{self.step}: {text}"[:60])

    def report(self, step: Step, given: StepEvidence | None) -> None:
        """Before a step (None) and after it."""
        if given is None:
            self.step = step.name
            self.progress.update(self.task, description=step.name)
            return
        self.progress.advance(self.task)
        state = f"FAILED: {given.missing}" if given.failed else given.missing or f"{given.when}"
        self.console.print(f"{step.name:<20} {given.seconds:6.1f} s  {state}")


def show(records: Sequence[Mapping[str, Any]], console: Console) -> None:
    """The table, claims of one source together: claim, evidence, verdict."""
    table = Table(title="claims of the paper and what was measured")
    for heading, ratio in (("claim", 4), ("evidence", 6), ("verdict", 2)):
        table.add_column(heading, ratio=ratio)
    for place, record in enumerate(records):
        why = record["why"] if len(record["why"]) <= _WHY else f"{record['why'][:_WHY]} ..."
        when = record["evidence"]["when"]
        last = place + 1 == len(records) or records[place + 1]["source"] != record["source"]
        cells = (record["claim"], f"({when}) {why}" if when else why, record["verdict"])
        table.add_row(*cells, style=_COLORS[record["verdict"]], end_section=last)
    console.print(table)
    console.print("evidence: now = measured in this run, kept = before by the same code, recorded = in results/")
    counts = Counter(record["verdict"] for record in records)
    console.print(", ".join(f"{counts[verdict]} {verdict}" for verdict in _COLORS))
    for record in records:
        if record["verdict"] == CONTRADICTED:
            console.print(f"CONTRADICTED {record['id']}: {record['why']} ({record['evidence']['command']})")


def make_page(options: argparse.Namespace, claims: Path, console: Console) -> str | None:
    """The reviewer's page beside the claims; None if it cannot be made."""
    folder = options.output / "report"
    words = [str(options.results), "--claims", str(claims), "-o", str(folder)]
    status = subprocess.run([sys.executable, "-P", "-m", "eval.report", *words], check=False).returncode
    if status:
        console.print(f"no page: eval.report ended with status {status}")
        return None
    return str(folder)


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    options, start = read_arguments(arguments), time.monotonic()
    claims = chosen(options.only)
    # the stream as it is now: steps write theirs into files
    console = Console(file=sys.stdout, highlight=False, markup=False, width=None if sys.stdout.isatty() else 140)
    display = Display(console, len(needed_steps(claims)))
    context = Context(
        options.output,
        options.quick,
        options.workers,
        options.results,
        options.checkpoint,
        options.data,
        start + QUICK_SECONDS if options.quick else None,
        display.say,
    )
    try:
        with display.progress:
            records = verify(claims, context, display.report)
    except KeyboardInterrupt:
        print(f"stopped: the same command goes on from what {options.output} keeps", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    show(records, console)
    path = options.output / CLAIMS
    page, wrong = make_page(options, path, console), contradicted(records)
    counts = dict(Counter(record["verdict"] for record in records))
    said = {"claims": str(path), "page": page, "verdicts": counts, "contradicted": wrong, "quick": options.quick}
    print(json.dumps({**said, "seconds": round(time.monotonic() - start, 1), **provenance()}))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
