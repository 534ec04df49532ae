"""Spatial merging: budgets, selection by received attention, and the clustered remainder."""

import numpy as np
import pytest
import torch

from holitom.methods.holitom.spatial_merging import dynamic_budget
from holitom.ops.group_clustering import ClusterRule, TokenGroups, cluster_groups, frame_tokens
from holitom.ops.token_ops import highest


@pytest.mark.parametrize(
    ("tokens", "ratio", "contextual", "expected"),
    [
        (2, 1 / 3, 0.0, (1, 0)),
        (196, 0.1, 0.0, (20, 0)),
        (196, 0.25, 0.0, (49, 0)),
        (196, 1.0, 0.0, (196, 0)),
        (0, 0.5, 0.4, (0, 0)),
        (71, 0.38620689655172413, 0.4, (17, 11)),
        (104, 0.5, 1.0, (0, 52)),
        (9, 1.0, 0.5, (4, 5)),  # 4.5 rounds to the even 4
        (11, 1.0, 0.5, (6, 5)),  # 5.5 rounds to the even 6
    ],
)
def test_budget(tokens, ratio, contextual, expected):
    assert dynamic_budget(np.array([tokens]), ratio, contextual) == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_selection_takes_the_highest_and_breaks_ties_by_position(dtype):
    attention = torch.tensor([[0.5, 0.5, 0.25, 0.5, 0.75], [0.25, 0.25, 0.25, 0.25, 0.25]], dtype=dtype)
    dynamic = torch.tensor([[True, True, True, True, False], [False, True, True, True, True]])
    chosen = highest(attention, dynamic, torch.tensor([2, 3]))
    assert chosen.tolist() == [[True, True, False, False, False], [False, True, True, True, False]]


def test_negative_scores_are_still_above_static_tokens():
    chosen = highest(torch.tensor([[-2.0, 5.0, -1.0]]), torch.tensor([[True, False, True]]), torch.tensor([2]))
    assert chosen.tolist() == [[True, False, True]]


def test_ties_stay_in_order_over_many_tokens():
    """A sort that is not stable shows only beyond a few dozen entries."""
    attention = torch.arange(729).remainder(3).float()[None]
    chosen = highest(attention, torch.ones(1, 729, dtype=torch.bool), torch.tensor([400]))
    expected = sorted(range(729), key=lambda p: (-(p % 3), p))[:400]
    assert chosen[0].nonzero().flatten().tolist() == sorted(expected)


def test_contextual_clusters_stay_within_their_frame():
    line = torch.tensor([0, 0.1, 0.3, 1.0, 1.15])
    features = torch.stack([line, line + 10]).unsqueeze(-1)
    rest = torch.ones(2, 5, dtype=torch.bool)
    found = cluster_groups(features, TokenGroups(rest, [5, 5], [3, 2]), frame_tokens, ClusterRule(3, 0.6))
    # k is 3 in the first frame and 2 in the second, where the pairs {0, 1} and {3, 4} lead.
    assert found.features[:3].flatten().tolist() == pytest.approx([0.06, 0.3, 1.06])
    assert found.centers.tolist() == [1, 2, 3, 0, 3]
    assert found.membership.tolist() == [[0, 0, 1, 2, 2], [3, 3, 3, 4, 4]]
