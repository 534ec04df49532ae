"""All configurations of a latency benchmark on one model: runs taken in turn, and the rows made from them."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eval.efficiency.latency.clips import ClipSource, draw_clip
from eval.efficiency.latency.run import (
    STAGES,
    Prompt,
    Timing,
    decode_ms,
    make_prompt,
    random_ids,
    run_once,
    token_counts,
)
from eval.efficiency.sheets import OWN_STAGES
from eval.instruments.answering import prompt_ids
from eval.instruments.measure import interleaved, spread, timed
from eval.instruments.models.geometries import check_sizes, random_model
from holitom import Compressor
from llava.errors import InputError
from llava.model.builder import DTYPES, load_pretrained_model
from llava.model.checkpoint import read_config
from llava.model.static_decoding import IdleDecoder
from llava.model.visual_inputs import VisualEncoder
from llava.video import VideoClip, load_video
from llava.video_prompt import video_question

_QUESTION = "What happens in this video?"
_SHARED = ("video", "preprocess")  # what all configurations have in common
_ALIKE = 0.8  # the paper's threshold of similarity


@contextmanager
def progress(total: int, text: str) -> Iterator[Callable[[], None]]:
    """A bar on a terminal, where rich is installed; yields what moves it one step."""
    if importlib.util.find_spec("rich") is None:
        yield lambda: None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import Progress  # noqa: PLC0415

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(text, total=total)
        yield partial(bar.advance, task)


@dataclass(frozen=True)
class _Seen:
    """What the first answer of a configuration showed: its tokens, and its peak memory in 1e6 bytes."""

    counts: dict[str, int | None]
    peak_memory_mb: float | None


class LatencyBench:
    """All configurations on one model.

    Args:
        options: the command line.
        configs: by name of the row, (file, configuration).

    Attributes:
        clips: what was seen of each clip: name, redundancy, and the share of features alike in neighbouring frames.
    """

    def __init__(self, options: argparse.Namespace, configs: Mapping[str, tuple[Path, Any]]) -> None:
        self.options = options
        self.files = {name: path for name, (path, _) in configs.items()}
        self.methods = {name: config.method for name, (_, config) in configs.items()}
        self.compressors: dict[str, Compressor | None] = {name: config.build() for name, (_, config) in configs.items()}
        self.vanilla = next((name for name, built in self.compressors.items() if built is None), None)
        self.clips: list[dict[str, Any]] = []
        self.tokenizer: Any = None
        if options.checkpoint is None:
            make = (options.geometry, options.device, DTYPES[options.dtype], options.seed, options.attention)
            self.model = random_model(*make)
        else:
            check_sizes(read_config(options.checkpoint), options.geometry, options.checkpoint)
            self.tokenizer, self.model, _, _ = load_pretrained_model(
                options.checkpoint,
                device_map=options.device,
                torch_dtype=options.dtype,
                attn_implementation=options.attention,
            )
        self.processor = self.model.get_vision_tower().image_processor

    def preprocess(self, clip: VideoClip) -> Tensor:
        """(frames, 3, side, side) on the model's device, in its type."""
        pixels = self.processor.preprocess(clip.frames, return_tensors="pt")["pixel_values"]
        return pixels.to(self.model.device, self.model.dtype)

    def prompt(self, clip: VideoClip) -> Prompt:
        """The same question about every clip; random ids where there is no tokenizer."""
        if self.tokenizer is None:
            ids = random_ids(self.model.config.vocab_size)
        else:
            ids = prompt_ids(self.tokenizer, video_question(_QUESTION, clip, self.model.config))
        return make_prompt(self.model, ids, self.preprocess(clip))

    def rows(self, source: ClipSource) -> list[dict[str, Any]]:
        """One row per configuration on one clip.

        Raises:
            InputError: if the clip cannot be read, a setting does not fit the model, or a method compressed nothing.
        """
        options = self.options

        def read() -> VideoClip:
            if source.file is None:
                return draw_clip(options.frames, source.redundancy or 0.0)
            return load_video(source.file, options.frames)

        clip = read()
        prompt = self.prompt(clip)
        parts: dict[str, Callable[[], Any]] = {"preprocess": partial(timed, partial(self.preprocess, clip))}
        if source.file is not None:
            parts["video"] = partial(timed, read)
        runs: dict[tuple[str, str], Callable[[], Any]] = {("part", part): work for part, work in parts.items()}
        seen: dict[str, _Seen] = {}
        with progress(len(self.compressors) * (options.repetitions + 1), source.name) as step:
            runs |= {("config", name): partial(self._run, name, prompt, seen, step) for name in self.compressors}
            found = interleaved(runs, options.repetitions)
        self.clips.append({**source.as_dict(), "features_alike": self.features_alike(prompt)})
        shared = {part: [1e3 * seconds for seconds in found["part", part]] for part in parts}
        rows = [self.row(name, source, seen[name], shared, found["config", name]) for name in self.compressors]
        decoded = self.decode(prompt)
        for row in rows:
            row["decode"] |= {way: decoded.get((row["config"], way)) for way in options.decoding}
        base = next((row for row in rows if row["config"] == self.vanilla), None)
        for row in rows:
            row["against_vanilla"] = None if base is None else against(row, base)
        return rows

    def _run(self, name: str, prompt: Prompt, seen: dict[str, _Seen], step: Callable[[], None]) -> Timing:
        """One answer; the first of each configuration takes the peak memory, all others must keep as many tokens."""
        compressor = self.compressors[name]
        found = run_once(self.model, prompt, compressor, self.options.new_tokens, name not in seen)
        counts = token_counts(prompt, compressor, self.model.config.num_hidden_layers, name)
        first = seen.setdefault(name, _Seen(counts, found.peak_memory_mb))
        assert first.counts == counts, f"{name} kept {first.counts} tokens and then {counts}"
        step()
        return found

    def row(
        self, name: str, source: ClipSource, seen: _Seen, shared: Mapping[str, list[float]], timings: list[Timing]
    ) -> dict[str, Any]:
        """What one configuration gave on one clip, without the comparison."""
        stages: dict[str, Any] = {part: spread(shared[part]) if part in shared else None for part in _SHARED}
        for stage in STAGES:
            values = [timing.stages_ms[stage] for timing in timings if stage in timing.stages_ms]
            stages[stage] = spread(values) if values else None
        stages["time_to_first_token"] = spread([timing.first_token_ms for timing in timings])
        later = [timing.per_token_ms for timing in timings if timing.per_token_ms is not None]
        stages["time_per_output_token"] = spread(later) if later else None
        return {
            "config": name,
            "file": str(self.files[name]),
            "method": self.methods[name],
            "clip": source.name,
            "tokens": seen.counts,
            "stages_ms": stages,
            "tokens_per_second": spread([1e3 / ms for ms in later]) if later else None,
            "peak_memory_mb": seen.peak_memory_mb,
            "decode": {"eager": stages["time_per_output_token"], "static": None, "graphs": None},
        }

    def decode(self, prompt: Prompt) -> dict[tuple[str, str], dict[str, float]]:
        """Milliseconds per later token by configuration and other way of decoding; absent where a method refuses it.

        Every configuration has a decoder of its own, whose tensors and graphs are made in a warm-up: one for all would
        be made anew whenever the next configuration has its turn.
        """
        model, tokens = self.model, self.options.new_tokens
        kept, before = {name: IdleDecoder() for name in self.compressors}, model.idle_decoder

        def run(name: str, way: str) -> float:
            model.idle_decoder = kept[name]
            return decode_ms(model, prompt, self.compressors[name], tokens, way)

        runs: dict[tuple[str, str], Callable[[], float]] = {}
        try:
            for name, way in product(self.compressors, self.options.decoding):
                try:
                    run(name, way)
                except InputError as error:
                    print(f"{name}, decoding={way}: {error}", file=sys.stderr)
                else:
                    runs[name, way] = partial(run, name, way)
            return {key: spread(found) for key, found in interleaved(runs, self.options.repetitions).items()}
        finally:
            model.idle_decoder = before

    @torch.no_grad()
    def features_alike(self, prompt: Prompt) -> float | None:
        """Share of the tokens whose cosine similarity to the next frame's is above 0.8; None for a single frame."""
        if prompt.pixels.shape[0] < 2:
            return None
        encoder = VisualEncoder(self.model.get_model(), self.model.config, None)
        features = encoder.encode_frames(prompt.pixels).float()
        return round((torch.cosine_similarity(features[1:], features[:-1], dim=-1) > _ALIKE).float().mean().item(), 4)


def against(row: dict[str, Any], base: dict[str, Any]) -> dict[str, float | None]:
    """A row beside the one without compression: above 1 is better; the overhead is a share of its first token."""

    def median(of: dict[str, Any], stage: str) -> float | None:
        value = of["stages_ms"][stage]
        return None if value is None else value["median"]

    def ratio(numerator: float | None, denominator: float | None) -> float | None:
        return None if not numerator or not denominator else round(numerator / denominator, 4)

    own = sum(median(row, stage) or 0.0 for stage in OWN_STAGES)
    first, each = "time_to_first_token", "time_per_output_token"
    return {
        first: ratio(median(base, first), median(row, first)),
        each: ratio(median(base, each), median(row, each)),
        "tokens_per_second": ratio(
            *(None if one["tokens_per_second"] is None else one["tokens_per_second"]["median"] for one in (row, base))
        ),
        "overhead": round(own / (median(base, first) or 1.0), 5),
        "peak_memory": ratio(base["peak_memory_mb"], row["peak_memory_mb"]),
    }
