"""
Time and memory of the outer stage on one synthetic video, beside a plain loop that takes the steps of the release.

    python -m eval.efficiency.outer --frames 32 --tokens 196 --dim 3584 --threads 1
    python -m eval.efficiency.outer --frames 1024 --dim 896 --repetitions 3 --skip-plain
    python -m eval.efficiency.outer --dim 896 --growth 1024 --skip-plain   # 32 and 1,024 frames in one run
    python -m eval.efficiency.outer --device cuda --dtype bfloat16 --skip-plain

All are run in turn within one process, after one warm-up each; operators, kernel launches and syncs of one run are
counted (:mod:`eval.instruments.device_counts`). Output: a table, and as the last line of stdout one JSON document:

    result = json.loads(subprocess.run([...], capture_output=True, text=True).stdout.splitlines()[-1])
"""

import argparse
import json
import math
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor

from eval.efficiency.sheets import OUTER, outer_rows
from eval.instruments.cli import Count, Parser, user_errors
from eval.instruments.device_counts import count
from eval.instruments.kinds import stamped
from eval.instruments.measure import interleaved, synchronize
from eval.instruments.sheets import terminal
from holitom.methods.holitom.config import OuterConfig
from holitom.methods.holitom.outer import OuterCompression
from llava.model.builder import DTYPES


def synthetic_video(frames: int, tokens: int, dim: int, dtype: torch.dtype, moving: float) -> tuple[Tensor, Tensor]:
    """Features with a still background, moving positions and a cut every 8 frames, and a random received attention."""
    generator = torch.Generator().manual_seed(0)
    video = torch.empty(frames, tokens, dim, dtype=dtype)
    for frame in range(frames):
        if frame % 8 == 0:
            scene = torch.randn(tokens, dim, generator=generator)
            still = torch.rand(tokens, 1, generator=generator) > moving
        fresh = torch.randn(tokens, dim, generator=generator)
        video[frame] = torch.where(still, scene + 0.3 * fresh, fresh)
    return video, torch.rand(frames, tokens, generator=generator)


def plain_segments(features: Tensor, config: OuterConfig) -> tuple[list[tuple[int, int]], Tensor, int]:
    """Similarity of all pairs in one call, gains in a frames x frames x tokens tensor, one host read per window."""
    frames, tokens, _ = features.shape
    static = torch.cosine_similarity(features[:-1], features[1:], dim=-1) > config.similarity_threshold
    windows = torch.zeros(frames, frames, tokens, dtype=torch.bool)
    for first in range(frames - 1):
        windows[first, first + 1 :] = static[first:].long().cumprod(0).bool()
    lengths = torch.arange(frames)
    gains = windows.sum(-1) * (lengths - lengths[:, None]).clamp_min(0)
    best, back = [0], []
    for last in range(frames):
        values = [best[first] + int(gains[first, last]) for first in range(last, -1, -1)]
        best.append(max(values))
        back.append(last - values.index(best[-1]))
    segments, last = [], frames - 1
    while last >= 0:
        segments.append((back[last], last))
        last = back[last] - 1
    return segments[::-1], windows, int(best[-1])


def plain_clusters(points: Tensor, clusters: int, config: OuterConfig) -> Tensor:
    """Density peaks by full float32 distance matrices, then one cluster after the other."""
    distance = torch.cdist(points.float(), points.float()) / points.shape[-1] ** 0.5
    nearest = distance.topk(min(config.neighbors, clusters), largest=False).values
    density = (-(nearest**2).mean(-1)).exp()
    denser = density[None, :] > density[:, None]
    separation = torch.where(denser, distance, distance.max()).amin(-1)
    centers = (density * separation).topk(clusters).indices.sort().values
    owner = distance[:, centers].argmin(-1)
    owner[centers] = torch.arange(clusters)
    merged = []
    for number, center in enumerate(centers):
        members = (owner == number).nonzero().flatten()
        others = points[members[members != center]]
        vector = points[center]
        if len(others):
            vector = config.center_weight * vector + (1 - config.center_weight) * others.mean(0)
        merged.append(vector)
    return torch.stack(merged)


def plain_outer(features: Tensor, attention: Tensor, config: OuterConfig) -> Tensor:
    """The outer stage with Python loops over windows, frames and clusters; block order, no contextual tokens."""
    frames, tokens, _ = features.shape
    segments, windows, removable = plain_segments(features, config)
    ratio = min(1.0, config.retain_ratio / ((frames * tokens - removable) / (frames * tokens)))
    kept = []
    for first, last in segments:
        static = windows[first, last]
        clusters = round(int(static.sum()) * ratio)
        if clusters:
            kept.append(plain_clusters(features[first : last + 1, static].mean(0), clusters, config))
        for frame in range(first, last + 1):
            moving = (~static).nonzero().flatten()
            count = math.ceil(len(moving) * ratio)
            kept.append(features[frame, moving[attention[frame, moving].topk(count).indices.sort().values]])
    return torch.cat([block.to(features.dtype) for block in kept])


def measure(runs: dict[str, Callable[[], object]], repetitions: int) -> dict[str, dict[str, list[float]]]:
    """Wall and CPU milliseconds and page faults of each function, taken in turn so that both see the same machine."""

    def clocked(run: Callable[[], object]) -> dict[str, float]:
        synchronize()
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        synchronize()
        return {
            "page_faults": resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults,
            "cpu_ms": 1e3 * (time.process_time() - cpu),
            "wall_ms": 1e3 * (time.perf_counter() - wall),
        }

    rounds = interleaved({name: partial(clocked, run) for name, run in runs.items()}, repetitions)
    kinds = ("wall_ms", "cpu_ms", "page_faults")
    return {name: {kind: [t[kind] for t in taken] for kind in kinds} for name, taken in rounds.items()}


