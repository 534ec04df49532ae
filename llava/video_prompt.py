"""How a checkpoint family wants to be shown a video: frames, and words about time in the prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.errors import InputError
from llava.video import VideoClip


@dataclass(frozen=True)
class VideoDefaults:
    """What a checkpoint was made for.

    Attributes:
        num_frames: frames sampled from a video.
        time_instruction: whether the prompt tells length and frame times.
    """

    num_frames: int
    time_instruction: bool


def video_defaults(config: Any) -> VideoDefaults:
    """The family's defaults, read from a checkpoint's configuration.

    Newlines in a grid are the mark of LLaVA-Video: 64 frames and the time instruction, as it was trained and published;
    without them it is LLaVA-OneVision: 32 frames and no such words. ``add_time_instruction``, which LLaVA-Video's
    training writes into the configuration, decides where it is set.

    Args:
        config: a configuration with LLaVA's keys.
    """
    grid = getattr(config, "mm_newline_position", None) == "grid"
    instruction = getattr(config, "add_time_instruction", None)
    return VideoDefaults(64 if grid else 32, grid if instruction is None else bool(instruction))


def time_instruction(duration: float, times: Sequence[float]) -> str:
    """The sentence LLaVA-Video was trained with; it stands between the video and the question.

    Args:
        duration: of the video in seconds.
        times: of the sampled frames, in seconds.

    Raises:
        InputError: without frames.
    """
    if not times:
        raise InputError("the time instruction names the frames' times, and there is none: sample at least 1 frame")
    places = ",".join(f"{time:.2f}s" for time in times)
    return (
        f"The video lasts for {duration:.2f} seconds, and {len(times)} frames are uniformly sampled from it. "
        f"These frames are located at {places}.Please answer the following questions related to this video."
    )


def clip_instruction(clip: VideoClip) -> str:
    """:func:`time_instruction` of a clip: its frame numbers by its average rate.

    Raises:
        InputError: if the clip has no rate, so that times are unknown.
    """
    if clip.fps <= 0:
        raise InputError(f"{clip.path}: its frame rate is {clip.fps}, so frame times are unknown; name another video")
    return time_instruction(clip.total_frames / clip.fps, [index / clip.fps for index in clip.indices])


def video_question(text: str, clip: VideoClip, config: Any) -> str:
    """The user's turn of a prompt: the placeholder of the video, the time instruction if there is one, the question.

    Args:
        text: the question.
        clip: the video, for its times.
        config: of the checkpoint, see :func:`video_defaults`.
    """
    parts = [DEFAULT_IMAGE_TOKEN, text]
    if video_defaults(config).time_instruction:
        parts.insert(1, clip_instruction(clip))
    return "\n".join(parts)
