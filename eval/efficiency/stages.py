"""
Both stages of HoliTom beside a plain restatement of the release's steps in the states' own precision, one CPU thread.

    python -m eval.efficiency.stages                               # every cell, float32, bfloat16 and float16
    python -m eval.efficiency.stages --dtypes bfloat16 --only inner
    python -m eval.efficiency.stages --videos a.mp4 b.mp4          # other clips

All runs of a cell are taken in turn within one process, which does nothing else: what the new memory of a step costs
depends on what its process freed before (the output counts the page faults of a run), so all is measured once more with
freed memory kept. A ratio is the median time of the plain steps over ours. The outer stage is timed on a synthetic
video, on a drawn scene that mostly stands still and on real clips: the 14 x 14 patches of pictures go through one
random projection. The inner stage is timed on random states with and without a component that all tokens share, as
hidden states of language models have one; its choices and states are compared with those of the plain steps in float64.
The last line of stdout is one JSON document.
"""

import argparse
import json
import multiprocessing
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, normalize

from eval.efficiency.outer import measure, plain_outer, summary, synthetic_video
from eval.efficiency.sheets import STEPS
from eval.instruments.cli import Count, Parser, provenance, user_errors
from eval.instruments.clips import default_clip
from eval.instruments.kinds import stamped
from eval.instruments.measure import keep_free_memory
from eval.instruments.progress import progress
from eval.instruments.sheets import terminal
from holitom.methods.holitom.batch_merging import merge_sequence
from holitom.methods.holitom.config import OuterConfig
from holitom.methods.holitom.outer import OuterCompression
from llava.model.builder import DTYPES

DIM = 3584
SIZES = ((32, 14), (64, 13), (8, 14))  # frames and positions per side
RATIOS = ((0.25, 0.80), (0.10, 0.65))  # retain ratio and similarity threshold
SOURCES = ("synthetic", "static scene")
CLIPS = ("carphone_pristine", "bikes")  # a man who talks to a camera that stands still; a street
SPANS, TEXT = (641, 1569), 100
STATES = {"random": 0.0, "shared component": 3.0}  # and the size of what all tokens share
PATCH = 14  # pixels per side
Cell = Callable[[], dict[str, Any]]


