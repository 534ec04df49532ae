"""The paper's main table and ablations on the learned tiny model and rendered clips.

    python -m eval.synthetic.answers.table main --data outputs/synthvid
    python -m eval.synthetic.answers.table ablations --data outputs/synthvid
    python -m eval.synthetic.answers.table main --split long --frames 64 --data outputs/synthvid

An instrument, not evidence about the 7B model. Differences are paired with the run without compression, intervals
are a bootstrap over clips. Finished answers are kept below --answers, so the same command goes on after an
interruption. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from eval.instruments.cli import Count, Parser, provenance, user_errors
from eval.instruments.kinds import stamped
from eval.instruments.progress import progress
from eval.paper.config_names import paper_methods
from eval.paper.grids import load_grid
from eval.synthetic.answers.campaign import BLANK, Campaign, checkpoint_hash, run
from eval.synthetic.answers.evaluate import Answer
from eval.synthetic.answers.scores import NOTICE, difference, scores, verdict
from holitom.methods import available_methods, share_settings
from holitom.settings import RunConfig, load_config, method_defaults
from holitom.shipped import CONFIGS
from llava.errors import InputError

TINY = CONFIGS / "tiny"
CHECKPOINT = CONFIGS.parent / "checkpoints" / "tiny"
FULL = "vanilla"
SHARES = (25, 20, 15, 10)
TOKENS_PER_FRAME = 64
# pairs of rows whose difference the benchmark is there to show
DUELS = tuple(
    (f"{name}_r{share}", f"{other}_r{share}")
    for share in SHARES
    for name in ("holitom", "holitom_without_inner")
    for other in ("random", "uniform", "visionzip")
)


def main_runs() -> dict[str, RunConfig]:
    """Every file of ``configs/tiny`` by name, and every method without one by its defaults at the table's shares.

    Larger shares stand first, the paper's methods in its order before others.
    """
    runs = {path.stem: load_config(path) for path in TINY.glob("*.yaml")}
    with_file = {config.method for config in runs.values()}
    for method in available_methods():
        if method not in with_file:
            runs |= _default_runs(method)
    known = paper_methods()

    def place(name: str) -> tuple[int, int, str]:
        method, share = split_name(name)
        return -share, known.index(method) if method in known else len(known), method

    return {name: runs[name] for name in sorted(runs, key=place)}


def split_name(name: str) -> tuple[str, int]:
    """Method and share in percent of a run's name, ``holitom_r15``; 100 where it names none."""
    method, _, share = name.rpartition("_r")
    return (method, int(share)) if share.isdecimal() else (name, 100)


def _default_runs(method: str) -> dict[str, RunConfig]:
    changes = {share: share_settings(method, share / 100, TOKENS_PER_FRAME) for share in SHARES}
    if not all(changes.values()):
        return {method: method_defaults(method)}
    return {f"{method}_r{share}": method_defaults(method, each) for share, each in changes.items()}


def ablation_runs() -> tuple[dict[str, RunConfig], dict[str, dict[str, Any]]]:
    """Runs by name, and of every ablation its title and the names of its points."""
    runs, grids = {}, {}
    for path in sorted((TINY / "ablations").glob("*.yaml")):
        grid = load_grid(path)
        names = {point.name.partition("/")[2]: point for point in grid.points}
        runs.update({name: point.settings() for name, point in names.items()})
        grids[grid.name] = {
            "title": grid.title,
            "points": {name: {"changes": list(point.overrides)} for name, point in names.items()},
        }
    return runs, grids


def baseline(name: str, runs: dict[str, RunConfig]) -> str:
    """The run without compression that sees as many frames."""
    return f"{FULL}_f{runs[name].model.num_frames}"


def with_frames(runs: dict[str, RunConfig], frames: int | None) -> dict[str, RunConfig]:
    """The same runs with another number of frames, or as they are."""
    if frames is None:
        return dict(runs)
    from_vanilla = load_config(TINY / f"{FULL}.yaml", [f"model.num_frames={frames}"]).model
    return {name: replace(config, model=from_vanilla) for name, config in runs.items()}


def measure(campaign: Campaign, runs: dict[str, RunConfig], workers: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores of every run and of the grey video, and the differences of the pairs that are both there."""
    asked = dict(runs)
    for frames in sorted({config.model.num_frames for config in runs.values()}):
        asked[f"{FULL}_f{frames}"] = load_config(TINY / f"{FULL}.yaml", [f"model.num_frames={frames}"])
    asked[BLANK] = asked[f"{FULL}_f{min(config.model.num_frames for config in runs.values())}"]

    with progress([], "Blocks of clips", 0) as bar:

        def report(done: int, blocks: int) -> None:
            bar.total = blocks
            bar.update(done - bar.n)

        answers = run(campaign, asked, workers, report)
    rows = {name: scores(answers[name], answers[baseline(name, asked)]) for name in asked}
    return rows, {f"{a} - {b}": duel(answers, a, b) for a, b in DUELS if a in answers and b in answers}


def duel(answers: dict[str, list[Answer]], name: str, other: str) -> dict[str, Any]:
    """Difference of two runs with its interval."""
    change, low, high = difference(answers[name], answers[other])
    return {"difference": change, "low": low, "high": high, "verdict": verdict(low, high)}


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("table", choices=("main", "ablations"))
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of the data set (eval.synthetic.world.dataset)"
    )
    parser.add_argument("--split", default="test")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--frames", action=Count, help="sampled from each clip (default: what the configurations say)")
    parser.add_argument("--limit", action=Count, help="use only that many clips")
    parser.add_argument("--only", nargs="+", metavar="RUN", help="names of runs; default: all of the table")
    parser.add_argument("--workers", action=Count, default=2, help="processes, each with one thread")
    parser.add_argument("--answers", type=Path, default=Path("outputs/tiny_answers"), help="folder of finished answers")
    return parser.parse_args(arguments)


def chosen(runs: dict[str, RunConfig], only: Sequence[str] | None) -> dict[str, RunConfig]:
    """The runs that were asked for.

    Raises:
        InputError: for a name that is none of them.
    """
    names = list(runs) if only is None else only
    for name in names:
        if name not in runs:
            raise InputError(f"--only {name!r} is no run of this table; it must be one of {', '.join(runs)}")
    return {name: runs[name] for name in names}


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    options = read_arguments(arguments)
    runs, grids = (main_runs(), {}) if options.table == "main" else ablation_runs()
    runs = with_frames(chosen(runs, options.only), options.frames)
    campaign = Campaign(options.checkpoint, options.data, options.split, options.answers, options.limit)
    rows, duels = measure(campaign, runs, options.workers)
    for name, row in rows.items():
        print(f"{name:<70} {row['score']:.3f} {row['retention']:7.1%}  {row['outer']:6.1f} tokens")
    for grid in grids.values():
        grid["points"] = {name: point for name, point in grid["points"].items() if name in rows}
    result = {
        "notice": NOTICE,
        "table": options.table,
        "split": options.split,
        "rows": rows,
        "duels": duels,
        "frames": {name: config.model.num_frames for name, config in runs.items()},
        "settings": {name: config.as_dict()["compressor"] for name, config in runs.items()},
        "ablations": grids,
        "checkpoint": checkpoint_hash(options.checkpoint),
        "data": campaign.data_hash(),
        "limit": options.limit,
        **provenance(),
    }
    print(json.dumps(stamped("tiny", result)))


if __name__ == "__main__":
    main()
