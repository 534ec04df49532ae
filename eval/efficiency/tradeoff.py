"""Accuracy of the learned tiny model against the real FLOPs of a prefill, tower included, for every method.

    python -m eval.efficiency.tradeoff methods --data outputs/synthvid --limit 60 --frames 4 8 16
    python -m eval.efficiency.tradeoff ablation --data outputs/synthvid --limit 60

``methods`` takes every row of ``configs/tiny`` and those at 10 % once more at 5 %; ``ablation`` the points of
``configs/tiny/ablations/tower.yaml``. FLOPs are matrix products from closed form (:mod:`~eval.efficiency.flops`) of the
frames that each tower layer computed and the tokens that each layer of the language model computed for that very
question; what a method computes to choose its tokens is left out. Differences are paired by question, with the run
without compression and with HoliTom at the same share; intervals are a bootstrap over clips. An instrument, not
evidence about the 7B model. Finished answers are kept below --answers: the same command goes on after an interruption.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from eval.efficiency.flops.by_layer import head_flops, layer_flops, projector_flops, tower_flops
from eval.efficiency.flops.sizes import ModelSizes
from eval.instruments.cli import Count, Parser, provenance, user_errors
from eval.instruments.kinds import stamped
from eval.synthetic.answers.campaign import Campaign, checkpoint_hash, run
from eval.synthetic.answers.evaluate import Answer
from eval.synthetic.answers.scores import NOTICE, counted, difference, scores, verdict
from eval.synthetic.answers.table import CHECKPOINT, FULL, TINY, ablation_runs, main_runs, split_name, with_frames
from holitom.settings import RunConfig, load_config
from llava.model.checkpoint import read_config

LOWEST, LOWER = 10, 5  # percent: the smallest share that has files, and the one made from them
SHARES = (25, 20, 15, LOWEST, LOWER)


def method_of(name: str) -> tuple[str, int]:
    """Method and share in percent of a row; 100 for methods that have none before the language model."""
    return split_name(name.partition(",")[0])


def method_runs(shares: Sequence[int]) -> dict[str, RunConfig]:
    """Rows of ``configs/tiny`` at these shares, those at 5 % made of the files for 10 %; rows without one always."""
    found = {}
    for name, config in main_runs().items():
        method, share = method_of(name)
        if share in (*shares, 100):
            found[name] = config
        if share == LOWEST and LOWER in shares:
            found[f"{method}_r{LOWER}"] = load_config(TINY / f"{name}.yaml", [_lowered(config.compressor)])
    return found


def _lowered(settings: Any) -> str:
    """The assignment that takes a method from 10 to 5 %."""
    if hasattr(settings, "outer"):
        return f"outer.retain_ratio={LOWER / 100}"
    if hasattr(settings, "retain_ratio"):
        return f"retain_ratio={LOWER / 100}"
    return f"tokens_per_frame={math.ceil(settings.tokens_per_frame * LOWER / LOWEST)}"


def prefill_flops(sizes: ModelSizes, answer: Answer) -> dict[str, int]:
    """FLOPs of one prefill: of the tower with the projector, and of the language model with the newline token."""
    lengths = [count + answer.text + 1 for count in answer.layers]
    tower = tower_flops(sizes, answer.tower) + projector_flops(sizes, answer.tower[-1])
    return {"tower": tower, "llm": sum(layer_flops(sizes, n, n, square=False) for n in lengths) + head_flops(sizes)}


def table(sizes: ModelSizes, answers: dict[str, list[Answer]]) -> dict[str, dict[str, Any]]:
    """Scores, FLOPs and paired differences of every run."""
    rows: dict[str, dict[str, Any]] = {}
    for name, given in answers.items():
        flops = [prefill_flops(sizes, answer) for answer in counted(given)]
        row = scores(given, answers[FULL])
        row["tower_gflops"], row["llm_gflops"] = (fmean(one[part] for one in flops) / 1e9 for part in ("tower", "llm"))
        row["prefill_gflops"] = row["tower_gflops"] + row["llm_gflops"]
        frames = [sum(answer.tower) / (sizes.frames * len(answer.tower)) for answer in counted(given)]
        row["tower_share"] = fmean(frames)
        rival = f"holitom_r{method_of(name)[1]}"
        if rival in answers and name != rival:
            change, low, high = difference(given, answers[rival])
            row["against_holitom"] = {"difference": change, "low": low, "high": high, "verdict": verdict(low, high)}
        rows[name] = row
    for row in rows.values():
        row["prefill_share"] = row["prefill_gflops"] / rows[FULL]["prefill_gflops"]
    return rows


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The result that the last line of the output holds."""
    campaign = Campaign(options.checkpoint, options.data, options.split, options.answers, options.limit)
    config = read_config(str(options.checkpoint))
    by_frames, questions = {}, 0
    for frames in options.frames:
        if options.what == "methods":
            chosen = method_runs(options.shares)
        else:
            every, grids = ablation_runs()
            chosen = {FULL: load_config(TINY / f"{FULL}.yaml")} | {
                name: every[name] for name in grids["tower"]["points"]
            }
        chosen = with_frames(chosen, frames)

        def report(done: int, blocks: int, frames: int = frames) -> None:
            print(f"{frames} frames: {done} of {blocks} blocks of clips", file=sys.stderr, flush=True)

        answers = run(campaign, chosen, options.workers, report)
        by_frames[str(frames)] = table(ModelSizes.of(config, "tiny", frames), answers)
        questions = len(counted(answers[FULL]))
        for name, row in by_frames[str(frames)].items():
            line = f"{frames:>3} {name:<48} {row['score']:.3f} ± {row['error']:.3f} {row['prefill_gflops']:8.3f} GFLOP"
            print(f"{line} ({row['prefill_share']:6.1%}), tower {row['tower_share']:6.1%}")
    return {
        "notice": NOTICE,
        "what": options.what,
        "split": options.split,
        "questions": questions,
        "limit": options.limit,
        "by_frames": by_frames,
        "checkpoint": checkpoint_hash(options.checkpoint),
        "data": campaign.data_hash(),
        **provenance(),
    }


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("what", choices=("methods", "ablation"))
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--split", default="test")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--frames", action=Count, nargs="+", default=[8], help="sampled from each clip (default: 8)")
    parser.add_argument("--shares", type=int, nargs="+", choices=SHARES, default=list(SHARES), help="in percent")
    parser.add_argument("--limit", action=Count, help="use only that many clips")
    parser.add_argument("--workers", action=Count, default=1, help="processes, each with one thread")
    parser.add_argument("--answers", type=Path, default=Path("outputs/tiny_answers"), help="folder of finished answers")
    return parser.parse_args(arguments)


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    print(json.dumps(stamped("tradeoff", measure(read_arguments(arguments)))))


if __name__ == "__main__":
    main()
