"""What the app does with a request, apart from its page: one model, one question at a time."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from eval.benchmarks.rehearsal import rehearsal_overrides
from eval.demo.__main__ import TINY, check_frames
from eval.demo.output import draw
from eval.instruments.answering import Trial, VideoPrompt, answer, first_token_seconds
from eval.paper.grids import Point
from holitom import Compressor, InnerConfig
from holitom.methods import available_methods, method_config, share_settings
from holitom.settings import RunConfig, load_config, method_defaults
from holitom.shipped import CONFIGS
from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.errors import InputError
from llava.model.builder import load_pretrained_model
from llava.video import VideoClip, load_video

FULL = "all tokens"
OURS = "holitom"  # the method whose other settings the app offers
_TABLE = CONFIGS / "llava_onevision_7b"
_REPETITIONS = 1  # timed, behind one for warming up


@dataclass(frozen=True)
class DemoRequest:
    """One request.

    Attributes:
        video: path of the file.
        question: what to ask.
        method: name in the registry.
        retain_ratio: share of the visual tokens to keep, in (0, 1].
        similarity_threshold: of HoliTom's segmentation.
        merge_layer: of HoliTom's inner stage; 0 leaves it out.
        frames: sampled from the video.
        new_tokens: longest answer.
    """

    video: str | os.PathLike[str] | None
    question: str
    method: str = OURS
    retain_ratio: float = 0.15
    similarity_threshold: float = 0.8
    merge_layer: int = 0
    frames: int = 8
    new_tokens: int = 32


@dataclass(frozen=True)
class Reply:
    """What is shown.

    Attributes:
        rows: of all tokens and of the method, as :func:`eval.instruments.answering.answer` gives them.
        per_layer: visual tokens that each decoder layer computed with the method.
        settings: the method's, every field spelled out.
        segments: first and last frame of each segment, inclusive.
        picture: the token map.
        clip: what was read.
    """

    rows: list[Trial]
    per_layer: list[int]
    settings: dict[str, Any]
    segments: list[tuple[int, int]]
    picture: Path
    clip: VideoClip = field(repr=False)


def method_file(method: str) -> Path | None:
    """The configuration that a method's settings start from: its row of the main table at 15 %, or its only one.

    Returns:
        None where it has no file: its own defaults are what it starts from.

    Raises:
        InputError: for an unknown method.
    """
    method_config(method)
    files = (_TABLE / f"{name}.yaml" for name in (f"{method}_r15", method, f"{method}_r25"))
    return next((file for file in files if file.is_file()), None)


def own_shares() -> list[str]:
    """Methods whose share of the tokens a request does not set."""
    return [name for name in available_methods() if not share_settings(name, 0.5, 196)]


def methods_shown() -> list[str]:
    """All methods of the registry, HoliTom first."""
    return sorted(available_methods(), key=lambda name: (name != OURS, name))


def settings_of(asked: DemoRequest, tokens_per_frame: int) -> list[str]:
    """The assignments that a request makes in its method's file; methods with a schedule of their own take none."""
    ratio = float(asked.retain_ratio)
    if not 0 < ratio <= 1:
        raise InputError(f"retain_ratio = {ratio} is out of range: it must be in (0, 1]; 0.15 is usual")
    found = share_settings(asked.method, ratio, tokens_per_frame)
    if asked.method != OURS:
        return found
    inner = f"inner.merge_layer={int(asked.merge_layer)}" if asked.merge_layer else "inner=null"
    return [*found, f"outer.similarity_threshold={asked.similarity_threshold}", inner]


