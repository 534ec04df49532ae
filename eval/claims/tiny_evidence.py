"""The learned tiny model on rendered clips: an instrument that shows directions, never the 7B model's accuracy."""

from __future__ import annotations

import json
import time
from typing import Any

import torch

from eval.claims.steps import Context, code_and_configs
from eval.synthetic.answers.campaign import Campaign
from eval.synthetic.answers.guard import BANDS, CHECKPOINT, CHECKS, Guard
from eval.synthetic.answers.scores import NOTICE
from eval.synthetic.answers.table import ablation_runs, main_runs, measure
from eval.synthetic.world.dataset import data_folder, make_split
from holitom.settings import RunConfig
from llava.errors import InputError

# of a quick run: the paper's method at all shares, and at two of them what it must be better than
_QUICK = (
    "vanilla",
    "holitom_r25",
    "holitom_r20",
    "holitom_r15",
    "holitom_r10",
    "holitom_without_inner_r15",
    "holitom_without_inner_r10",
    "random_r15",
    "random_r10",
    "visionzip_r10",
)
_QUICK_ABLATIONS = ("threshold", "inner_layer", "inner_ratio", "retain_ratio", "segmentation", "stages")
_QUICK_POINTS = 3  # of each ablation: the first, the middle and the last, and the paper's own is a row of the table


def _need_checkpoint() -> None:
    if not (CHECKPOINT / "config.json").is_file():
        raise InputError("checkpoints/tiny is absent: bash scripts/train_tiny.sh makes it")


def guard_bands(context: Context) -> dict[str, Any]:
    """Answers that compression costs on 200 fixed questions, and the band that each count must lie in."""
    _need_checkpoint()
    if not BANDS.is_file():
        raise InputError(
            f"{BANDS} is absent: the bands were not measured (python -m tests.eval.synthetic.answers.faults)"
        )
    bands = json.loads(BANDS.read_text(encoding="utf-8"))
    context.say("rendering clips")
    make_split(data_folder(), "guard")
    context.say("answering")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        guard = Guard(CHECKPOINT, data_folder())
        found = {name: guard.count(CHECKS[name]) for name in bands["lost"]}
    finally:
        torch.set_num_threads(threads)
    full = sum(answer.right for answer in guard.full)
    return {
        "checks": found,
        "bands": bands["lost"],
        "full": full,
        "least_full": bands["least_full"],
        "samples": len(guard.full),
        "notice": NOTICE,
    }


def chosen_runs(quick: bool) -> dict[str, RunConfig]:
    """Rows of the main table and points of the ablations that are answered."""
    rows = main_runs()
    runs, grids = ablation_runs()
    if not quick:
        return {**rows, **runs}
    few = {name: rows[name] for name in _QUICK}
    for name in _QUICK_ABLATIONS:
        points = [point for point in grids[name]["points"] if runs[point].model.num_frames == 8]
        at = sorted({0, len(points) // 2, len(points) - 1}) if len(points) > _QUICK_POINTS else range(len(points))
        few |= {points[place]: runs[points[place]] for place in at}
    return few


def tiny_campaign(context: Context) -> dict[str, Any]:
    """Accuracy, tokens and paired differences; answers are kept one block of clips at a time.

    A quick run asks the 200 questions of the guard split, and leaves the ablations out where the machine is too slow
    for them; else the whole test split is asked.
    """
    _need_checkpoint()
    split = "guard" if context.quick else "test"
    context.say("rendering clips")
    make_split(data_folder(), split)
    # answers of other code must not be taken over
    answers = context.output / "answers" / code_and_configs()[:12]
    context.say("answering")
    campaign = Campaign(CHECKPOINT, data_folder(), split, answers)
    runs = chosen_runs(context.quick)
    if context.quick:
        start = time.monotonic()
        rows, duels = measure(campaign, {name: runs[name] for name in _QUICK}, context.workers)
        expected = (time.monotonic() - start) * (len(runs) / len(_QUICK) - 1)
        if context.deadline is None or time.monotonic() + expected < context.deadline:
            context.say("answering with changed settings")
            rows, duels = measure(campaign, runs, context.workers)
    else:
        rows, duels = measure(campaign, runs, context.workers)
    ablations = {
        name: {**grid, "points": {point: facts for point, facts in grid["points"].items() if point in rows}}
        for name, grid in ablation_runs()[1].items()
    }
    samples = rows["vanilla"]["questions"]
    return {
        "rows": rows,
        "duels": duels,
        "ablations": ablations,
        "split": split,
        "samples": samples,
        "notice": NOTICE,
    }
