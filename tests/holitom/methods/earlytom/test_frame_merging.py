"""EarlyTom's merging of frames: worked examples, the naive loops, and the recordings of the release."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from holitom.methods.earlytom import frame_merging
from holitom.methods.earlytom.frame_merging import (
    MergeRule,
    fetch_similarities,
    frame_similarities,
    merge_frames,
    plan_frames,
    stream_segments,
    thin_segment,
)
from llava.errors import InputError
from tests.references import earlytom as reference

GOLDENS = sorted((Path(__file__).parents[3] / "goldens_newer").glob("earlytom_merge_*.safetensors"))
RULE = MergeRule(0.6, 6)


def arrows(*degrees: float) -> Tensor:
    """One-token frames, unit vectors at these angles."""
    angles = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=-1)[:, None].float()


def thinned(*degrees: float, keep_last_middle: bool = False):
    frames = arrows(*degrees)
    return thin_segment((0, len(degrees) - 1), fetch_similarities(frames, 8), keep_last_middle)


def test_segmentation_example() -> None:
    table = {(0, 1): 0.9, (0, 2): 0.5}
    assert stream_segments(3, lambda a, b: table[a, b], RULE) == [(0, 1), (2, 2)]  # .91, then .541
    late = {(0, 1): 0.9, (0, 2): 0.9, (0, 3): 0.59, (0, 4): 0.59}
    # .9 * .59 + .1 * .9010 is still .621: a single unlike frame passes, the next does not.
    assert stream_segments(5, lambda a, b: late[a, b], RULE) == [(0, 3), (4, 4)]
    at = {(0, 1): 0.5}
    assert stream_segments(2, lambda a, b: at[a, b], MergeRule(0.55, 6)) == [(0, 1)], "strictly below"


def test_the_smoothing_starts_anew_after_a_cut() -> None:
    table = {(0, 1): 0.0, (1, 2): 0.58, (1, 3): 0.55}  # .622 and .557; .532 if it did not
    assert stream_segments(4, lambda a, b: table[a, b], MergeRule(0.55, 6)) == [(0, 0), (1, 3)]


def test_segments_are_shorter_than_the_limit() -> None:
    assert stream_segments(12, lambda a, b: 1.0, RULE) == [(0, 4), (5, 9), (10, 11)]
    assert stream_segments(3, lambda a, b: 1.0, MergeRule(0.6, 2)) == [(0, 0), (1, 1), (2, 2)]
    assert stream_segments(1, lambda a, b: 1.0, RULE) == [(0, 0)]


def test_thinning_examples() -> None:
    cos = {degree: math.cos(math.radians(degree)) for degree in (10, 20, 30)}
    wide = thinned(0, 20, 30, 50, math.degrees(math.acos(0.9)))
    assert [(frame.first, frame.second) for frame in wide] == [(0, -1), (1, 2), (4, -1)]
    assert wide[1].weight == pytest.approx(cos[10] / (cos[10] + cos[20]), abs=1e-6)
    merged = merge_frames(arrows(0, 20, 30, 50, 0), frame_merging.FramePlan([], wide))
    assert merged[1, 0].tolist() == pytest.approx([0.90372, 0.41916], abs=1e-5)
    apart = thinned(0, 20, 50, 60, math.degrees(math.acos(0.9)))
    assert [frame.first for frame in apart] == [0, 1, 2, 4], "60 is lost"
    assert [frame.first for frame in thinned(0, 20, 30, 5)] == [0, 1, 3]
    assert [frame.first for frame in thinned(0, 20, 5)] == [0, 1, 2], "three frames stay"


def test_the_last_middle_frame_may_be_kept() -> None:
    wide = thinned(0, 20, 30, 50, math.degrees(math.acos(0.9)), keep_last_middle=True)
    assert [(frame.first, frame.second) for frame in wide] == [(0, -1), (1, 2), (3, -1), (4, -1)]
    assert [frame.first for frame in thinned(0, 20, 30, 5, keep_last_middle=True)] == [0, 1, 2, 3]


def test_still_frames_do_not_mix() -> None:
    """Neither similarity is above the other: five become four, and 32 become 26, 21 and 17."""
    states, left = torch.randn(1, 9, 7, generator=torch.Generator().manual_seed(0)).expand(32, -1, -1), []
    for _ in range(3):
        states = merge_frames(states, plan_frames(len(states), fetch_similarities(states, 6), RULE))
        left.append(len(states))
    assert left == [26, 21, 17]


@pytest.mark.parametrize(
    ("length", "counts"),
    [
        (1, {1}),
        (2, {2}),
        (3, {3}),
        (4, {3}),
        (5, {3, 4}),
        (6, {4, 5}),
        (7, {4, 5, 6}),
        (8, {5, 6, 7}),
        (9, {5, 6, 7, 8}),
    ],
)
def test_frames_left_of_a_segment(length: int, counts: set[int]) -> None:
    seen = set()
    for seed in range(300):
        table = np.random.default_rng(seed).random((length, length))
        seen.add(len(thin_segment((0, length - 1), lambda one, other, table=table: float(table[one, other]))))
    assert seen == counts


def drifting(frames: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn(frames, 5, 4, generator=generator)
    steps[0] += 3
    return steps.cumsum(0) + 0.1 * steps, torch.rand(frames, 5, generator=generator)


@pytest.mark.parametrize("keep_last_middle", [False, True])
@pytest.mark.parametrize(
    ("frames", "tau", "limit"), [(1, 0.6, 6), (7, 0.2, 9), (23, 0.5, 6), (23, 0.1, 12), (9, 0.9, 3)]
)
def test_equals_the_loops(frames: int, tau: float, limit: int, keep_last_middle: bool, monkeypatch) -> None:
    monkeypatch.setattr(frame_merging, "FRAMES_AT_ONCE", 4)
    rule = MergeRule(tau, limit, 0.8, keep_last_middle)
    states, attention = drifting(frames, seed=frames + limit)
    plan = plan_frames(frames, fetch_similarities(states, limit), rule)
    wide, scores = states.double().numpy(), attention.double().numpy()
    segments, sources, merged, weighted = reference.merge(wide, scores, rule)
    assert plan.segments == segments
    assert [(frame.first, frame.second) for frame in plan.frames] == [entry[:2] for entry in sources]
    np.testing.assert_allclose([frame.weight for frame in plan.frames], [entry[2] for entry in sources], atol=1e-6)
    np.testing.assert_allclose(merge_frames(states, plan).numpy(), merged, atol=1e-5)
    np.testing.assert_allclose(merge_frames(attention, plan).numpy(), weighted, atol=1e-6)


def test_targets() -> None:
    wide = thinned(0, 20, 30, 50, math.degrees(math.acos(0.9)))
    assert frame_merging.FramePlan([(0, 4)], wide).target(5) == [0, 1, 1, -1, 2]


def test_similarities() -> None:
    states = arrows(0, 60, 90, 90)
    table = frame_similarities(states, 2)
    torch.testing.assert_close(
        table[:3], torch.tensor([[0.5, 0], [math.sqrt(0.75)] * 2, [1, 0]]).double(), atol=1e-6, rtol=0
    )
    assert float(table[2, 0]) == 1, "exactly, so that still frames tie"
    broken = states.clone()
    broken[2, 0, 0] = torch.inf
    with pytest.raises(InputError, match=r"the vision tower's states .* 1 of 4 frames \(frame 2\)"):
        fetch_similarities(broken, 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_frames_that_stay_alone_keep_their_bits(dtype: torch.dtype) -> None:
    states = drifting(12, seed=1)[0].to(dtype)
    plan = plan_frames(12, fetch_similarities(states, 6), MergeRule(0.1, 6))
    merged = merge_frames(states, plan)
    assert merged.dtype == dtype
    alone = [row for row, frame in enumerate(plan.frames) if frame.second < 0]
    assert torch.equal(merged[alone], states[[plan.frames[row].first for row in alone]])


@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem)
def test_recorded_run(path: Path) -> None:
    facts, data = json.loads(path.with_suffix(".json").read_text()), load_file(path)
    settings, states = facts["settings"], data["hidden"].float()
    rule = MergeRule(settings["tau"], settings["M"], settings["ema"])
    plan = plan_frames(len(states), fetch_similarities(states, rule.max_frames), rule)
    merged = merge_frames(states, plan)
    assert [list(segment) for segment in plan.segments] == data["groups"].tolist()
    assert [[frame.first, frame.second] for frame in plan.frames] == data["aux_sources"].tolist()
    assert [frame.weight for frame in plan.frames] == pytest.approx(data["aux_weight"].tolist(), abs=1e-6)
    torch.testing.assert_close(merged, data["merged"], atol=1e-5, rtol=0)
    torch.testing.assert_close(merge_frames(data["attn"], plan), data["merged_attn"], atol=1e-5, rtol=0)
    final = plan.segments
    if settings["last_layer"]:
        final = stream_segments(len(merged), fetch_similarities(merged, rule.max_frames), rule)
    assert [list(segment) for segment in final] == data["final_groups"].tolist()


def test_recorded_runs_are_there() -> None:
    assert len(GOLDENS) == 8
