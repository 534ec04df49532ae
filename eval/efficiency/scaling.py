"""The numbers of docs/scaling.md: one main table on 1, 8 and 64 H200, from recorded counts and stated assumptions.

python -m eval.efficiency.scaling
"""

import json
from pathlib import Path
from typing import Any

from eval.efficiency.flops.sizes import sizes_of
from eval.instruments.cli import Parser, user_errors
from eval.paper.benchmarks import BY_TASK, PAPER_TASKS
from eval.paper.grids import SWEEPS, load_grid
from holitom.shipped import CONFIGS

FLOPS = CONFIGS.parent / "results" / "cpu" / "flops.json"
GRIDS = ("eval_ov-7b_rivals", "eval_ov-7b_holitom")
GEOMETRY = "llava-onevision-7b"
# assumptions, not measured here
PEAK = 989e12  # FLOP/s of an H200, dense, 16 bits, by its data sheet
USED = 0.4  # of it in prefill and tower
BANDWIDTH = 4.8e12 * 0.6  # bytes/s: the data sheet's, and the part that decoding tokens reaches
WEIGHT_BYTES = 15.2e9  # read once for each new token
ROWS = 33  # of the main table
NEW_TOKENS = 4  # of an answer: a letter and what surrounds it
DECODE_SECONDS = 2.0  # CPU seconds to read 32 frames
CORES = 16  # for each GPU
MILLION = 10**6
LAID_OUT = ("vanilla", "holitom_r10", "holitom_tower_r10")  # what a run of many videos is laid out with


def counted(part: str) -> dict[str, dict[str, Any]]:
    """FLOPs of prefill and tokens by configuration, as recorded for the 7B model; ``part`` of the record."""
    rows = json.loads(Path(FLOPS).read_text(encoding="utf-8"))["result"][part]
    return {row["config"]: {**row["prefill"], **row["tokens"]} for row in rows if row["geometry"] == GEOMETRY}


def gpu_hours(flops: float) -> float:
    """Hours of one GPU at the assumed use."""
    return flops / (PEAK * USED) / 3600


def table() -> list[str]:
    """One main table as Markdown: hours by part and number of GPUs."""
    by_name = counted("real")
    points = [point for grid in GRIDS for point in load_grid(SWEEPS / f"{grid}.yaml").points]
    rows = [by_name[name] for name in dict.fromkeys(point.config.stem for point in points) if name in by_name]
    questions = sum(BY_TASK[task].questions for task in PAPER_TASKS)
    asked = ROWS * questions
    tower = sum(row["tower"] for row in rows) / len(rows)  # rows without a count are taken for the mean of the others
    rest = sum(row["total"] - row["tower"] for row in rows) / len(rows)
    parts = {
        "reading videos (CPU)": asked * DECODE_SECONDS / CORES / 3600,
        "tower": gpu_hours(asked * tower),
        "projector, method, prefill": gpu_hours(asked * rest),
        "new tokens": asked * NEW_TOKENS * WEIGHT_BYTES / BANDWIDTH / 3600,
    }
    found = [
        f"{ROWS} rows of {questions} questions; {len(rows)} configurations have counts, whose mean is taken.",
        "",
        "| part | hours on 1 H200 | 8 | 64 |",
        "|---|---|---|---|",
    ]
    for name, hours in parts.items():
        found.append(f"| {name} | " + " | ".join(f"{hours / gpus:.2f}" for gpus in (1, 8, 64)) + " |")
    return found


def reuse() -> list[str]:
    """What encoding a video once for all its questions saves, as Markdown."""
    found = ["| benchmark | questions | videos | readings and tower passes saved |", "|---|---|---|---|"]
    saved = questions = 0
    for benchmark in (BY_TASK[task] for task in PAPER_TASKS):
        videos = benchmark.video_count
        part = "not known here" if videos is None else f"{1 - videos / benchmark.questions:.0%}"
        found.append(f"| {benchmark.title} | {benchmark.questions} | {videos or 'not known here'} | {part} |")
        saved += benchmark.questions - (videos or benchmark.questions)
        questions += benchmark.questions
    return [*found, f"| together, at least | {questions} | | {saved / questions:.0%} |"]


def million() -> list[str]:
    """One question about each of 10^6 videos, as Markdown: hours of one GPU, and what would lie on disk."""
    by_name = counted("newer")
    rows = [by_name[name] for name in LAID_OUT]
    sizes = sizes_of(GEOMETRY)
    frames = sizes.frames * sizes.side**2 * 3 * MILLION / 1e12
    parts = {
        "CPU hours of reading": [MILLION * DECODE_SECONDS / 3600 for _ in rows],
        "GPU hours of the tower": [gpu_hours(MILLION * row["tower"]) for row in rows],
        "GPU hours of projector, method, prefill": [gpu_hours(MILLION * (row["total"] - row["tower"])) for row in rows],
        "TB if frames were kept, 8 bits": [frames for _ in rows],
        "TB if tokens before the LLM were kept, 16 bits": [
            row["visual"] * sizes.dim * 2 * MILLION / 1e12 for row in rows
        ],
    }
    found = [f"| 10^6 videos of {sizes.frames} frames | " + " | ".join(LAID_OUT) + " |", "|---|" + "---|" * len(rows)]
    return found + [
        f"| {name} | " + " | ".join(f"{value:,.1f}" for value in part) + " |" for name, part in parts.items()
    ]


@user_errors
def main() -> None:
    """Command line."""
    Parser(description=__doc__).parse_args()
    print("\n\n".join("\n".join(part()) for part in (table, reuse, million)))


if __name__ == "__main__":
    main()