def plain_inner(hidden: Tensor, scores: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
    """The release's steps: keep half of a span, then one merge after the other; also where each token went."""
    span = hidden[start:stop]
    kept = scores[start:stop].topk(round(len(span) / 2)).indices.sort().values
    left = torch.ones(len(span), dtype=torch.bool).index_fill_(0, kept, False).nonzero().flatten()
    target = kept[(normalize(span[left], dim=-1) @ normalize(span[kept], dim=-1).T).argmax(-1)]
    merged = hidden.clone()
    for token, place in zip((left + start).tolist(), (target + start).tolist(), strict=True):
        merged[place] = (merged[place] + merged[token]) / 2
    source = torch.arange(len(hidden))
    source[left + start] = target + start
    rest = torch.ones(len(hidden), dtype=torch.bool)
    rest[left + start] = False
    return merged[rest], source


def drawn_scene(frames: int, side: int) -> Tensor:
    """RGB frames in [-1, 1] of a textured room with noise of a camera, a small thing that crosses it and one cut."""
    draw = torch.Generator().manual_seed(0)
    rooms = [interpolate(torch.rand(1, 3, 24, 24, generator=draw), side, mode="bicubic")[0] for _ in range(2)]
    video = torch.empty(frames, 3, side, side)
    for number in range(frames):
        picture = rooms[number >= frames // 2] + 0.01 * torch.randn(3, side, side, generator=draw)
        left, size = (side - side // 6) * number // max(1, frames - 1), side // 6
        picture[:, side // 2 : side // 2 + size, left : left + size] = torch.tensor([0.9, 0.2, 0.1])[:, None, None]
        video[number] = 2 * picture.clamp(0, 1) - 1
    return video


def clip_frames(path: Path, frames: int, side: int) -> Tensor:
    """RGB frames of a clip in [-1, 1], evenly sampled and squeezed to a square."""
    from llava.video import load_video  # noqa: PLC0415

    pixels = torch.from_numpy(np.asarray(load_video(path, frames).frames)).permute(0, 3, 1, 2).float()
    return interpolate(pixels, (side, side), mode="bilinear", antialias=True) / 127.5 - 1


def patch_features(video: Tensor, dim: int) -> Tensor:
    """One random projection of every patch, (frames, positions, dim)."""
    draw = torch.Generator().manual_seed(1)
    weights = torch.randn(dim, 3, PATCH, PATCH, generator=draw) / (3 * PATCH * PATCH) ** 0.5
    return conv2d(video, weights, stride=PATCH).flatten(2).mT.contiguous()


def features_of(source: str | Path, frames: int, grid: int, dim: int) -> Tensor:
    """Features of a video of SOURCES, or of a clip."""
    if source == "synthetic":
        return synthetic_video(frames, grid * grid, dim, torch.float32, 0.45)[0]
    side = grid * PATCH
    video = clip_frames(source, frames, side) if isinstance(source, Path) else drawn_scene(frames, side)
    return patch_features(video, dim)


def timed(ours: Callable[[], object], plain: Callable[[], object], options: argparse.Namespace) -> dict[str, Any]:
    """Times of both in turn and the ratios of their medians: as the process starts, and with freed memory kept."""

    def once() -> dict[str, Any]:
        times = {
            name: {kind: summary(values) for kind, values in kinds.items()}
            for name, kinds in measure({"ours": ours, "plain": plain}, options.repetitions).items()
        }
        ratios = {
            f"{kind[:-3]}_ratio": round(times["plain"][kind]["median"] / times["ours"][kind]["median"], 2)
            for kind in ("cpu_ms", "wall_ms")
        }
        return {**ratios, "times": times}

    found = once()
    # Not where all cells share a process, whose later ones would no longer be as it started.
    return {**found, "kept": once() if not options.quick and keep_free_memory() else None}


def outer_cell(
    source: str | Path, size: tuple[int, int], dtype: str, rule: tuple[float, float], options: argparse.Namespace
) -> dict[str, Any]:
    """The outer stage on one video."""
    (frames, grid), (ratio, threshold) = size, rule
    features = features_of(source, frames, grid, options.dim).to(DTYPES[dtype])
    attention = torch.rand(frames, grid * grid, generator=torch.Generator().manual_seed(2))
    config = OuterConfig(retain_ratio=ratio, similarity_threshold=threshold)
    stage = OuterCompression(config)
    details = stage(features, attention).details
    runs = partial(stage, features, attention), partial(plain_outer, features, attention, config)
    name = source.name if isinstance(source, Path) else source
    return {
        "stage": "outer",
        "cell": f"{frames}x{grid * grid}x{options.dim} R {ratio} {name}",
        "dtype": dtype,
        "frames": frames,
        "real": isinstance(source, Path),
        "segments": len(details.segments),
        "static_tokens": sum(details.static_counts),
        **timed(*runs, options),
    }


def inner_cell(length: int, name: str, common: float, dtype: str, options: argparse.Namespace) -> dict[str, Any]:
    """The inner stage on one sequence, ``common`` times as much of it shared by all tokens as not."""
    draw = torch.Generator().manual_seed(0)
    states = torch.randn(length + TEXT, options.dim, generator=draw)
    states += common * torch.randn(options.dim, generator=draw)
    scores, bounds = torch.rand(len(states), generator=draw), (TEXT // 2, TEXT // 2 + length)
    hidden = states.to(DTYPES[dtype])
    exact, source = plain_inner(hidden.double(), scores, *bounds)
    ours = merge_sequence(hidden, scores, [bounds], 0.5)
    plain = plain_inner(hidden, scores, *bounds)
    runs = partial(merge_sequence, hidden, scores, [bounds], 0.5), partial(plain_inner, hidden, scores, *bounds)
    return {
        "stage": "inner",
        "cell": f"{length}+{TEXT} tokens x {options.dim}, {name}",
        "dtype": dtype,
        "other_choices": {"ours": differing(ours.source, source), "plain": differing(plain[1], source)},
        "largest_error": {"ours": far(ours.hidden, exact), "plain": far(plain[0], exact)},
        **timed(*runs, options),
    }


def all_cells(options: argparse.Namespace) -> list[Cell]:
    """Every cell that was asked for, not run."""
    inner = [
        partial(inner_cell, length, name, common, dtype, options)
        for length, (name, common), dtype in product(options.spans, STATES.items(), options.dtypes)
    ]
    outer = [
        partial(outer_cell, source, size, dtype, ratio, options)
        for size, source, dtype, ratio in product(options.sizes, [*SOURCES, *options.videos], options.dtypes, RATIOS)
    ]
    return [*(inner if options.only != "outer" else []), *(outer if options.only != "inner" else [])]


@torch.no_grad()
def run(cell: Cell) -> dict[str, Any]:
    """One cell in this process."""
    return cell()


def run_apart(cells: list[Cell]) -> Iterator[dict[str, Any]]:
    """Every cell in a process of its own, one after the other."""
    threads = torch.get_num_threads()
    with multiprocessing.get_context("spawn").Pool(1, torch.set_num_threads, (threads,), maxtasksperchild=1) as pool:
        yield from pool.imap(run, cells)


def differing(found: Tensor, wanted: Tensor) -> int:
    """Tokens that went elsewhere."""
    return int((found != wanted).sum())


def far(found: Tensor, wanted: Tensor) -> float:
    """Largest difference."""
    return float((found.double() - wanted).abs().max())


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--only", choices=("outer", "inner"), help="one stage")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--videos", nargs="*", type=Path, metavar="FILE", help="clips for outer cells")
    parser.add_argument("--repetitions", action=Count, default=10)
    parser.add_argument("--threads", action=Count, default=1)
    parser.add_argument("--quick", action="store_true", help="small cells in this process, to try the command")
    options = parser.parse_args(arguments)
    if options.videos and options.only == "inner":
        parser.error("--videos are for the outer stage: leave out --only inner")
    if options.videos is None:
        remedy = "--videos FILE ..., or --videos alone for none"
        options.videos = [default_clip(name, remedy) for name in CLIPS if options.only != "inner"]
    small = {"dim": 64, "sizes": ((8, 6),), "spans": (41,)}
    options.__dict__.update(small if options.quick else {"dim": DIM, "sizes": SIZES, "spans": SPANS})
    return options


@user_errors
def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark and print a table and one line of JSON."""
    options = parse_arguments(arguments)
    torch.set_num_threads(options.threads)
    for path in options.videos:
        clip_frames(path, 1, PATCH)  # what cannot be read is told before minutes of work
    cells = all_cells(options)
    rows = []
    for row in progress(map(run, cells) if options.quick else run_apart(cells), "Cells", len(cells)):
        rows.append(row)
        print(f"{row['stage']} {row['cell']}, {row['dtype']}: {row['cpu_ratio']}", flush=True)
    for stage, columns in STEPS.items():
        if found := [row for row in rows if row["stage"] == stage]:
            print(terminal(columns, found), "", sep="\n")
    print(json.dumps(stamped("stages", {**provenance(), "cells": rows})))


if __name__ == "__main__":
    main()
