"""The paper's four benchmarks, MLVU and LVBench as lmms-eval 0.7.3 reads them: folders, columns, sizes, lists.

Another benchmark is a line of ``BENCHMARKS`` here and a miniature of it in ``eval/benchmarks/data/fixture_tasks.py``.

Everything lies below one folder (``--data DIR``): the question files in ``DIR/data/<dataset id>``, where the harness
finds them before it asks the hub, and the videos in ``DIR/hf``, which becomes ``HF_HOME``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.errors import InputError

UNKNOWN = "unknown"
HARNESS = "0.7.3"  # of lmms-eval, with whose definitions a run is asked and scored unless it says otherwise
PAPER_HARNESS = "0.3.0"  # that of the paper, by its authors
# tasks whose prompts, settings, frames and reading of answers are equal in both (python -m eval.benchmarks.versions)
UNCHANGED = ("mvbench", "longvideobench_val_v")

# sub-task -> folder of its videos below mvbench_video, in the order of the group
MVBENCH = {
    "action_sequence": "star/Charades_segment",
    "moving_count": "clevrer/video_validation",
    "action_prediction": "star/Charades_segment",
    "episodic_reasoning": "tvqa/video_fps3_hq_segment",
    "action_antonym": "ssv2_video_mp4",
    "action_count": "perception/videos",
    "scene_transition": "scene_qa/video",
    "object_shuffle": "perception/videos",
    "object_existence": "clevrer/video_validation",
    "fine_grained_pose": "nturgbd_convert",
    "unexpected_action": "FunQA_test/test",
    "moving_direction": "clevrer/video_validation",
    "state_change": "perception/videos",
    "object_interaction": "star/Charades_segment",
    "character_order": "perception/videos",
    "action_localization": "sta/sta_video_segment",
    "counterfactual_inference": "clevrer/video_validation",
    "fine_grained_action": "Moments_in_Time_Raw/videos",
    "moving_attribute": "clevrer/video_validation",
    "egocentric_navigation": "vlnqa",
}

# the lists of VideoMME's own aggregation, which knows no other value
VIDEOMME_DURATIONS = ("short", "medium", "long")
VIDEOMME_DOMAINS = {
    "Knowledge": (
        "Humanity & History", "Literature & Art", "Biology & Medicine", "Finance & Commerce", "Astronomy", "Geography",
        "Law", "Life Tip", "Technology",
    ),
    "Film & Television": ("Animation", "Movie & TV Show", "Documentary", "News Report"),
    "Sports Competition": ("Esports", "Basketball", "Football", "Athletics", "Other Sports"),
    "Artistic Performance": ("Stage Play", "Magic Show", "Variety Show", "Acrobatics"),
    "Life Record": ("Handicraft", "Food", "Fashion", "Daily Life", "Travel", "Pet & Animal", "Exercise"),
    "Multilingual": ("Multilingual",),
}  # fmt: skip
VIDEOMME_TASKS = (
    "Temporal Perception", "Spatial Perception", "Attribute Perception", "Action Recognition", "Object Recognition",
    "OCR Problems", "Counting Problem", "Temporal Reasoning", "Spatial Reasoning", "Action Reasoning",
    "Object Reasoning", "Information Synopsis",
)  # fmt: skip
LONGVIDEOBENCH_DURATIONS = (15, 60, 600, 3600)
# the kinds whose mean is MLVU's score (dev, multiple choice)
MLVU_TASKS = ("topic_reasoning", "anomaly_reco", "needle", "ego", "plotQA", "order", "count")

Question = Mapping[str, Any]


def _allowed(**values: Sequence[Any]) -> Callable[[Question], str | None]:
    """A check of columns that may only hold some values, as the task's own aggregation knows no other."""

    def problem(question: Question) -> str | None:
        wrong = (
            f"{key} {question[key]!r} is unknown to the task" for key in values if question[key] not in values[key]
        )
        return next(wrong, None)

    return problem


def _no_problem(question: Question) -> str | None:
    return None


def _mvbench_problem(question: Question) -> str | None:
    return None if question["answer"] in question["candidates"] else "the answer is none of the candidates"


def _egoschema_problem(question: Question) -> str | None:
    return None if str(question["answer"]) in set("01234") else f"answer {question['answer']!r} is not 0 to 4"


def _longvideobench_problem(question: Question) -> str | None:
    options = [question[f"option{number}"] for number in range(5)]
    right = question["correct_choice"]
    return None if right in range(5) and options[right] != "N/A" else f"correct_choice {right!r} is no option"


