"""What is asked: a video, a question, a method; and by what two videos are the same."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from holitom.errors import InputError
from holitom.serving.served_methods import Method

if TYPE_CHECKING:
    from llava.video import VideoClip

_NO_FILE = Path("<frames>")


@dataclass(frozen=True, eq=False)
class VideoRequest:
    """One question about one video.

    Attributes:
        video: a file; frames that were sampled already, uint8 RGB (frames, height, width, 3); or a clip of
            :func:`llava.video.load_video`, which LLaVA-Video needs in place of frames since it is told their times.
        question: the user's words.
        method: see :func:`holitom.serving.served_methods.served_method`; None is vanilla.
        num_frames: sampled from a file; by default the row's, and without a row what the checkpoint was made for.
    """

    video: str | os.PathLike[str] | np.ndarray | VideoClip
    question: str
    method: Method = None
    num_frames: int | None = None


def frame_count(request: VideoRequest, default: int) -> int:
    """Frames of a request's video.

    Args:
        request: whose ``num_frames`` goes first; frames that are there already are as many as they are.
        default: what to sample from a file otherwise.

    Raises:
        InputError: if the request wants another number than its frames are.
    """
    if isinstance(request.video, str | os.PathLike):
        return default if request.num_frames is None else request.num_frames
    there = len(_frames_of(request.video))
    if request.num_frames not in (None, there):
        raise InputError(f"num_frames = {request.num_frames} for {there} frames: it is for files alone, leave it out")
    return there


def video_key(video: str | os.PathLike[str] | np.ndarray | VideoClip, num_frames: int) -> Hashable:
    """Equal for what the tower would see as one video: a file by its place, size and time, frames by their content.

    Raises:
        VideoError: if the file is absent or cannot be read.
    """
    if isinstance(video, str | os.PathLike):
        from llava.video_files import check_file  # noqa: PLC0415

        path = check_file(Path(video)).resolve()
        stat = path.stat()
        return str(path), stat.st_size, stat.st_mtime_ns, num_frames
    frames = np.ascontiguousarray(_frames_of(video))
    return frames.shape, hashlib.sha256(frames.data).hexdigest()


def _frames_of(video: np.ndarray | VideoClip) -> np.ndarray:
    frames = video if isinstance(video, np.ndarray) else getattr(video, "frames", None)
    if not isinstance(frames, np.ndarray):
        raise InputError(f"a video of type {type(video).__name__} is not supported: pass a file, frames or a clip")
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise InputError(
            f"frames of shape {frames.shape}, type {frames.dtype}: they must be uint8 RGB, (frames, height, width, 3)"
        )
    return frames


def read_clip(video: str | os.PathLike[str] | np.ndarray | VideoClip, num_frames: int) -> VideoClip:
    """The frames of a video with what is known of their times; of bare frames nothing is.

    Raises:
        VideoError: if a file cannot be read.
    """
    from llava.video import VideoClip, load_video  # noqa: PLC0415

    if isinstance(video, str | os.PathLike):
        return load_video(video, num_frames)
    if isinstance(video, VideoClip):
        return video
    count = len(_frames_of(video))
    return VideoClip(video, tuple(range(count)), count, 0.0, 0.0, "frames", _NO_FILE)
