"""All runs of a grid (configs/sweeps/): one command, resumable as a whole.

    python -m eval.benchmarks.sweep eval_ov-7b_rivals --data DIR    # the paper's benchmarks; see eval.benchmarks.data
    python -m eval.benchmarks.sweep eval_ov-7b_rivals --fixture     # rehearsal: miniature data, tiny checkpoint, a CPU
    python -m eval.benchmarks.sweep ablate_threshold --tasks synthvid   # rehearsal on the synthetic benchmark

Finished points are skipped, started ones go on where they stopped. A failed point does not stop the others: it is
reported at the end, and the exit status is 1. All points run in one process after the other's model is gone, so that
the harness starts once; ``--num-processes`` starts several for each point instead. The last line is JSON.

A rehearsal scales the paper's layers to the checkpoint's depth and takes a quarter of the frames. It shows that every
command works and nothing about the paper; eval.report.tables says so.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from eval.benchmarks.data.__main__ import show_reports, verify
from eval.benchmarks.data.fixtures import fixture_marker, make_fixtures
from eval.benchmarks.lmms.harness import HARNESS_FOLDER, definitions_of
from eval.benchmarks.rehearsal import CHECKPOINT, own_tasks, prepare_own_data, rehearsal_checkpoint, rehearsal_overrides
from eval.benchmarks.shares import share_words
from eval.benchmarks.sweep_runs import Request, finished, run_all
from eval.instruments.cli import Count, Parser, provenance, user_errors
from eval.paper.benchmarks import BY_TASK, HARNESS, MVBENCH, PAPER_HARNESS
from eval.paper.grids import SWEEPS, Grid, Point, load_grid
from llava.errors import InputError

RESULTS = Path("results/lmms")
REHEARSALS = Path("outputs/rehearsal")


def parser() -> Parser:
    """The options."""
    found = Parser(description=__doc__)
    found.add_argument("grid", help=f"YAML file, or the name of one in {SWEEPS.parent.name}/{SWEEPS.name}")
    found.add_argument("-o", "--output", type=Path, help=f"default: {RESULTS}, or a folder of {REHEARSALS}")
    found.add_argument("--tasks", help="names with commas between them; default: the grid's")
    found.add_argument("--data", type=Path, help="folder with data/ and hf/, see `python -m eval.benchmarks.data plan`")
    found.add_argument("--fixture", action="store_true", help="rehearse on miniature data sets")
    found.add_argument(
        "--limit", type=int, help="questions per task; default: all, 1 with --fixture, 20 for other tasks"
    )
    found.add_argument("--checkpoint", help="folder or hub id instead of the configurations'")
    found.add_argument("--include-path", type=Path, help="folder with task definitions of your own")
    found.add_argument("--num-processes", action=Count, default=1, help="processes that share the questions of a point")
    found.add_argument(
        "--share", metavar="I/N", help="answer share I of N, 0-based, of every point: as in eval.benchmarks.run"
    )
    found.add_argument("--merge", action=Count, metavar="N", help="score what N shares answered")
    found.add_argument("--harness", choices=(HARNESS, PAPER_HARNESS), default=HARNESS, help="see eval.benchmarks.run")
    found.add_argument("--harness-folder", type=Path, default=HARNESS_FOLDER, help="see eval.benchmarks.run")
    found.add_argument("--on-bad-video", choices=("stop", "count"), default="stop")
    found.add_argument("--model-args", action="append", default=[], metavar="KEY=VALUE", help="of the stock model")
    found.add_argument("--list", action="store_true", help="only show the points and which of them are finished")
    return found


def find_grid(name: str) -> Grid:
    """A grid by its path, or by its name in ``configs/sweeps``."""
    return load_grid(name if name.endswith(".yaml") or "/" in name else SWEEPS / f"{name}.yaml")


def of_the_paper(task: str) -> bool:
    """Whether a task is one of the paper's benchmarks or a sub-task of one; all others are rehearsals here."""
    return task in BY_TASK or task.removeprefix("mvbench_") in MVBENCH


