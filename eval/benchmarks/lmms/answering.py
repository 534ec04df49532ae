"""What our models add to lmms-eval's stock classes: a method, a log of answers, tokens per stage, videos read ahead."""

import copy
import inspect
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from eval.benchmarks.lmms.ahead import ahead, shares
from eval.benchmarks.lmms.answer_log import AnswerLog, Entry, Served
from eval.benchmarks.lmms.preparing import LocatedRequest, Preparing, Ready
from eval.benchmarks.lmms.questions import task_of, tokens_of
from eval.benchmarks.lmms.records import RecordFolder
from eval.benchmarks.lmms.reuse import KeptVideos, ReusingSlot
from eval.benchmarks.lmms.settings import run_config, stages_that_compress
from eval.benchmarks.lmms.vllm_engine import RUNTIME, check_engine, move_to_vllm
from eval.benchmarks.setup import setup_of
from eval.instruments.fingerprints import checkpoint_identity, digest, local_checkpoint
from eval.instruments.progress import progress
from holitom.compressor import Compressor
from holitom.run_facts import facts_of
from holitom.watching import watched
from llava.errors import InputError, VideoError
from llava.video import ReaderChoice, VideoClip

SCORING_SEED = 0  # of the harness' random guesses, set after the last answer: they depend on the answers alone
_PADDING = "__padding_only__"  # in the harness' metadata of a request that is there to make the processes' shares equal
_IDLE_QUESTIONS = 3  # so many without compression show that it is off


class ShareAnswered(Exception):
    """Ends the harness' evaluation where a process has answered its share: scores are made of all shares."""


