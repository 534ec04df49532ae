"""Video file -> uniformly sampled frames: the right ones, or an error.

PyAV reads: every frame by its presentation time, one seek per group of pictures in MP4 and Matroska where the packets
tell all times, in order from the start elsewhere. The decoder stops at the first error. Damage lies in the data, so no
fact known before decoding can prove a reader that conceals errors. decord does, and it also shows other frames where it
meets B frames in AVI, hidden frames, open groups, edit lists or MPEG-TS. It therefore reads only when it is asked for:

* ``reader="decord"``: decord's pictures, refused unless they are the file's own (checked against PyAV's);
* ``reader="decord-as-is"``: whatever decord shows, as the field's evaluation harness sees it, to reproduce a published
  score; ``clip.reader`` and ``clip.exact`` say so.

torchcodec is not used: its wheels (0.17) take FFmpeg's libraries from the system, which a bare machine lacks and PyAV's
wheels hold.

    clip = load_video("talk.mp4", num_frames=32)
    clip.frames.shape, clip.indices, clip.reader
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from llava.errors import InputError, VideoError
from llava.video_decoding import where_damaged
from llava.video_files import RECOPY, check_file
from llava.video_probe import probe_track
from llava.video_readers import (
    MAX_FRAMES,
    FrameChoice,
    SampledFrames,
    read_with_decord,
    read_with_pyav,
    uniform_indices,
)

__all__ = ["MAX_FRAMES", "ReaderChoice", "VideoClip", "load_video", "uniform_indices"]

ReaderChoice = Literal["auto", "pyav", "decord", "decord-as-is"]

# FFmpeg's scaler and threads differ by a few levels between builds; another frame, or a concealed part, by far more
_SAME_PICTURE = 6.0  # mean absolute difference over any block of 16 x 16 pixels, of 255


@dataclass(frozen=True, eq=False)
class VideoClip:
    """Frames sampled from one video file.

    Attributes:
        frames: uint8 RGB pictures, upright, (num_frames, height, width, 3).
        indices: which frame of the video each picture is, ascending; an index repeats when the video is shorter.
        total_frames: how many frames the video shows.
        fps: frames per second on average (exact for a constant rate).
        duration: seconds from the first frame's start to the last frame's end.
        reader: who decoded the frames: "pyav", "decord" or "decord-as-is".
        path: the file.
        exact: whether the frames are known to be those the indices name; False for "decord-as-is" alone.
    """

    frames: np.ndarray
    indices: tuple[int, ...]
    total_frames: int
    fps: float
    duration: float
    reader: str
    path: Path
    exact: bool = True

    def without_pictures(self) -> VideoClip:
        """What the clip says of itself, to be kept when its pictures are gone; ``frames`` keeps their size."""
        return replace(self, frames=self.frames[:0].copy())


def load_video(
    path: str | os.PathLike[str],
    num_frames: int = 32,
    reader: ReaderChoice = "auto",
    choose: FrameChoice | None = None,
) -> VideoClip:
    """Sample ``num_frames`` frames uniformly, first and last included, as the LLaVA-OneVision evaluation does.

    A file that is damaged in the part that is read is refused: no frame is ever repeated or guessed in the place of a
    missing one. A cut MPEG-TS file cannot be told from a whole one, because that format states no length; nor can
    damage that decodes without an error, because most formats carry no checksums (Matroska's are compared, and counters
    and sizes that must add up in it, in AVI and in MPEG-TS; what is left is measured by ``tests/fuzz_videos.py``).

    Args:
        path: a local video file of any container and codec the installed readers know.
        num_frames: how many frames to return, 1 to ``MAX_FRAMES``.
        reader: "auto" is "pyav"; "decord" is checked against it; "decord-as-is" is what the field's harness sees.
        choose: another rule than the uniform one: (total_frames, fps) to ascending frame indices below total_frames.

    Returns:
        The frames, upright (a phone's rotation is applied), with their indices and the video's length.

    Raises:
        VideoError: the file is absent, unreadable, empty, without video, damaged, too large, names other files, or is
            beyond the chosen reader.
        InputError: ``num_frames`` or ``reader`` is out of range, or the package needed is not installed.
    """
    _check_arguments(num_frames, reader)
    rule = choose or (lambda total, fps: uniform_indices(total, num_frames))
    file = check_file(Path(path))
    track = probe_track(file)
    if reader == "decord-as-is":
        return _clip(read_with_decord(file, rule, track), reader, file, exact=False)
    if track.damage is not None:
        raise VideoError(f"{file}: {track.damage}{where_damaged(file, track)}; {RECOPY}")
    sampled = read_with_pyav(file, rule, track)
    if reader != "decord":
        return _clip(sampled, "pyav", file)
    shown = read_with_decord(file, rule, track)
    _check_same(file, shown, sampled)
    rates = SampledFrames(shown.frames, shown.indices, sampled.total_frames, sampled.fps, sampled.duration)
    return _clip(rates, "decord", file)


def _check_arguments(num_frames: int, reader: str) -> None:
    if isinstance(num_frames, bool) or not isinstance(num_frames, int | np.integer) or num_frames < 1:
        raise InputError(f"num_frames is {num_frames!r}; it must be a whole number of at least 1")
    if num_frames > MAX_FRAMES:
        raise InputError(f"num_frames is {num_frames}; it must be at most {MAX_FRAMES}")
    if reader not in get_args(ReaderChoice):
        raise InputError(f"reader is {reader!r}; it must be one of {', '.join(get_args(ReaderChoice))}")
    packages = ["av"] if reader in {"auto", "pyav"} else ["decord", "av"]
    missing = [package for package in packages if not _installed(package)]
    if missing:
        lacking = " and ".join(missing)
        raise InputError(f"reader={reader!r} needs {lacking}, not installed here: pip install 'holitom[video]'")


def _check_same(file: Path, shown: SampledFrames, exact: SampledFrames) -> None:
    """Refuse decord's pictures unless they are the file's own."""
    remedy = "use reader='pyav', or 'decord-as-is' to take them as they are"
    if shown.total_frames != exact.total_frames:
        counts = f"decord counts {shown.total_frames} frames where the file shows {exact.total_frames}"
        raise VideoError(f"{file}: {counts}; {remedy}")
    if shown.frames.shape != exact.frames.shape:
        raise VideoError(f"{file}: decord's pictures have another size or lie on their side; {remedy}")
    for index, ours, theirs in zip(exact.indices, exact.frames, shown.frames, strict=True):
        if not _same_picture(ours, theirs):
            raise VideoError(f"{file}: decord shows another picture than frame {index}; {remedy}")


def _same_picture(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether no block of 16 x 16 pixels differs visibly; pictures are uint8, (height, width, 3)."""
    apart = np.maximum(one, other) - np.minimum(one, other)
    rows, columns = (np.arange(0, size, 16) for size in apart.shape[:2])
    sums = np.add.reduceat(np.add.reduceat(apart.sum(-1, dtype=np.int64), rows, 0), columns, 1)
    areas = np.diff([*rows, apart.shape[0]])[:, None] * np.diff([*columns, apart.shape[1]])
    return bool((sums / (3 * areas)).max() <= _SAME_PICTURE)


def _clip(sampled: SampledFrames, reader: str, file: Path, exact: bool = True) -> VideoClip:
    return VideoClip(
        frames=sampled.frames,
        indices=tuple(sampled.indices),
        total_frames=sampled.total_frames,
        fps=sampled.fps,
        duration=sampled.duration,
        reader=reader,
        path=file,
        exact=exact,
    )


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
