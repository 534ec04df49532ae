"""FlashVID before the LLM: budgets, the naive loops, properties, and the recordings of the release."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from holitom.methods.flashvid.compression import FrameBudget, cluster_counts, compress_frames, frame_budget
from llava.errors import InputError
from tests.holitom.methods.flashvid.clips import RULES, clip
from tests.references import flashvid as reference

GOLDENS = sorted((Path(__file__).parents[3] / "goldens_newer").glob("flashvid_*.safetensors"))
GOLDENS = [path for path in GOLDENS if "llm_prune" not in path.name]
TABLE = [(0.25, 62, 44, 18), (0.20, 49, 35, 14), (0.15, 37, 26, 11), (0.10, 25, 18, 7)]


@pytest.mark.parametrize(("ratio", "total", "picked", "merged"), TABLE)
def test_budgets_of_the_table(ratio: float, total: int, picked: int, merged: int) -> None:
    budget = frame_budget(196, ratio, 1.25, 0.7)
    assert (budget.total, budget.picked, budget.merged) == (total, picked, merged)
    # Frames that stand for themselves meet it exactly.
    assert cluster_counts([196] * 4, [(t, t) for t in range(4)], merged) == [merged] * 4


def test_cluster_counts() -> None:
    assert cluster_counts([3, 2], [(0, 1)], 2) == [3, 2], "2.4 and 1.6: one over the budget"
    assert cluster_counts([25], [(0, 0)], 7) == [8], "25 * (7 / 25) is above 7 in double precision"
    assert cluster_counts([4, 0, 3], [(0, 1), (2, 2)], 2) == [4, 0, 2]
    assert cluster_counts([5], [(0, 0)], 0) == [0]


CASES = [
    (7, 13, (), {}, FrameBudget(5, 3)),
    (9, 13, (4,), {"min_segments": 2}, FrameBudget(5, 3)),
    (9, 13, (4, 8), {"min_segments": 1}, FrameBudget(4, 3)),
    (9, 13, (4,), {"min_segments": 2, "tree_mean": True, "single_frame_all": False}, FrameBudget(5, 3)),
    (6, 12, (), {"segment": False}, FrameBudget(8, 5)),
    (6, 12, (), {"segment": False, "link_threshold": 0.2}, FrameBudget(10, 2)),  # the budget is protected
    (8, 12, (), {"min_segments": 3, "neighbors": 2, "link_threshold": -1.0}, FrameBudget(6, 2)),
    (5, 12, (2,), {"complementary": False}, FrameBudget(6, 6)),
    (3, 9, (), {"min_segments": 1, "link_threshold": 1.0}, FrameBudget(2, 0)),
    (1, 9, (), {}, FrameBudget(5, 2)),
]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_equals_the_loops(case: int) -> None:
    frames, tokens, cuts, changes, budget = CASES[case]
    rules = replace(RULES, **changes)
    features, attention = clip(frames, tokens, cuts=cuts, seed=case)
    got = compress_frames(features, attention, budget, rules)
    want = reference.flashvid(features.double().numpy(), attention.double().numpy(), budget.total, budget.picked, rules)
    assert got.segments == want.segments
    assert [row.nonzero().flatten().tolist() for row in got.picked] == [sorted(row) for row in want.picked]
    assert got.candidates == [len(row) for row in want.kept]
    assert got.index.tolist() == [t * tokens + p for t, p, _, _ in want.entries]
    assert got.cluster.tolist() == [cluster for _, _, cluster, _ in want.entries]
    np.testing.assert_allclose(got.features.numpy(), [value for *_, value in want.entries], atol=2e-5)
    multi = sum(last - first + 1 for first, last in got.segments if last > first)
    assert frames * budget.total <= len(got.index) <= frames * budget.total + multi


def test_the_protected_case_is_one() -> None:
    frames, tokens, cuts, changes, budget = CASES[5]
    rules = replace(RULES, **changes)
    features, attention = clip(frames, tokens, cuts=cuts, seed=5)
    want = reference.flashvid(features.double().numpy(), attention.double().numpy(), budget.total, budget.picked, rules)
    assert want.threshold[0] > rules.link_threshold
    assert sum(len(row) for row in want.kept) == frames * budget.merged + 1


def test_permuted_frames_permute_the_output() -> None:
    """Up to eight frames are segments of their own."""
    features, attention = clip(7, 16)
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    budget = FrameBudget(6, 4)
    one = compress_frames(features, attention, budget, RULES)
    other = compress_frames(features[order], attention[order], budget, RULES)
    one_frames, other_frames = one.features.view(7, 6, -1), other.features.view(7, 6, -1)
    torch.testing.assert_close(other_frames, one_frames[order], atol=0, rtol=0)


def test_sources() -> None:
    features, attention = clip(9, 14, cuts=(5,), seed=2)
    got = compress_frames(features, attention, FrameBudget(6, 4), replace(RULES, min_segments=2))
    assert int(got.source.min()) >= 0, "every token goes somewhere"
    flat = features.flatten(0, 1)
    own = got.index[~got.cluster]
    assert torch.equal(got.source.flatten()[own], (~got.cluster).nonzero().flatten())
    assert torch.equal(got.features[~got.cluster], flat[own])
    clustered = got.source[~got.picked]
    assert set(clustered.tolist()) <= set(got.cluster.nonzero().flatten().tolist())
    centers = got.index[got.cluster]
    free = ~got.picked.flatten()[centers]
    assert torch.equal(got.source.flatten()[centers[free]], got.cluster.nonzero().flatten()[free])


def test_frames_that_are_alike() -> None:
    features = torch.randn(1, 12, 6, generator=torch.Generator().manual_seed(0)).expand(10, -1, -1)
    got = compress_frames(features, torch.rand(1, 12).expand(10, -1), FrameBudget(5, 3), RULES)
    assert got.segments == [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (7, 9)]


@pytest.mark.parametrize("name", ["features", "received_attention"])
def test_values_that_are_not_finite(name: str) -> None:
    features, attention = clip(4, 8)
    (features if name == "features" else attention)[2, 1] = torch.nan
    with pytest.raises(InputError, match=rf"{name} has NaN or infinite values in 1 of 4 frames \(frame 2\)"):
        compress_frames(features, attention, FrameBudget(3, 2), RULES)


@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem)
def test_recorded_run(path: Path) -> None:
    facts, data = json.loads(path.with_suffix(".json").read_text()), load_file(path)
    settings = facts["settings"]
    budget = frame_budget(facts["S"], settings["retention_ratio"], settings["expansion"], settings["alpha"])
    assert (budget.total, budget.picked) == (facts["budget_per_frame"], facts["n_attn_div"])
    rules = replace(
        RULES,
        segment=settings["do_segment"],
        min_segments=settings["min_segment_num"],
        segment_threshold=settings["segment_threshold"],
        complementary=settings["complementary_segment"],
        link_threshold=settings["temporal_threshold"],
    )
    got = compress_frames(data["X"].float(), data["attn"], budget, rules)
    if not facts["exact"]:
        assert got.picked.sum(1).tolist() == [budget.picked] * facts["T"]
        multi = sum(last - first + 1 for first, last in got.segments if last > first)
        assert facts["T"] * budget.total <= len(got.index) <= facts["T"] * budget.total + multi
        return
    assert torch.equal(got.index.int(), data["index"])
    assert torch.equal(got.cluster, data["aux_is_cluster"].bool())
    assert torch.equal(got.picked.nonzero()[:, 1].int().view(facts["T"], -1), data["picked"])
    if "segment_lengths" in data:
        lengths = [last - first + 1 for first, last in got.segments]
        assert lengths == [length for length in data["segment_lengths"].tolist() if length]
    long = [t for first, last in got.segments if last > first for t in range(first, last + 1)]
    assert [got.candidates[t] for t in long] == data["tstm_kept_per_frame"].tolist()
    torch.testing.assert_close(got.features, data["tokens"], atol=1e-5, rtol=0)


def test_recorded_runs_are_there() -> None:
    exact = [json.loads(path.with_suffix(".json").read_text())["exact"] for path in GOLDENS]
    assert (len(exact), sum(exact)) == (14, 12)
