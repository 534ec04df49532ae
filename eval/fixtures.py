"""Miniature data sets of the paper's four benchmarks, so that the real task code runs without a download.

    python -m eval.fixtures outputs/fixtures
    python -m eval.data verify --data outputs/fixtures

Folders and columns are those the packaged task definitions read (:mod:`eval.benchmarks`): MVBench with its 20
sub-tasks, EgoSchema (subset, and the full set with hidden labels), LongVideoBench, VideoMME. Clips are rendered, every
question is about what its clip shows. The same arguments give the same bytes. Scores on them are rehearsals and say
nothing about the paper; the folder says so in ``fixture.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.benchmarks import (
    BY_TASK,
    LONGVIDEOBENCH_DURATIONS,
    MVBENCH,
    VIDEOMME_DOMAINS,
    VIDEOMME_DURATIONS,
    VIDEOMME_TASKS,
    Benchmark,
)
from eval.cli import Parser, user_errors
from eval.fixture_clips import BACKDROPS, COLOURS, DIRECTIONS, SHAPES, Clip, draw_clip, write_clip
from llava.errors import InputError

MARKER = "fixture.json"
LETTERS = "ABCDE"


@dataclass(frozen=True)
class Question:
    """A question with its options in order and the number of the right one."""

    text: str
    options: tuple[str, ...]
    right: int


# what can be asked about a clip: the question, its right answer and wrong ones
FAMILIES: tuple[Callable[[Clip], tuple[str, str, list[str]]], ...] = (
    lambda clip: (f"Which colour has the {clip.shape}?", clip.colour, sorted(COLOURS)),
    lambda clip: (f"In which direction does the {clip.shape} move?", clip.direction, sorted(DIRECTIONS)),
    lambda clip: ("Which backdrop comes first?", clip.first, sorted(BACKDROPS)),
    lambda clip: ("Which backdrop comes last?", clip.last, sorted(BACKDROPS)),
    lambda clip: (f"Which {clip.colour} shape appears?", clip.shape, [*SHAPES, "star", "cross"]),
)


def ask(clip: Clip, family: int, options: int, generator: random.Random) -> Question:
    """A question of one family with ``options`` shuffled options."""
    text, right, every = FAMILIES[family % len(FAMILIES)](clip)
    wrong = [word for word in every if word != right]
    words = [right, *generator.sample(wrong, min(options - 1, len(wrong)))]
    words += [f"none of these ({number})" for number in range(options - len(words))]
    generator.shuffle(words)
    return Question(text, tuple(words), words.index(right))


def lettered(question: Question) -> list[str]:
    """``A. red``, ``B. blue``, ... as the data sets spell their options."""
    return [f"{LETTERS[number]}. {option}" for number, option in enumerate(question.options)]


class _Writer:
    """Writes clips and question files of one folder, and counts them for the marker."""

    def __init__(self, folder: Path, clips: int, seed: int) -> None:
        self.folder, self.clips, self.seed = folder, clips, seed
        self.counts: dict[str, dict[str, int]] = {}

    def scenes(self, name: str, more: int = 1) -> Iterator[tuple[int, Clip, random.Random]]:
        """Number, content and generator of each clip of a task; a task's clips depend on its name and the seed."""
        for number in range(self.clips * more):
            generator = random.Random(f"{self.seed}/{name}/{number}")
            yield number, draw_clip(generator), generator

    def video(self, benchmark: Benchmark, name: str, clip: Clip) -> None:
        write_clip(self.folder / "hf" / benchmark.videos / name, clip)

    def questions(self, benchmark: Benchmark, files: dict[str, str], rows: dict[str, list[dict[str, Any]]]) -> None:
        """Write the question files (configuration -> file name) and the README that names them."""
        target = benchmark.question_folder(self.folder)
        for config, file in files.items():
            path = target / file
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = [json.dumps(row, ensure_ascii=False) for row in rows[config]]
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        readme = ["---", "configs:"]
        for config, file in files.items():
            readme += [
                f"- config_name: {config}",
                "  data_files:",
                f"  - split: {benchmark.split}",
                f"    path: {file}",
            ]
        (target / "README.md").write_text("\n".join([*readme, "---", ""]), encoding="utf-8")

    def count(self, task: str, rows: Sequence[dict[str, Any]], videos: int) -> None:
        self.counts[task] = {"questions": len(rows), "videos": videos}


def _mvbench(writer: _Writer) -> None:
    """Each clip has a question; the first clip of a sub-task has another one, of the next family."""
    benchmark = BY_TASK["mvbench"]
    rows: dict[str, list[dict[str, Any]]] = {}
    for place, subtask in enumerate(MVBENCH):
        rows[subtask] = []
        for number, clip, generator in writer.scenes(subtask):
            ending = "avi" if subtask == "fine_grained_pose" else "mp4"  # as in the original
            name = f"{subtask}_{number}.{ending}"
            writer.video(benchmark, f"{MVBENCH[subtask]}/{name}", clip)
            for extra in range(2 if number == 0 else 1):
                question = ask(clip, place + extra, 3 + (place + number) % 3, generator)
                rows[subtask].append(
                    {
                        "video": name,
                        "question": question.text,
                        "candidates": list(question.options),
                        "answer": question.options[question.right],
                    }
                )
    writer.questions(benchmark, {subtask: f"json/{subtask}.jsonl" for subtask in MVBENCH}, rows)
    writer.count("mvbench", [row for some in rows.values() for row in some], writer.clips * len(MVBENCH))


