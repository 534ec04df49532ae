"""Is the benchmark data complete? Asked before any compute, because a missing video must never be scored.

    python -m eval.benchmarks.data plan                              # what each benchmark needs, and how to get it
    python -m eval.benchmarks.data verify --data DIR                 # every referenced video: there, a file, not empty
    python -m eval.benchmarks.data verify --data DIR --deep          # ... and its container opens and is whole
    python -m eval.benchmarks.data verify --data outputs/fixtures --tasks mvbench,videomme

``DIR`` holds the question files in ``data/<dataset id>`` and the videos in ``hf`` (:mod:`eval.paper.benchmarks`).
Nothing is downloaded and nothing is replaced by something similar. Exit status 1 when something is missing; the last
line is JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from eval.benchmarks.data.fixtures import fixture_marker
from eval.benchmarks.data.plan import plan, show_plan
from eval.instruments.cli import Parser, provenance, user_errors
from eval.paper.benchmarks import BY_TASK, PAPER_TASKS, UNKNOWN, Benchmark, chosen
from llava.errors import InputError, VideoError
from llava.video_files import check_file
from llava.video_probe import probe_track

SHOWN = 20  # problems named one by one; the rest is counted


@dataclass
class Report:
    """What was found of one benchmark.

    Attributes:
        task: its name.
        expected_questions: of the whole benchmark, or of the fixtures.
        expected_videos: of the whole benchmark, or of the fixtures; None: not known here.
        questions: questions found.
        videos: different videos the questions are about.
        usable_videos: those that are there and passed the checks.
        problems: what is wrong, one line each.
        notes: what is unusual and harmless.
    """

    task: str
    expected_questions: int
    expected_videos: int | None
    questions: int = 0
    videos: int = 0
    usable_videos: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return not self.problems


def verify(folder: Path, tasks: Sequence[str] = PAPER_TASKS, *, deep: bool = False) -> list[Report]:
    """Check questions and videos of some benchmarks.

    Args:
        folder: with ``data`` and ``hf``.
        tasks: names of benchmarks.
        deep: also read every container (without decoding it): truncated files, files without video.

    Raises:
        InputError: an unknown task, no such folder, or a damaged marker of fixtures.
    """
    benchmarks = chosen(tasks)
    if not folder.is_dir():
        raise InputError(
            f"{folder} is no folder: name the one with data/ and hf/, see `python -m eval.benchmarks.data plan`"
        )
    marker = fixture_marker(folder)
    known: dict[Path, str | None] = {}  # EgoSchema's two tasks share their videos
    return [_verify_one(folder, benchmark, marker, known, deep) for benchmark in benchmarks]


def _verify_one(
    folder: Path, benchmark: Benchmark, marker: dict[str, Any] | None, known: dict[Path, str | None], deep: bool
) -> Report:
    report = Report(benchmark.task, benchmark.questions, benchmark.video_count)
    if marker is not None:
        counts = marker["tasks"][benchmark.task]
        report.expected_questions, report.expected_videos = counts["questions"], counts["videos"]
    if (folder / "hf" / benchmark.videos.split("/")[0]).is_symlink():
        # the harness then downloads the whole set again, or fails offline
        report.problems.append(f"hf/{benchmark.videos.split('/')[0]} is a link; it must be a real folder")
    videos: dict[tuple[str, ...], None] = {}
    for config in benchmark.configs:
        try:
            questions = read_questions(folder, benchmark, config)
        except InputError as error:
            report.problems.append(str(error))
            continue
        report.questions += len(questions)
        for number, question in enumerate(questions):
            problem = benchmark.unscorable(question)
            if problem:
                report.problems.append(f"question {number} of {config}: {problem}")
            else:
                videos.setdefault(benchmark.video_names(config, question))
    report.videos = len(videos)
    if report.questions != report.expected_questions:
        report.problems.append(f"{report.questions} questions found, {report.expected_questions} expected")
    if report.expected_videos not in (None, report.videos):
        report.problems.append(f"questions about {report.videos} videos found, {report.expected_videos} expected")
    for names in videos:
        _check_video(folder / "hf", names, report, known, deep)
    return report


def _check_video(root: Path, names: Sequence[str], report: Report, known: dict[Path, str | None], deep: bool) -> None:
    present = [root / name for name in names if (root / name).exists()]
    if not present:
        report.problems.append(f"missing: hf/{names[0]}")
        return
    path = present[0]
    if path != root / names[0]:
        report.notes.append(f"hf/{names[0]} is found as {path.name}, as the task's own code does")
    if path not in known:
        known[path] = _video_problem(path, deep)
    if known[path] is None:
        report.usable_videos += 1
    else:
        report.problems.append(str(known[path]))


def _video_problem(path: Path, deep: bool) -> str | None:
    try:
        check_file(path)
        damage = probe_track(path).damage if deep else None
    except VideoError as error:
        return str(error)
    return f"{path}: {damage}" if damage else None


def read_questions(folder: Path, benchmark: Benchmark, config: str) -> list[dict[str, Any]]:
    """The questions of one configuration, read from the local folder by the library the harness uses.

    Raises:
        InputError: no folder, no such configuration or split, a file that cannot be read, or the library is absent.
    """
    try:
        import datasets  # noqa: PLC0415
    except ImportError:
        raise InputError("the package datasets is needed to read the questions: pip install 'holitom[eval]'") from None
    source = benchmark.question_folder(folder)
    if not source.is_dir():
        raise InputError(f"no question files: {source} is absent")
    try:  # streaming leaves no copy in a cache
        rows = datasets.load_dataset(str(source), name=config, split=benchmark.split, streaming=True)
        return [dict(row) for row in rows]
    except Exception as error:  # each file format raises errors of its own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{source}: {config} ({benchmark.split}) cannot be read: {reason}") from None


def show_reports(reports: Sequence[Report], fixture: bool) -> None:
    """Print the reports for people."""
    if fixture:
        print("These are miniature fixtures for rehearsals, not the benchmarks.")
    for report in reports:
        expected = UNKNOWN if report.expected_videos is None else report.expected_videos
        state = "complete" if report.complete else f"INCOMPLETE, {len(report.problems)} problems"
        print(
            f"{report.task}: {state}; questions {report.questions} of {report.expected_questions}, "
            f"videos usable {report.usable_videos} of {report.videos} referenced ({expected} expected)"
        )
        for line in [*report.problems[:SHOWN], *report.notes[:SHOWN]]:
            print(f"  {line}")
        if len(report.problems) > SHOWN:
            print(f"  ... and {len(report.problems) - SHOWN} more")


def _record(report: Report) -> dict[str, Any]:
    listed = {"problems": report.problems[:SHOWN], "notes": report.notes[:SHOWN]}
    return {**asdict(report), **listed, "problem_count": len(report.problems), "complete": report.complete}


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("action", choices=("verify", "plan"))
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with data/ and hf/ (default: data)")
    parser.add_argument("--tasks", help="names with commas between them (default: verify the paper's four, plan all)")
    parser.add_argument("--deep", action="store_true", help="verify: read every video's container")
    options = parser.parse_args(arguments)
    every = {"verify": PAPER_TASKS, "plan": tuple(BY_TASK)}[options.action]
    tasks = list(every) if options.tasks is None else [task for task in options.tasks.split(",") if task]
    if options.action == "plan":
        entries = plan(options.data, tasks)
        show_plan(entries)
        print(json.dumps({"action": "plan", "data": str(options.data), "benchmarks": entries, **provenance()}))
        return
    reports = verify(options.data, tasks, deep=options.deep)
    fixture = fixture_marker(options.data) is not None
    show_reports(reports, fixture)
    complete = all(report.complete for report in reports)
    record = {"action": "verify", "data": str(options.data), "deep": options.deep, "fixture": fixture}
    found = {"complete": complete, "benchmarks": [_record(report) for report in reports]}
    print(json.dumps({**record, **found, **provenance()}))
    sys.exit(0 if complete else 1)


if __name__ == "__main__":
    main()