class Session:
    """One loaded checkpoint; requests wait for each other.

    Args:
        checkpoint: folder or hub id.

    Raises:
        InputError: if it cannot be loaded.
    """

    def __init__(self, checkpoint: str | os.PathLike[str] = TINY) -> None:
        self.checkpoint = str(checkpoint)
        self.tokenizer, self.model, self.processor, _ = load_pretrained_model(self.checkpoint, None, "llava_qwen")
        self._lock = threading.Lock()

    @property
    def layers(self) -> int:
        """Of the language model."""
        return int(self.model.config.num_hidden_layers)

    @property
    def usual_layer(self) -> int:
        """HoliTom's inner layer at the depth of this model."""
        return max(1, min(self.layers - 1, InnerConfig().layer_in(self.layers)))

    @cached_property
    def _scaled(self) -> dict[str, tuple[str, ...]]:
        """Layers of each method at the depth of this model."""
        if not (Path(self.checkpoint) / "config.json").is_file():  # a hub id: a published checkpoint
            return {}
        found = {}
        for method in methods_shown():
            file = method_file(method)
            changes = () if file is None else rehearsal_overrides(Point(file), Path(self.checkpoint))
            found[method] = tuple(change for change in changes if not change.startswith("model."))
        return found

    def config(self, asked: DemoRequest, tokens_per_frame: int) -> RunConfig:
        """The method with the settings of a request.

        Raises:
            InputError: for a setting out of range.
        """
        changes = [*self._scaled.get(asked.method, ()), *settings_of(asked, tokens_per_frame)]
        file = method_file(asked.method)
        config = method_defaults(asked.method, changes) if file is None else load_config(file, changes)
        if asked.method == OURS and asked.merge_layer >= self.layers:
            bound = f"at most {self.layers - 1} for {self.layers} layers, or 0 for no inner stage"
            raise InputError(f"merge_layer = {asked.merge_layer} is out of range: it must be {bound}")
        return config

    def ask(self, asked: DemoRequest, folder: Path) -> Reply:
        """Answer with all tokens and with the method; the token map is drawn into ``folder``.

        The model is left without a compressor, whatever happens.

        Raises:
            InputError: for a video that cannot be read, no question, or a setting out of range.
        """
        if asked.video is None:
            raise InputError("there is no video: choose a file")
        if not asked.question.strip() or DEFAULT_IMAGE_TOKEN in asked.question:
            raise InputError(f"the question is empty or contains {DEFAULT_IMAGE_TOKEN}: ask in words")
        check_frames(int(asked.frames))
        with self._lock:
            return self._answered(asked, folder)

    def _answered(self, asked: DemoRequest, folder: Path) -> Reply:
        clip = load_video(asked.video, int(asked.frames))  # type: ignore[arg-type]
        question = VideoPrompt(self.tokenizer, self.model, clip, self.processor, asked.question)
        config = self.config(asked, question.visual_tokens // len(clip.indices))
        compressor = config.build()
        assert compressor is not None
        seconds = first_token_seconds(question, [None, compressor], _REPETITIONS)
        length = SimpleNamespace(max_new_tokens=int(asked.new_tokens))
        named: tuple[tuple[str, Compressor | None], ...] = ((FULL, None), (asked.method, compressor))
        rows = [answer(question, name, one, time, length) for (name, one), time in zip(named, seconds, strict=True)]
        picture = folder / "token_map.png"
        segments = draw(clip, compressor, picture, f"{clip.path.name}: {asked.method}")
        per_layer = compressor.record.tokens_per_layer(self.layers)
        return Reply(rows, per_layer, config.as_dict()["compressor"], segments, picture, clip)


def told(reply: Reply) -> list[list[str]]:
    """The table of a reply: one line for all tokens, one for the method."""
    full = reply.rows[0]
    lines = []
    for row in reply.rows:
        assert row.seconds_to_first_token is not None
        assert full.seconds_to_first_token is not None
        share = row.tokens[1] / full.tokens[0]
        faster = full.seconds_to_first_token / row.seconds_to_first_token
        lines.append(
            [
                row.name,
                row.answer,
                f"{row.tokens[0]}",
                f"{row.tokens[1]} ({share:.1%})",
                f"{row.tokens[2]}",
                f"{1000 * row.tflops:.4g}",
                f"{1000 * row.seconds_to_first_token:.0f} ({faster:.2f}x)",
            ]
        )
    return lines


def as_text(reply: Reply) -> str:
    """Settings, segments and layers as JSON, to be looked at and kept."""
    said = {
        "settings": reply.settings,
        "segments": reply.segments,
        "visual_tokens_per_layer": reply.per_layer,
        "sampled_frames": list(reply.clip.indices),
        "reader": reply.clip.reader,
        "rows": [asdict(row) for row in reply.rows],
    }
    return json.dumps(said, indent=1)