class Answering(Preparing):
    """What both models add to their stock class; mixed in before it."""

    def __init__(
        self,
        pretrained: str,
        config: str | None = None,
        method: str | None = None,
        answers: str = "outputs/answers",
        on_bad_video: str = "stop",
        records: str | None = None,
        log: str | None = None,
        video_reader: ReaderChoice = "auto",
        reuse: bool = True,
        prefetch: int = 1,
        engine: str = RUNTIME,
        engine_args: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> None:
        """Load the checkpoint and put the method on.

        Args:
            pretrained: folder or hub id.
            config: a YAML file of ``configs/``.
            method: instead of a file: a method with its defaults, or "vanilla", which is also the default.
            answers: folder of the log of answers.
            on_bad_video: "stop" with an error, or "count" such videos and never answer about them.
            video_reader: of :func:`llava.video.load_video`; "decord-as-is" shows what the stock models see.
            log: name of the log's file for this process alone, see :class:`AnswerLog`.
            engine: "runtime" is this project's own; "vllm" runs the LLM, see :mod:`eval.benchmarks.lmms.vllm_engine`.
            engine_args: of ``vllm.LLM``.
            records: folder for the record of every question, or None to keep none.
            reuse: encode a video once for all its questions, where the method allows it (``question_free``).
            prefetch: videos that are read while the model answers; 0 reads each when its question comes. Neither
                changes an answer.
            **arguments: of the stock model, and settings of the method (``retain_ratio=0.15``).

        Raises:
            InputError: for a wrong argument, checkpoint or configuration.
        """
        stock = inspect.signature(super().__init__).parameters
        known = {name: value for name, value in arguments.items() if name in stock}
        run = run_config(config, method, {name: value for name, value in arguments.items() if name not in stock})
        self._check_arguments(pretrained, on_bad_video, known)
        if isinstance(prefetch, bool) or not isinstance(prefetch, int) or prefetch < 0:
            raise InputError(f"prefetch = {prefetch!r} is out of range: it must be an integer of at least 0")
        check_engine(engine, engine_args, run)
        known = {"max_frames_num": run.model.num_frames, "conv_template": run.model.conv_template, **known}
        if not torch.cuda.is_available():
            known = {"device_map": "auto", "device": "cpu", **known}
        self._on_bad_video = on_bad_video
        self._video_reader = video_reader
        identity = checkpoint_identity(local_checkpoint(pretrained))
        super().__init__(pretrained=pretrained, **known)  # type: ignore[call-arg]
        model: Any = self.model  # type: ignore[attr-defined]
        compressor = run.build() or Compressor(None, None)
        self._compressor = (compressor if records is None else watched(compressor)).apply(model)
        self._slot = model.visual_compressor = ReusingSlot(self._compressor, KeptVideos() if reuse else None)
        self._layers = int(model.config.num_hidden_layers)
        arguments = {**{name: value.default for name, value in stock.items()}, **known}
        setup = setup_of(model, self.stock_id, arguments, identity["weights_sha256"])
        setup["video_reader"] = video_reader  # other frames are other answers
        if engine != RUNTIME:
            setup |= move_to_vllm(model, local_checkpoint(pretrained), engine_args or {})
        settings = run.as_dict()
        setup_key = digest({**setup, "compressor": settings["compressor"]})
        self.served = Served(setup, setup_key, settings, identity)
        self.tasks: dict[str, Any] = {}
        self.share: tuple[int, int] | None = None  # number of this process and of all, to answer a share alone
        self.log = self._log = AnswerLog(Path(answers), int(os.environ.get("RANK", "0")), log)
        self._records = None if records is None else RecordFolder(Path(records), facts_of(run, pretrained))
        self._prefetch = prefetch
        self._reading = self._set_up_reading(records is not None, plain=not reuse and prefetch == 0)
        self._quiet = False

    def close(self) -> None:
        """Let another run write the log."""
        self._log.close()

    def _check_arguments(self, pretrained: str, on_bad_video: str, known: dict[str, Any]) -> None:
        if on_bad_video not in ("stop", "count"):
            raise InputError(f"on_bad_video = {on_bad_video!r} is unknown: it must be 'stop' or 'count'")
        if int(known.get("batch_size") or 1) != 1:
            raise InputError(f"batch_size = {known['batch_size']} is not supported: answers are made one by one, use 1")
        if known.get("video_decode_backend", "decord") != "decord":
            raise InputError(
                "video_decode_backend is not supported: set video_reader (auto, pyav, decord, decord-as-is)"
            )
        trigger = re.search("vicuna|yi", str(pretrained).lower())
        if self.stock_id == "llava_vid" and trigger:
            raise InputError(
                f"pretrained = {pretrained!r} contains {trigger[0]!r}, by which llava_vid knows models whose positions "
                "it rescales: rename the folder"
            )

    @property
    def rank(self) -> int:
        """Number of this process; while the stock model answers one request, one that draws no progress bar."""
        return -1 if self._quiet else self._rank  # type: ignore[attr-defined]

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Answer one request after the other; the text of a bad video is empty.

        Raises:
            ShareAnswered: when a process that answers a share has done so.
        """
        if self.share is not None:
            videos = [str(found.path or found.error) for found in map(self._look_up, requests)]
            rank, processes = self.share
            owners = shares(videos, processes)
            self._answer_all([request for request, owner in zip(requests, owners, strict=True) if owner == rank])
            raise ShareAnswered
        self._answer_all(requests)
        random.seed(SCORING_SEED)
        entries = (self.served.entries.get((request.args[4], request.args[3])) for request in requests)
        return ["" if entry is None or entry.answer is None else entry.answer for entry in entries]

    def _answer_all(self, requests: list[Any]) -> None:
        asked = {(request.args[4], request.args[3]): request for request in requests if not _is_padding(request)}
        new = [request for key, request in asked.items() if key not in self.served.entries]
        with closing(ahead(self._prepare, map(self._look_up, new), self._prefetch)) as coming:
            for request in progress(requests, "Questions", quiet=self.rank != 0):
                self._answer(request, coming)
        self._check_compressed(last=True)

    def _answer(self, request: Any, coming: Iterator[tuple[LocatedRequest, Callable[[], Ready]]]) -> None:
        """See that a request is answered; the harness repeats one to make the processes' shares equal."""
        task, doc_id = request.args[4], request.args[3]
        if (task, doc_id) in self.served.entries or _is_padding(request):
            return  # padding is another process' question, for one that has none of its own
        self.tasks[task] = task_of(request)
        self.served.entries[task, doc_id] = self._serve(*next(coming))
        self._check_compressed(last=False)

    def generate_until_multi_round(self, requests: list[Any]) -> list[str]:
        """Refused: rounds are not logged one by one."""
        raise InputError("tasks of several rounds are not supported: use a stock model")

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Refused: only generated answers are logged."""
        raise InputError("tasks scored by likelihood are not supported: use a stock model")

    def _serve(self, question: LocatedRequest, ready: Callable[[], Ready]) -> Entry:
        """The entry of one question: from the log, from the model, or a bad video that is counted."""
        _, _, _, doc_id, task, _ = question.request.args
        path = question.path
        start = time.perf_counter()
        try:
            found = ready()
            if found.logged is not None:
                self.served.resumed += 1
                return replace(found.logged, video=str(path))
            assert path is not None
            clip = self._hand_over(path, found)
        except VideoError as error:
            if self._on_bad_video == "stop":
                raise VideoError(f"{error} (task {task}, question {doc_id}; --on-bad-video count goes on)") from error
            named = str(path) if path is not None else str(error).partition(": ")[0]
            return Entry(task, doc_id, None, question.prompt, named, bad_video=str(error))
        text = self._generate(question.request, question.prompt, path, clip)
        entry = Entry(
            task,
            doc_id,
            found.key,
            question.prompt,
            str(path),
            found.sha256,
            text,
            tokens_of(self._compressor.record, self._layers),
            clip.reader,
            len(clip.indices),
            digest(clip.indices),
            time.perf_counter() - start,
        )
        if self._records is not None:  # before the answer: a logged answer has its record
            self._records.add(self._compressor.record, clip, entry)
        self._log.add(entry)
        self.served.computed += 1
        self.served.encoded = self._slot.encoded
        return entry

    def _generate(self, request: Any, prompt: str, path: Path, clip: VideoClip) -> str:
        """The stock model's answer about the frames read; an error unless all of them reached the model."""
        from lmms_eval.api.instance import Instance  # noqa: PLC0415

        _, kwargs, _, doc_id, task, split = request.args
        single = Instance(
            request_type="generate_until",
            arguments=(prompt, copy.deepcopy(kwargs), lambda doc: [str(path)], doc_id, task, split),
            idx=0,
            metadata=request.metadata,
        )
        self._compressor.start_prompt()  # so that a record of the question before cannot pass for this one
        self._quiet = True
        try:
            [text] = super().generate_until([single])  # type: ignore[misc]
        finally:
            self._quiet = False
        seen = [video.details.frames for video in self._compressor.record.videos]
        if seen != [len(clip.indices)]:  # the stock models answer without a video when one cannot be prepared
            raise InputError(f"{path}: the model was given {seen} frames instead of {len(clip.indices)} (task {task})")
        return text

    def _check_compressed(self, last: bool) -> None:
        """Fail when a stage that must leave tokens out has left out none in any question."""
        tokens = [entry.tokens for entry in self.served.entries.values() if entry.tokens is not None]
        if not tokens or (not last and len(tokens) != _IDLE_QUESTIONS):
            return
        seen = {
            "outer": any(count["before_llm"] < count["before"] for count in tokens),
            "inner": any(count["inside_llm"] < count["before_llm"] for count in tokens),
        }
        frames = [entry.frames for entry in self.served.entries.values() if entry.frames]
        asked = stages_that_compress(self._compressor, frames[0], int(tokens[0]["before"]) // frames[0])
        for stage in asked:
            if not seen[stage]:
                settings = self.served.config["compressor"]
                what = f"by the {stage} stage, though {settings} asks for it"
                raise InputError(f"nothing was compressed in {len(tokens)} question(s) {what}")


def _is_padding(request: Any) -> bool:
    return bool((request.metadata or {}).get(_PADDING))
