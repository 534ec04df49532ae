"""What each family is shown of a video: number of frames, and the sentence about time."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from eval.instruments.models.random_checkpoint import tiny_config
from llava.errors import InputError
from llava.video import VideoClip
from llava.video_prompt import VideoDefaults, clip_instruction, time_instruction, video_defaults, video_question


def clip(indices: tuple[int, ...], total: int, fps: float) -> VideoClip:
    frames = np.zeros((len(indices), 2, 2, 3), np.uint8)
    return VideoClip(frames, indices, total, fps, total / fps if fps else 0.0, "pyav", Path("a.mp4"))


def test_the_sentence_is_the_one_the_checkpoint_was_trained_with() -> None:
    assert time_instruction(12.3456, [0.0, 4.111, 12.2996]) == (
        "The video lasts for 12.35 seconds, and 3 frames are uniformly sampled from it. "
        "These frames are located at 0.00s,4.11s,12.30s.Please answer the following questions related to this video."
    )


def test_times_of_a_clip_are_its_frame_numbers_by_its_rate() -> None:
    text = clip_instruction(clip((0, 15, 29), total=30, fps=10.0))
    assert "lasts for 3.00 seconds, and 3 frames" in text
    assert "located at 0.00s,1.50s,2.90s." in text


@pytest.mark.parametrize(
    ("config", "want"),
    [
        ({}, (32, False)),
        ({"mm_newline_position": "one_token"}, (32, False)),
        ({"mm_newline_position": "grid"}, (64, True)),
        ({"mm_newline_position": "grid", "add_time_instruction": None}, (64, True)),
        ({"mm_newline_position": "grid", "add_time_instruction": False}, (64, False)),
        ({"mm_newline_position": "one_token", "add_time_instruction": True}, (32, True)),
        (tiny_config(), (32, False)),
        (tiny_config(layout="llava-video"), (64, True)),
    ],
)
def test_defaults_of_a_family_come_from_its_configuration(config: dict, want: tuple[int, bool]) -> None:
    assert video_defaults(SimpleNamespace(**config)) == VideoDefaults(*want)


def test_where_the_sentence_stands() -> None:
    shown = clip((0, 9), total=10, fps=5.0)
    assert video_question("Why?", shown, SimpleNamespace()) == "<image>\nWhy?"
    video = video_question("Why?", shown, SimpleNamespace(mm_newline_position="grid"))
    assert video == f"<image>\n{clip_instruction(shown)}\nWhy?"


def test_what_cannot_be_said() -> None:
    with pytest.raises(InputError, match="at least 1 frame"):
        time_instruction(1.0, [])
    with pytest.raises(InputError, match=r"frame rate is 0\.0"):
        clip_instruction(clip((0,), total=1, fps=0.0))
