"""All configurations of a latency benchmark on one model: runs taken in turn, and the rows made from them."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eval.answering import prompt_ids
from eval.geometries import geometry_config, random_model
from eval.latency_clips import ClipSource, draw_clip
from eval.latency_run import (
    OWN_STAGES,
    STAGES,
    Prompt,
    Timing,
    decode_ms,
    make_prompt,
    random_ids,
    run_once,
    token_counts,
)
from eval.measure import interleaved, spread, timed
from holitom import Compressor
from llava.errors import InputError
from llava.model.builder import load_pretrained_model
from llava.model.checkpoint import read_config
from llava.model.visual_inputs import VisualEncoder
from llava.video import VideoClip, load_video
from llava.video_prompt import video_question

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_QUESTION = "What happens in this video?"
_SAME_SIZES = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "mm_newline_position", "mm_spatial_pool_mode",
)  # fmt: skip
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
                options.checkpoint, device_map=options.device, torch_dtype=options.dtype,
                attn_implementation=options.attention,
            )  # fmt: skip
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
        counts: dict[str, dict[str, int | None]] = {}
        peaks: dict[str, float | None] = {}
        parts: dict[str, Callable[[], Any]] = {"preprocess": partial(timed, partial(self.preprocess, clip))}
        if source.file is not None:
            parts["video"] = partial(timed, read)
        with progress(len(self.compressors) * (options.repetitions + 1), source.name) as step:

            def run(name: str) -> Timing:
                found = run_once(self.model, prompt, self.compressors[name], options.new_tokens, name not in counts)
                seen = token_counts(prompt, self.compressors[name], self.model.config.num_hidden_layers, name)
                peaks.setdefault(name, found.peak_memory_mb)
                assert counts.setdefault(name, seen) == seen, f"{name} kept {counts[name]} tokens and then {seen}"
                step()
                return found

            runs: dict[tuple[str, str], Callable[[], Any]] = {("part", part): work for part, work in parts.items()}
            runs |= {("config", name): partial(run, name) for name in self.compressors}
            found = interleaved(runs, options.repetitions)
        self.clips.append({**source.as_dict(), "features_alike": self.features_alike(prompt)})
        shared = {part: [1e3 * seconds for seconds in found["part", part]] for part in parts}
        decoded = {name: {way: self.decode(name, prompt, way) for way in options.decoding} for name in counts}
        rows = [self.row(name, source, counts[name], peaks[name], shared, found["config", name]) for name in counts]
        for row in rows:
            row["decode"] |= decoded[row["config"]]
        base = next((row for row in rows if row["config"] == self.vanilla), None)
        for row in rows:
            row["against_vanilla"] = None if base is None else against(row, base)
        return rows

    def row(
        self, name: str, source: ClipSource, counts: dict[str, int | None], peak: float | None,
        shared: Mapping[str, list[float]], timings: list[Timing],
    ) -> dict[str, Any]:  # fmt: skip
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
            "tokens": counts,
            "stages_ms": stages,
            "tokens_per_second": spread([1e3 / ms for ms in later]) if later else None,
            "peak_memory_mb": peak,
            "decode": {"eager": stages["time_per_output_token"], "static": None, "graphs": None},
        }

    def decode(self, name: str, prompt: Prompt, way: str) -> dict[str, float] | None:
        """Milliseconds per later token in another way of decoding; None if the method refuses it.

        The repetitions of a configuration follow each other: tensors and graphs are kept for the next prompt alike, and
        are made in the warm-up.
        """
        run = partial(decode_ms, self.model, prompt, self.compressors[name], self.options.new_tokens, way)
        try:
            run()
        except InputError as error:
            print(f"{name}, decoding={way}: {error}", file=sys.stderr)
            return None
        return spread([run() for _ in range(self.options.repetitions)])

    @torch.no_grad()
    def features_alike(self, prompt: Prompt) -> float | None:
        """Share of the tokens whose cosine similarity to the next frame's is above 0.8; None for a single frame."""
        if prompt.pixels.shape[0] < 2:
            return None
        encoder = VisualEncoder(self.model.get_model(), self.model.config, None)
        features = encoder.encode_frames(prompt.pixels).float()
        return round((torch.cosine_similarity(features[1:], features[:-1], dim=-1) > _ALIKE).float().mean().item(), 4)


def check_sizes(config: Any, geometry: str, checkpoint: str) -> None:
    """A checkpoint of another size must not be measured under a geometry's name.

    Raises:
        InputError: if a size differs.
    """
    wanted = geometry_config(geometry)
    for field in _SAME_SIZES:
        if getattr(config, field, None) != getattr(wanted, field, None):
            raise InputError(
                f"{checkpoint} has {field} = {getattr(config, field, None)!r}, {geometry} has "
                f"{getattr(wanted, field, None)!r}: name the checkpoint's own geometry"
            )


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
