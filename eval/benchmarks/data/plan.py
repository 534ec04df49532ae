"""What each benchmark needs and how to get it: the part of ``eval.benchmarks.data`` that looks at no file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.paper.benchmarks import MVBENCH, PAPER_TASKS, UNKNOWN, Benchmark, chosen

PINS_NONE = " (the task pins none; the log of commits beside the files knows those of the day)"


def plan(folder: Path, tasks: Sequence[str] = PAPER_TASKS) -> list[dict[str, Any]]:
    """What each benchmark needs and how to get it; what is not known here is called unknown."""
    return [
        {
            "task": benchmark.task,
            "dataset": benchmark.dataset,
            "revision": benchmark.revision,
            "split": f"{benchmark.split} of {', '.join(benchmark.configs)}",
            "questions": benchmark.questions,
            "videos": benchmark.video_count or f"{UNKNOWN} (python -m eval.benchmarks.data verify counts them)",
            "size": f"{_hours(benchmark)}bytes {UNKNOWN} (stated on {benchmark.page}/tree/main)",
            "licence": f"{UNKNOWN} (stated on {benchmark.page}; the videos keep the terms of their sources)",
            "question_files": str(benchmark.question_folder(folder)),
            "video_folders": sorted({str(folder / "hf" / name) for name in _video_folders(benchmark)}),
            "command": _download(folder, benchmark),
        }
        for benchmark in chosen(tasks)
    ]


def _hours(benchmark: Benchmark) -> str:
    return "" if benchmark.hours is None else f"about {benchmark.hours:.0f} hours of video by the benchmark's paper, "


def _video_folders(benchmark: Benchmark) -> list[str]:
    if benchmark.task != "mvbench":
        return [benchmark.videos]
    return [f"{benchmark.videos}/{subfolder}" for subfolder in MVBENCH.values()]


def _download(folder: Path, benchmark: Benchmark) -> str:
    revision = "" if benchmark.revision == UNKNOWN else f" --revision {benchmark.revision}"
    return (
        f"hf download {benchmark.dataset} --repo-type dataset{revision} --local-dir {benchmark.question_folder(folder)}"
    )


def show_plan(entries: Sequence[dict[str, Any]]) -> None:
    """Print the plan for people."""
    for entry in entries:
        print(f"{entry['task']}: {entry['questions']} questions, {entry['videos']} videos, size {entry['size']}")
        print(f"  licence    {entry['licence']}")
        print(f"  revision   {entry['revision']}" + (PINS_NONE if entry["revision"] == UNKNOWN else ""))
        print(f"  split      {entry['split']}")
        print(f"  questions  {entry['command']}   (the hub may ask you to log in and accept terms)")
        print("  videos     unpack the archives of that folder into")
        for video_folder in entry["video_folders"]:
            print(f"             {video_folder}")
