"""The paper's four benchmarks as the task definitions of lmms-eval 0.7.3 read them: folders, columns, sizes, lists.

Everything lies below one folder (``--data DIR``): the question files in ``DIR/data/<dataset id>``, where the harness
finds them before it asks the hub, and the videos in ``DIR/hf``, which becomes ``HF_HOME``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    @property
    def page(self) -> str:
        """Where licence, access conditions and size are stated."""
        return f"https://huggingface.co/datasets/{self.dataset}"

    def question_folder(self, folder: Path) -> Path:
        """Where the question files lie below the folder of all data."""
        return folder / "data" / self.dataset

    def video_names(self, config: str, question: Mapping[str, Any]) -> tuple[str, ...]:
        """Paths below ``DIR/hf`` where the task looks for the question's video, the preferred one first."""
        if self.task == "mvbench":
            return (f"{self.videos}/{MVBENCH[config]}/{question['video']}",)
        if self.task == "longvideobench_val_v":
            return (f"{self.videos}/{question['video_path']}",)
        stem = question["videoID"] if self.task == "videomme" else question["video_idx"]
        endings = ("mp4", "MP4", "mkv") if self.task == "videomme" else ("mp4", "MP4")
        return tuple(f"{self.videos}/{stem}.{ending}" for ending in endings)


_EGOSCHEMA = ("video_idx", "question", "option", "answer")
BENCHMARKS = (
    Benchmark(
        "mvbench", "OpenGVLab/MVBench", "video", tuple(MVBENCH), "train", "mvbench_video",
        ("video", "question", "candidates", "answer"), 4000, None, "MVBench",
    ),
    Benchmark(
        "egoschema_subset", "lmms-eval/egoschema", UNKNOWN, ("Subset",), "test", "egoschema/videos", _EGOSCHEMA,
        500, 500, "EgoSchema subset",
    ),
    Benchmark(
        "egoschema", "lmms-eval/egoschema", UNKNOWN, ("GENERATION",), "test", "egoschema/videos", _EGOSCHEMA,
        5031, 5031, "EgoSchema",
    ),
    Benchmark(
        "longvideobench_val_v", "longvideobench/LongVideoBench", UNKNOWN, ("default",), "validation",
        "datasets/longvideobench/videos",
        ("id", "question", *(f"option{number}" for number in range(5)), "correct_choice", "video_path",
         "duration_group", "question_category"),
        1337, None, "LongVideoBench",
    ),
    Benchmark(
        "videomme", "lmms-eval/Video-MME", UNKNOWN, ("default",), "test", "videomme/data",
        ("videoID", "question_id", "duration", "domain", "sub_category", "task_type", "question", "options", "answer"),
        2700, 900, "VideoMME",
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