def summary(values: list[float]) -> dict[str, float]:
    """Median, smallest and largest, rounded for reading."""
    return {
        "median": round(statistics.median(values), 2),
        "min": round(min(values), 2),
        "max": round(max(values), 2),
    }


def peak_megabytes(device: str) -> float:
    """Largest memory so far: tensors on the GPU, or what of this process is resident on a CPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Command line."""
    parser = Parser(description="Time the outer stage against plain loops.")
    parser.add_argument("--frames", action=Count, default=32)
    parser.add_argument("--tokens", action=Count, default=196, help="tokens per frame")
    parser.add_argument("--dim", action=Count, default=3584)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--repetitions", action=Count, default=10)
    parser.add_argument("--threads", action=Count, default=torch.get_num_threads())
    parser.add_argument("--moving", type=float, default=0.45, help="share of moving positions")
    parser.add_argument("--retain-ratio", type=float, default=0.15)
    parser.add_argument("--similarity-threshold", type=float, default=0.80)
    parser.add_argument("--device", default="cpu", help="cpu or cuda; the plain loop runs on a CPU only")
    parser.add_argument("--growth", type=int, metavar="FRAMES", help="time a video of so many frames in the same run")
    parser.add_argument("--skip-plain", action="store_true", help="time only the library (long videos)")
    options = parser.parse_args(arguments)
    if options.growth is not None and options.growth <= options.frames:
        parser.error(f"--growth {options.growth} is out of range: it must be more than --frames {options.frames}")
    if options.device not in ("cpu", "cuda") or (options.device == "cuda" and not torch.cuda.is_available()):
        parser.error(f"--device {options.device} is not available: it must be cpu, or cuda where there is a GPU")
    if options.device == "cuda" and not options.skip_plain:
        parser.error("--device cuda cannot run the plain loop: add --skip-plain")
    return options


def growth(times: dict[str, Any], frames: int, longer: int, device: str) -> dict[str, Any]:
    """How the time grows with the video: time per frame of the longer one over that of the shorter one."""
    kind = "wall_ms" if device == "cuda" else "cpu_ms"
    short, long = times["holitom"][kind]["median"], times["longer"][kind]["median"]
    return {"frames": [frames, longer], "kind": kind, "over_linear": round(long / short / (longer / frames), 3)}


def print_table(result: dict[str, Any]) -> None:
    """The numbers for a reader."""
    print(terminal(OUTER, outer_rows(result)))
    if result["cpu_speedup"]:
        print(f"plain / holitom: {result['cpu_speedup']} in CPU time")
    if result["growth"]:
        frames = result["growth"]["frames"]
        print(f"from {frames[0]} to {frames[1]} frames: {result['growth']['over_linear']} times linear growth")
    launches = "not measured" if result["launches"] is None else result["launches"]
    print(f"{result['operators']} operators, kernel launches: {launches}, {result['syncs']} syncs")
    print(f"{result['kept']} tokens kept, peak memory above the input {result['peak_above_input_mb']:.0f} MB")


def bench(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is measured, as the last line of the command says it."""
    config = OuterConfig(options.retain_ratio, options.similarity_threshold)
    compression, sizes = OuterCompression(config), (options.tokens, options.dim, DTYPES[options.dtype], options.moving)
    features, attention = (part.to(options.device) for part in synthetic_video(options.frames, *sizes))
    before = peak_megabytes(options.device)
    tokens = compression(features, attention)
    extra = peak_megabytes(options.device) - before
    runs: dict[str, Callable[[], object]] = {"holitom": lambda: compression(features, attention)}
    difference = None
    if not options.skip_plain:
        runs["plain"] = lambda: plain_outer(features, attention, config)
        plain = plain_outer(features, attention, config)
        if plain.shape == tokens.features.shape:
            difference = (plain.float() - tokens.features.float()).abs().max().item()
    if options.growth:
        long, weights = (part.to(options.device) for part in synthetic_video(options.growth, *sizes))
        runs["longer"] = lambda: compression(long, weights)
    counts = count(runs["holitom"], options.device)
    measured = measure(runs, options.repetitions)
    times = {name: {kind: summary(values) for kind, values in kinds.items()} for name, kinds in measured.items()}
    medians = [times[name]["cpu_ms"]["median"] for name in ("plain", "holitom") if name in times]
    return {
        "settings": vars(options),
        "machine": {"system": platform.platform(), "processor": platform.processor() or platform.machine()},
        "torch": torch.__version__,
        "python": platform.python_version(),
        "kept": len(tokens.index),
        "segments": len(tokens.details.segments),
        "static_tokens": sum(tokens.details.static_counts),
        "largest_difference": difference,
        "input_mb": round(features.nbytes / 2**20, 1),
        "peak_above_input_mb": round(extra, 1),
        **asdict(counts),
        "times": times,
        "growth": growth(times, options.frames, options.growth, options.device) if options.growth else None,
        "cpu_speedup": round(medians[0] / medians[1], 2) if "plain" in times else None,
    }


@user_errors
def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark and print a table and one line of JSON."""
    options = parse_arguments(arguments)
    torch.set_num_threads(options.threads)
    result = bench(options)
    print_table(result)
    print(json.dumps(stamped("outer", result)))


if __name__ == "__main__":
    main()