def _egoschema(writer: _Writer) -> None:
    """The full set hides its answers and holds twice as many clips as the subset."""
    full: list[dict[str, Any]] = []
    subset: list[dict[str, Any]] = []
    for number, clip, generator in writer.scenes("egoschema", more=2):
        name = f"{random.Random(f'{writer.seed}/id/{number}').getrandbits(128):032x}"
        writer.video(BY_TASK["egoschema"], f"{name}.mp4", clip)
        question = ask(clip, number, 5, generator)
        row = {"question_idx": str(number), "question": question.text, "video_idx": name, "option": lettered(question)}
        full.append({**row, "answer": None})
        if number < writer.clips:
            subset.append({**row, "answer": str(question.right)})
    files = {"GENERATION": "full.jsonl", "Subset": "sub.jsonl"}
    writer.questions(BY_TASK["egoschema"], files, {"GENERATION": full, "Subset": subset})
    writer.count("egoschema", full, len(full))
    writer.count("egoschema_subset", subset, len(subset))


def _longvideobench(writer: _Writer) -> None:
    """Two questions per clip, of two categories; one of them has four options and an absent fifth."""
    benchmark = BY_TASK["longvideobench_val_v"]
    rows: list[dict[str, Any]] = []
    for number, clip, generator in writer.scenes("longvideobench"):
        name = f"clip_{number}.mp4"
        writer.video(benchmark, name, clip)
        for part, category in enumerate(("S2E", "T3O")):
            question = ask(clip, number + part, 5 - part, generator)
            options = {f"option{place}": word for place, word in enumerate([*question.options, "N/A"][:5])}
            rows.append(
                {
                    "id": f"clip_{number}_{part}",
                    "video_id": f"clip_{number}",
                    "video_path": name,
                    "question": question.text,
                    **options,
                    "correct_choice": question.right,
                    "duration_group": LONGVIDEOBENCH_DURATIONS[number % len(LONGVIDEOBENCH_DURATIONS)],
                    "question_category": category,
                }
            )
    writer.questions(benchmark, {"default": "val.jsonl"}, {"default": rows})
    writer.count("longvideobench_val_v", rows, writer.clips)


def _videomme(writer: _Writer) -> None:
    """Three questions per clip; durations, domains and kinds of question are taken in turn."""
    benchmark = BY_TASK["videomme"]
    rows: list[dict[str, Any]] = []
    domains = [(domain, sub) for domain, subs in VIDEOMME_DOMAINS.items() for sub in subs]
    for number, clip, generator in writer.scenes("videomme"):
        name = f"clip_{number:04d}"
        writer.video(benchmark, f"{name}.mp4", clip)
        domain, sub_category = domains[number * 7 % len(domains)]
        for part in range(3):
            question = ask(clip, number + part, 4, generator)
            rows.append(
                {
                    "video_id": f"{number + 1:03d}",
                    "duration": VIDEOMME_DURATIONS[number % len(VIDEOMME_DURATIONS)],
                    "domain": domain,
                    "sub_category": sub_category,
                    "videoID": name,
                    "question_id": f"{number + 1:03d}-{part + 1}",
                    "task_type": VIDEOMME_TASKS[(3 * number + part) % len(VIDEOMME_TASKS)],
                    "question": question.text,
                    "options": [f"{option}." for option in lettered(question)],
                    "answer": LETTERS[question.right],
                }
            )
    writer.questions(benchmark, {"default": "test.jsonl"}, {"default": rows})
    writer.count("videomme", rows, writer.clips)


def make_fixtures(folder: str | Path, clips_per_task: int = 2, seed: int = 0) -> Path:
    """Write the miniature data sets; a folder that already holds those of the same arguments is left as it is.

    Args:
        folder: a new or empty folder, or one this function made.
        clips_per_task: clips of each MVBench sub-task and other benchmark (EgoSchema's full set: twice), 1 to 30.
        seed: of the clips and questions.

    Returns:
        The folder.

    Raises:
        InputError: the folder holds something else, or the number of clips is out of range.
    """
    target = Path(folder)
    if isinstance(clips_per_task, bool) or not 1 <= clips_per_task <= 30:
        raise InputError(f"clips_per_task is {clips_per_task!r}; it must be a whole number from 1 to 30")
    wanted = {"fixture": True, "version": 1, "clips_per_task": clips_per_task, "seed": seed}
    if target.is_dir() and any(target.iterdir()):
        found = fixture_marker(target)
        if found is None:
            raise InputError(f"{target} holds other files: name a new folder for the fixtures")
        if {key: found.get(key) for key in wanted} == wanted:
            return target
        shutil.rmtree(target)
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{part} cannot be made ({error.strerror}): name another folder") from None
    writer = _Writer(part, clips_per_task, seed)
    for write in (_mvbench, _egoschema, _longvideobench, _videomme):
        write(writer)
    (part / MARKER).write_text(json.dumps({**wanted, "tasks": writer.counts}, indent=1) + "\n", encoding="utf-8")
    if target.is_dir():
        target.rmdir()
    os.replace(part, target)
    return target


def fixture_marker(folder: str | Path) -> dict[str, Any] | None:
    """What ``fixture.json`` says about a folder of fixtures; None for real data.

    Raises:
        InputError: the file is damaged.
    """
    path = Path(folder) / MARKER
    if not path.is_file():
        return None
    try:
        marker = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        marker = None
    if not isinstance(marker, dict) or marker.get("fixture") is not True:
        raise InputError(f"{path} is damaged: delete the folder and make the fixtures again")
    return marker


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips-per-task", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    folder = make_fixtures(options.folder, options.clips_per_task, options.seed)
    print(json.dumps({"folder": str(folder), **(fixture_marker(folder) or {})}))


if __name__ == "__main__":
    main()
