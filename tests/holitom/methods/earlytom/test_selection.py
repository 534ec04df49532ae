"""EarlyTom's selection of tokens: worked examples, the table, the naive loops, and the recordings of the release."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from holitom.methods.earlytom.selection import (
    edge_count,
    edge_frames,
    middle_count,
    ratio_after_merging,
    select_tokens,
    windows,
)
from tests.references import earlytom as reference

GOLDENS = sorted((Path(__file__).parents[3] / "goldens_newer").glob("earlytom_select_*.safetensors"))
TABLE = {
    32: ((49, 49), (40, 39), (30, 29), (20, 20)),
    20: ((79, 78), (63, 63), (48, 47), (32, 31)),
    17: ((93, 92), (74, 74), (56, 55), (37, 37)),
    12: ((131, 131), (105, 105), (79, 78), (53, 52)),
    8: ((196, 196), (157, 157), (118, 118), (79, 78)),
}


@pytest.mark.parametrize("merged", TABLE)
def test_counts_of_the_table(merged: int) -> None:
    for ratio, counts in zip((0.25, 0.2, 0.15, 0.1), TABLE[merged], strict=True):
        adjusted = ratio_after_merging(ratio, 32, merged)
        assert (edge_count(196, adjusted), middle_count(196, adjusted)) == counts


def test_worked_examples() -> None:
    assert ratio_after_merging(0.1, 32, 8) == 0.4
    assert ratio_after_merging(0.5, 32, 4) == 1
    assert (edge_count(14, 0.25), middle_count(14, 0.25), windows(14, 4)) == (4, 4, [4, 4, 3, 3])
    assert (edge_count(10, 0.25), middle_count(10, 0.25)) == (3, 2)
    assert middle_count(10, 0.01) == 1
    assert edge_frames([(0, 0), (1, 2), (3, 6)]) == [True, True, True, True, False, False, True]


def test_windows_spread_the_picks() -> None:
    """Three columns attract all attention; an edge frame keeps just them, a middle frame one token a window."""
    attention = torch.tensor([[9.0, 8.0, 7.0, 1.0, 2.0, 3.0, 3.0]]).expand(3, -1)
    kept = select_tokens(attention, [(0, 2)], 3 / 7)
    assert kept.tolist() == [0, 1, 2, 7, 7 + 4, 7 + 5, 14, 15, 16]


@pytest.mark.parametrize("ratio", [0.05, 0.3, 0.62, 1.0])
@pytest.mark.parametrize("tokens", [9, 14])
def test_equals_the_loops(ratio: float, tokens: int) -> None:
    attention = torch.randint(0, 6, (9, tokens), generator=torch.Generator().manual_seed(tokens)).float()  # with ties
    groups = [(0, 0), (1, 2), (3, 5), (6, 8)]
    kept = select_tokens(attention, groups, ratio_after_merging(ratio, 9, 9))
    want = reference.select(attention.tolist(), groups, 9, ratio)
    assert kept.tolist() == [t * tokens + p for t, p in want]


@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem)
def test_recorded_run(path: Path) -> None:
    facts, data = json.loads(path.with_suffix(".json").read_text()), load_file(path)
    ratio = ratio_after_merging(facts["settings"]["retain_ratio"], facts["initial_frames"], facts["frames"])
    assert ratio == facts["adjusted_ratio"]
    kept = select_tokens(data["attn"], [(first, last) for first, last in data["groups"].tolist()], ratio)
    assert torch.equal(kept.int(), data["index"])
    assert torch.equal(data["X"].float().flatten(0, 1)[kept], data["tokens"])
    assert (edge_count(facts["S"], ratio), middle_count(facts["S"], ratio)) == (
        facts["tokens_edge_frame"],
        facts["tokens_middle_frame"],
    )


def test_recorded_runs_are_there() -> None:
    assert len(GOLDENS) == 4
