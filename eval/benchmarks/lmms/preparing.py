"""Everything about a question before the model answers it: its words, its video, and where the stock model finds it."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from eval.benchmarks.lmms.answer_log import AnswerLog, Entry, Served
from eval.benchmarks.lmms.questions import stock_prompt, video_of
from eval.benchmarks.lmms.records import RecordFolder
from eval.benchmarks.lmms.reuse import ReusingSlot
from eval.benchmarks.lmms.videos import GivenPixels, ReadVideo, VideoReading, blank_pixels
from eval.benchmarks.setup import video_digest
from eval.instruments.fingerprints import digest
from llava.video import ReaderChoice, VideoClip, load_video


@dataclass(frozen=True, eq=False)
class LocatedRequest:
    """A request, its words and its video; ``error`` instead of what could not be found."""

    request: Any
    prompt: str = ""
    path: Path | None = None
    error: Exception | None = None


@dataclass(frozen=True, eq=False)
class Ready:
    """A question that can be answered: the entry of the log, or the video; neither if its tokens are kept."""

    sha256: str
    key: str
    logged: Entry | None = None
    video: ReadVideo | None = None


class Preparing:
    """The part of our models that looks questions up and reads their videos; :meth:`_prepare` runs in any thread."""

    stock_id: ClassVar[str]
    served: Served
    _log: AnswerLog
    _records: RecordFolder | None
    _slot: ReusingSlot
    _reading: VideoReading
    _video_reader: ReaderChoice
    _given: GivenPixels | None = None
    _clip: VideoClip | None = None

    def _set_up_reading(self, records: bool, plain: bool) -> VideoReading:
        """How videos are read; in the plain way the stock model makes pixel values of the pictures itself."""
        if plain:
            return VideoReading(None, True)
        processor: Any = self._image_processor  # type: ignore[has-type]
        self._given = self._image_processor = GivenPixels(processor)
        return VideoReading(processor.preprocess, records)

    def _look_up(self, request: Any) -> LocatedRequest:
        """Words and video of a request; in the thread that asks, which owns the harness' tasks."""
        _, _, _, doc_id, task, split = request.args
        doc = self.task_dict[task][split][doc_id]  # type: ignore[attr-defined]
        prompt = ""
        try:
            prompt = stock_prompt(request, doc, self.stock_id)
            return LocatedRequest(request, prompt, video_of(request, doc))
        except Exception as error:  # raised when the question's turn has come
            return LocatedRequest(request, prompt, error=error)

    def _prepare(self, question: LocatedRequest) -> Ready:
        """Everything before the model, by whichever thread reads.

        Raises:
            VideoError: the video cannot be used.
        """
        if question.error is not None:
            raise question.error
        _, kwargs, _, doc_id, task, split = question.request.args
        path = question.path
        assert path is not None
        sha256 = video_digest(path)
        key = digest([self.served.setup_key, task, split, doc_id, question.prompt, kwargs, sha256])
        logged = self._log.get(key)
        if logged is not None and (self._records is None or self._records.has(task, doc_id, key)):
            return Ready(sha256, key, logged)
        if self._slot.has((path, sha256)):
            return Ready(sha256, key)
        return Ready(sha256, key, video=self._reading.read((path, sha256), partial(self._load, path)))

    def _hand_over(self, path: Path, ready: Ready) -> VideoClip:
        """Put the video where the stock model asks for it: its frames, or in their stead its kept tokens."""
        kept = self._slot.find((path, ready.sha256))
        video = ready.video
        if kept is not None:
            side = self.model.get_vision_tower().config.image_size  # type: ignore[attr-defined]
            video = ReadVideo(kept.clip, blank_pixels(len(kept.clip.indices), side))
        elif video is None:  # forgotten since the question was prepared
            video = self._reading.fresh(partial(self._load, path))
        if kept is None:
            self._slot.expect(video.clip if self._records is not None else video.clip.without_pictures())
        self._clip = video.clip
        if self._given is not None and video.pixels is not None:
            self._given.give(video.clip.frames, video.pixels)
        return video.clip

    def _load(self, path: Path) -> VideoClip:
        frames = int(self.max_frames_num)  # type: ignore[attr-defined]
        return load_video(path, frames, self._video_reader, choose=self.choose_frames)

    @property
    def clip(self) -> VideoClip:
        """The clip of the question in hand."""
        assert self._clip is not None
        return self._clip

    def choose_frames(self, total_frames: int, fps: float) -> list[int]:
        """The stock model's choice of frames."""
        raise NotImplementedError
