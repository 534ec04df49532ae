"""Questions about the fixtures' clips, and the files of each benchmark in the columns of the original."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.instruments.clips import BACKDROPS, COLOURS, DIRECTIONS, SHAPES, DrawnClip, draw_clip, write_clip
from eval.paper.benchmarks import (
    BY_TASK,
    LONGVIDEOBENCH_DURATIONS,
    MLVU_TASKS,
    MVBENCH,
    VIDEOMME_DOMAINS,
    VIDEOMME_DURATIONS,
    VIDEOMME_TASKS,
    Benchmark,
)

LETTERS = "ABCDE"


@dataclass(frozen=True)
class FixtureQuestion:
    """A question with its options in order and the number of the right one."""

    text: str
    options: tuple[str, ...]
    right: int


# what can be asked about a clip: the question, its right answer and wrong ones
FAMILIES: tuple[Callable[[DrawnClip], tuple[str, str, list[str]]], ...] = (
    lambda clip: (f"Which colour has the {clip.shape}?", clip.colour, sorted(COLOURS)),
    lambda clip: (f"In which direction does the {clip.shape} move?", clip.direction, sorted(DIRECTIONS)),
    lambda clip: ("Which backdrop comes first?", clip.first, sorted(BACKDROPS)),
    lambda clip: ("Which backdrop comes last?", clip.last, sorted(BACKDROPS)),
    lambda clip: (f"Which {clip.colour} shape appears?", clip.shape, [*SHAPES, "star", "cross"]),
)


def ask(clip: DrawnClip, family: int, options: int, generator: random.Random) -> FixtureQuestion:
    """A question of one family with ``options`` shuffled options."""
    text, right, every = FAMILIES[family % len(FAMILIES)](clip)
    wrong = [word for word in every if word != right]
    words = [right, *generator.sample(wrong, min(options - 1, len(wrong)))]
    words += [f"none of these ({number})" for number in range(options - len(words))]
    generator.shuffle(words)
    return FixtureQuestion(text, tuple(words), words.index(right))


def lettered(question: FixtureQuestion) -> list[str]:
    """``A. red``, ``B. blue``, ... as the data sets spell their options."""
    return [f"{LETTERS[number]}. {option}" for number, option in enumerate(question.options)]


class Writer:
    """Writes clips and question files of one folder, and counts them for the marker.

    Args:
        folder: of the data sets.
        clips: of each task.
        seed: of the clips and questions.
    """

    def __init__(self, folder: Path, clips: int, seed: int) -> None:
        self.folder, self.clips, self.seed = folder, clips, seed
        self.counts: dict[str, dict[str, int]] = {}

    def scenes(self, name: str, more: int = 1) -> Iterator[tuple[int, DrawnClip, random.Random]]:
        """Number, content and generator of each clip of a task; a task's clips depend on its name and the seed."""
        for number in range(self.clips * more):
            generator = random.Random(f"{self.seed}/{name}/{number}")
            yield number, draw_clip(generator), generator

    def video(self, benchmark: Benchmark, name: str, clip: DrawnClip) -> None:
        """Write a clip where the benchmark's videos lie."""
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
        """Note how many questions and videos a task has."""
        self.counts[task] = {"questions": len(rows), "videos": videos}


def _mvbench(writer: Writer) -> None:
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


def _egoschema(writer: Writer) -> None:
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


def _longvideobench(writer: Writer) -> None:
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


def _videomme(writer: Writer) -> None:
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


def _mlvu(writer: Writer) -> None:
    """A question of every kind, about the clips in turn; the options stand in the question, as in the original."""
    benchmark = BY_TASK["mlvu_dev"]
    scenes = list(writer.scenes("mlvu"))
    for number, clip, _ in scenes:
        writer.video(benchmark, f"clip_{number}.mp4", clip)
    rows: list[dict[str, Any]] = []
    for place, kind in enumerate(MLVU_TASKS):
        number, clip, generator = scenes[place % len(scenes)]
        rows.append({**_in_text(clip, place, generator), "video_name": f"clip_{number}.mp4", "task_type": kind})
    writer.questions(benchmark, {"default": "test.jsonl"}, {"default": rows})
    writer.count("mlvu_dev", rows, len({row["video_name"] for row in rows}))


def _lvbench(writer: Writer) -> None:
    """Two questions per clip; the options stand in the question, as in the original."""
    benchmark = BY_TASK["lvbench"]
    rows: list[dict[str, Any]] = []
    for number, clip, generator in writer.scenes("lvbench"):
        writer.video(benchmark, f"clip_{number}.mp4", clip)
        rows += [{**_in_text(clip, number + part, generator), "video_path": f"clip_{number}.mp4"} for part in range(2)]
    writer.questions(benchmark, {"default": "train.jsonl"}, {"default": rows})
    writer.count("lvbench", rows, writer.clips)


def _in_text(clip: DrawnClip, family: int, generator: random.Random) -> dict[str, str]:
    """A question with its options below it, and the letter of the right one."""
    question = ask(clip, family, 4, generator)
    options = [f"({LETTERS[number]}) {option}" for number, option in enumerate(question.options)]
    return {"question": "\n".join([question.text, *options]), "answer": LETTERS[question.right]}


WRITERS: tuple[Callable[[Writer], None], ...] = (_mvbench, _egoschema, _longvideobench, _videomme, _mlvu, _lvbench)