def check_data(data: Path, tasks: Sequence[str], on_bad_video: str) -> None:
    """Find out before any compute what is missing.

    Raises:
        InputError: something is, and such videos are not to be counted.
    """
    known = [task for task in tasks if task in BY_TASK]
    reports = verify(data, known)
    problems = [problem for report in reports for problem in report.problems]
    if not problems:
        return
    show_reports(reports, fixture_marker(data) is not None)
    if on_bad_video == "stop":
        raise InputError(
            f"{data} is not complete ({len(problems)} problems, the first: {problems[0]}): see eval.benchmarks.data"
        )


def _scaled(point: Point, options: argparse.Namespace, data: str) -> dict[str, Any]:
    """What a rehearsal changes of a request: its checkpoint, the settings that fit it, and why it is one."""
    folder = Path(options.checkpoint) if options.checkpoint else rehearsal_checkpoint(point.model, REHEARSALS)
    what = "the learned tiny checkpoint" if folder == CHECKPOINT else f"checkpoint {folder.name}"
    return {
        "checkpoint": str(folder),
        "overrides": (*point.overrides, *rehearsal_overrides(point, folder)),
        "rehearsal": f"{data}, {what}, scaled layers and frames",
    }


def requests(options: argparse.Namespace, grid: Grid) -> list[Request]:
    """What to run for each point, with everything a rehearsal needs made first.

    Raises:
        InputError: for options that do not fit together.
    """
    tasks = tuple(options.tasks.split(",")) if options.tasks else grid.tasks
    rehearse = options.fixture or not any(of_the_paper(task) for task in tasks)
    if options.fixture and options.data is not None:
        raise InputError("--fixture brings its own data: leave out --data")
    if not rehearse and options.data is None:
        raise InputError(
            "--data is missing: name the folder of the benchmarks (`python -m eval.benchmarks.data plan`), or --fixture"
        )
    if options.harness == PAPER_HARNESS:
        definitions_of(options.harness_folder)
    data = make_fixtures(REHEARSALS / "fixtures") if options.fixture else options.data
    default = REHEARSALS / ("fixture" if options.fixture else "_".join(tasks)) if rehearse else RESULTS
    output, include = options.output or default, options.include_path or own_tasks(tasks)
    limit = options.limit if options.limit is not None or not rehearse else (1 if options.fixture else 20)
    found = [
        Request(
            name=point.name,
            config=str(point.config),
            overrides=point.overrides,
            output=str(output / point.name),
            tasks=tasks,
            data=None if data is None else str(data),
            checkpoint=options.checkpoint,
            limit=limit,
            rehearsal=None,
            include_path=None if include is None else str(include),
            on_bad_video=options.on_bad_video,
            model_args=tuple(options.model_args),
            harness=options.harness,
            harness_folder=None if options.harness == HARNESS else str(options.harness_folder),
        )
        for point in grid.points
    ]
    if not rehearse:
        return found
    what = "miniature data" if options.fixture else ", ".join(tasks)
    return [
        replace(request, **_scaled(point, options, what)) for request, point in zip(found, grid.points, strict=True)
    ]


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    options = parser().parse_args(arguments)
    share = share_words(options)
    if share and options.num_processes != 1:
        raise InputError("--share and --merge go without --num-processes: start more shares instead")
    grid = find_grid(options.grid)
    asked = requests(options, grid)
    done = [request for request in asked if finished(request)]
    for request in asked:
        print(f"{'finished' if request in done else 'to do   '} {request.name}")
    sys.stdout.flush()
    left = [request for request in asked if request not in done]
    if left and not options.list and left[0].data is not None:
        check_data(Path(left[0].data), left[0].tasks, options.on_bad_video)
    if left and not options.list:
        prepare_own_data(left[0].tasks)
    failed = {} if options.list else run_all(left, options.num_processes, share)
    for name, reason in failed.items():
        print(f"failed   {name}: {reason}", file=sys.stderr)
    computed = [] if options.list else [request.name for request in left if request.name not in failed]
    names = {"skipped": [request.name for request in done], "computed": computed, "failed": failed}
    if share:  # a point is scored by the last of its shares
        names["unscored"] = [request.name for request in left if request.name in computed and not finished(request)]
    record = {"grid": grid.name, "output": str(Path(asked[0].output).parent.parent), "points": len(asked), **names}
    print(json.dumps({**record, "rehearsal": asked[0].rehearsal, **provenance()}))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
