"""The numbers of docs/scaling.md: one main table on 1, 8 and 64 H200, from recorded counts and stated assumptions.

python -m eval.efficiency.scaling
"""

import json
from pathlib import Path

from eval.instruments.cli import Parser, user_errors
from eval.paper.benchmarks import BY_TASK, PAPER_TASKS
from eval.paper.grids import SWEEPS, load_grid
from eval.paper.scores import CONFIGS

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


def measured() -> dict[str, float]:
    """Sums over one table: rows, questions, and FLOPs of tower and language model (with projector and method)."""
    result = json.loads(Path(FLOPS).read_text(encoding="utf-8"))["result"]
    counts = result["real"] if "real" in result else result["closed_form"]
    by_name = {row["config"]: row["prefill"] for row in counts if row["geometry"] == GEOMETRY}
    points = [point for grid in GRIDS for point in load_grid(SWEEPS / f"{grid}.yaml").points]
    names = list(dict.fromkeys(point.config.stem for point in points))  # both grids hold vanilla
    rows = [by_name[name] for name in names if name in by_name]
    questions = sum(BY_TASK[task].questions for task in PAPER_TASKS)
    tower = sum(row["tower"] for row in rows) * questions
    rest = sum(row["total"] - row["tower"] for row in rows) * questions
    return {"points": len(names), "rows": len(rows), "questions": questions, "tower": tower, "rest": rest}


def lines() -> list[str]:
    """The table as Markdown: hours by part and number of GPUs."""
    known = measured()
    asked = ROWS * known["questions"]
    scale = ROWS / known["rows"]  # rows without a count are taken for the mean of those with one
    parts = {
        "reading videos (CPU)": asked * DECODE_SECONDS / CORES,
        "tower": scale * known["tower"] / (PEAK * USED),
        "projector, method, prefill": scale * known["rest"] / (PEAK * USED),
        "new tokens": asked * NEW_TOKENS * WEIGHT_BYTES / BANDWIDTH,
    }
    found = [
        f"{ROWS} rows of {known['questions']:.0f} questions; "
        f"{known['rows']:.0f} configurations have counts, whose mean is taken.",
        "",
        "| part | hours on 1 H200 | 8 | 64 |",
        "|---|---|---|---|",
    ]
    for name, seconds in parts.items():
        found.append(f"| {name} | " + " | ".join(f"{seconds / 3600 / gpus:.2f}" for gpus in (1, 8, 64)) + " |")
    return found


@user_errors
def main() -> None:
    """Command line."""
    Parser(description=__doc__).parse_args()
    print("\n".join(lines()))


if __name__ == "__main__":
    main()