@dataclass(frozen=True)
class Benchmark:
    """One task of lmms-eval and where its data lies.

    Attributes:
        task: name for ``--tasks``; for MVBench the group.
        dataset: id on the hub, and folder below ``DIR/data``.
        revision: of the data set, as the task definition names it.
        configs: configurations of the data set; one per sub-task for MVBench.
        split: the split that is scored.
        videos: folder of the videos below ``DIR/hf``.
        columns: what the task's code reads from a question.
        questions: how many questions the whole benchmark has.
        video_count: how many videos these are about; None: not known here.
        title: its name in the tables.
        video: the column that names a question's video.
        endings: of the file's name behind that, the preferred one first.
        problem: why the task's code could not ask or score a question that has all columns, or None.
        hidden: columns that may be empty: answers that are not public.
        strata: category of the samples whose groups count alike in the score; empty: every question counts alike.
        hours: of video, by the benchmark's own paper; None: not known here.
    """

    task: str
    dataset: str
    revision: str
    configs: tuple[str, ...]
    split: str
    videos: str
    columns: tuple[str, ...]
    questions: int
    video_count: int | None
    title: str
    video: str
    endings: tuple[str, ...] = ("",)
    problem: Callable[[Question], str | None] = _no_problem
    hidden: tuple[str, ...] = ()
    strata: str = ""
    hours: float | None = None

    @property
    def page(self) -> str:
        """Where licence, access conditions and size are stated."""
        return f"https://huggingface.co/datasets/{self.dataset}"

    def question_folder(self, folder: Path) -> Path:
        """Where the question files lie below the folder of all data."""
        return folder / "data" / self.dataset

    def video_names(self, config: str, question: Question) -> tuple[str, ...]:
        """Paths below ``DIR/hf`` where the task looks for the question's video, the preferred one first."""
        folder = f"{self.videos}/{MVBENCH[config]}" if self.task == "mvbench" else self.videos
        return tuple(f"{folder}/{question[self.video]}{ending}" for ending in self.endings)

    def unscorable(self, question: Question) -> str | None:
        """Why the task's code could not ask or score a question, or None."""
        absent = [name for name in self.columns if question.get(name) is None and name not in self.hidden]
        return f"{', '.join(absent)} is absent" if absent else self.problem(question)


_EGOSCHEMA = ("video_idx", "question", "option", "answer")
BENCHMARKS = (
    Benchmark(
        "mvbench", "OpenGVLab/MVBench", "video", tuple(MVBENCH), "train", "mvbench_video",
        ("video", "question", "candidates", "answer"), 4000, None, "MVBench", "video", problem=_mvbench_problem,
    ),
    Benchmark(
        "egoschema_subset", "lmms-eval/egoschema", UNKNOWN, ("Subset",), "test", "egoschema/videos", _EGOSCHEMA,
        500, 500, "EgoSchema subset", "video_idx", (".mp4", ".MP4"), _egoschema_problem, hours=25,
    ),
    Benchmark(
        "egoschema", "lmms-eval/egoschema", UNKNOWN, ("GENERATION",), "test", "egoschema/videos", _EGOSCHEMA,
        5031, 5031, "EgoSchema", "video_idx", (".mp4", ".MP4"), hidden=("answer",), hours=250,
    ),
    Benchmark(
        "longvideobench_val_v", "longvideobench/LongVideoBench", UNKNOWN, ("default",), "validation",
        "datasets/longvideobench/videos",
        ("id", "question", *(f"option{number}" for number in range(5)), "correct_choice", "video_path",
         "duration_group", "question_category"),
        1337, None, "LongVideoBench", "video_path", problem=_longvideobench_problem,
    ),
    Benchmark(
        "videomme", "lmms-eval/Video-MME", UNKNOWN, ("default",), "test", "videomme/data",
        ("videoID", "question_id", "duration", "domain", "sub_category", "task_type", "question", "options", "answer"),
        2700, 900, "VideoMME", "videoID", (".mp4", ".MP4", ".mkv"),
        _allowed(
            duration=VIDEOMME_DURATIONS, domain=tuple(VIDEOMME_DOMAINS),
            sub_category=tuple(sub for subs in VIDEOMME_DOMAINS.values() for sub in subs), task_type=VIDEOMME_TASKS,
            answer=tuple("ABCD"),
        ), hours=254,
    ),
    Benchmark(
        "mlvu_dev", "sy1998/MLVU_dev", UNKNOWN, ("default",), "test", "mlvu",
        ("video_name", "question", "task_type", "answer"), 2174, None, "MLVU dev", "video_name",
        problem=_allowed(task_type=MLVU_TASKS, answer=tuple("ABCD")), strata="task_type",
    ),
    Benchmark(
        "lvbench", "lmms-eval/LVBench", UNKNOWN, ("default",), "train", "lvbench",
        ("video_path", "question", "answer"), 1549, 103, "LVBench", "video_path",
        problem=_allowed(answer=tuple("ABCD")), hours=117,
    ),
)  # fmt: skip
BY_TASK = {benchmark.task: benchmark for benchmark in BENCHMARKS}
PAPER_TASKS = ("mvbench", "egoschema_subset", "longvideobench_val_v", "videomme")


def chosen(tasks: Sequence[str]) -> list[Benchmark]:
    """The benchmarks of these task names, each once, in the order given.

    Raises:
        InputError: a name that is none of theirs.
    """
    for task in tasks:
        if task not in BY_TASK:
            raise InputError(f"{task!r} is no benchmark known here; name one or more of {', '.join(BY_TASK)}")
    return [BY_TASK[task] for task in dict.fromkeys(tasks)]
