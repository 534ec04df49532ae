"""Faults that the retention checks must find, and the bands that are measured with them.

    python -m tests.eval.synthetic.answers.faults outputs/synthvid tests/eval/synthetic/answers/guard.json

to be run after the checkpoint or the method has changed. A check's band lies around what was measured by half of what
the weakest fault costs, but no more than a few answers: wide enough for other processors and releases of torch, tight
enough for every fault.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from eval.instruments.cli import Parser, provenance, user_errors
from eval.instruments.record import write_whole
from eval.synthetic.answers.campaign import checkpoint_hash
from eval.synthetic.answers.guard import ALWAYS, CHECKPOINT, CHECKS, FRAMES, Guard
from holitom.encoded_video import EncodedVideo
from holitom.methods.holitom import HolitomOuter
from holitom.methods.holitom.temporal_segmentation import SEGMENTERS, Segmentation, walk_back
from holitom.tokens import CompressedTokens
from llava.errors import InputError

_LEAST_SLACK, _MOST_SLACK = 3, 8  # answers of 200 that a check leaves for rounding


@contextmanager
def shuffled_attention() -> Iterator[None]:
    """Every frame's received attention belongs to other tokens of the frame."""
    pooled = EncodedVideo.pooled

    def wrong(video: EncodedVideo, name: str) -> Tensor:
        signal = pooled(video, name)
        order = np.random.default_rng(0).permuted(np.tile(np.arange(signal.shape[1]), (signal.shape[0], 1)), axis=1)
        return signal.gather(1, torch.from_numpy(order).to(signal.device)) if name == "received_attention" else signal

    with mock.patch.object(EncodedVideo, "pooled", wrong):
        yield


@contextmanager
def random_cuts() -> Iterator[None]:
    """A coin decides behind every frame whether the video is cut there."""

    def wrong(static_counts: Tensor, max_segment_frames: int) -> Segmentation:
        frames = len(static_counts)
        cuts = np.flatnonzero(np.random.default_rng(int(static_counts.sum())).random(frames - 1) < 0.5) + 1
        steps = np.zeros(frames, dtype=np.int64)
        for first, after in pairwise([0, *cuts, frames]):
            steps[after - 1] = after - 1 - first
        return walk_back(steps, static_counts.numpy())

    with mock.patch.dict(SEGMENTERS, {"global": wrong}):
        yield


@contextmanager
def wrong_positions() -> Iterator[None]:
    """The kept tokens reach the language model in the order of their places in the frame, not of time."""
    compress = HolitomOuter.__call__

    def wrong(outer: Any, video: EncodedVideo) -> CompressedTokens:
        kept = compress(outer, video)
        order = (kept.index % video.features.shape[1]).argsort(stable=True)
        return replace(kept, features=kept.features[order])

    with mock.patch.object(HolitomOuter, "__call__", wrong):
        yield


FAULTS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "shuffled_attention": shuffled_attention,
    "random_cuts": random_cuts,
    "wrong_positions": wrong_positions,
}


def band(lost: int, faults: Mapping[str, int]) -> tuple[int, int]:
    """Fewest and most answers a check may lose; a fault that saves answers is a fault all the same.

    Args:
        lost: what was measured.
        faults: answers lost with each fault that the check is to find.

    Raises:
        InputError: if a fault changes too little to be told from rounding.
    """
    distances = {fault: abs(wrong - lost) for fault, wrong in faults.items()}
    slack = min(_MOST_SLACK, min(distances.values(), default=2 * _MOST_SLACK) // 2)
    if slack < _LEAST_SLACK:
        name = min(distances, key=lambda fault: distances[fault])
        raise InputError(
            f"{name} loses {faults[name]} answers, {lost} are lost without it: too few to tell; add a harder check"
        )
    return lost - slack, lost + slack


def measure(guard: Guard) -> dict[str, Any]:
    """Counts of every check, with each fault as well, and the bands.

    Raises:
        InputError: if a fault would pass.
    """
    counts = {name: guard.count(check) for name, check in CHECKS.items()}
    faults: dict[str, dict[str, dict[str, int]]] = {}
    for fault, inject in FAULTS.items():
        with inject():
            faults[fault] = {name: guard.count(check) for name, check in CHECKS.items()}
        print(fault, json.dumps(faults[fault]), flush=True)  # noqa: T201
    lost = {
        fault: {name: abs(found[name]["lost"] - counts[name]["lost"]) for name in CHECKS}
        for fault, found in faults.items()
    }
    shown_by = {fault: max(CHECKS, key=lambda name: costs[name]) for fault, costs in lost.items()}
    bands = {}
    for name in CHECKS:
        shown = {fault: faults[fault][name]["lost"] for fault, where in shown_by.items() if where == name}
        if shown or name == ALWAYS:
            bands[name] = band(counts[name]["lost"], shown)
    return {
        "checks": counts,
        "faults": faults,
        "shown_by": shown_by,
        "lost": bands,
        "least_full": counts[ALWAYS]["full"] - _MOST_SLACK,
        "frames": FRAMES,
    }


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the data set, with its split guard")
    parser.add_argument("path", type=Path, help="JSON file to write")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    result = measure(Guard(options.checkpoint, options.data))
    result = {**result, "checkpoint": checkpoint_hash(options.checkpoint), **provenance()}
    write_whole(options.path, json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))  # noqa: T201


if __name__ == "__main__":
    main()
