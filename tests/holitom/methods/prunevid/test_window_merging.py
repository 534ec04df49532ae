"""Similarity over a window, and the clusters of its groups: worked examples and limits."""

import pytest
import torch

from holitom.methods.prunevid.window_merging import budgeted_clusters, fixed_clusters, window_similarity
from holitom.ops.group_clustering import ClusterRule, TokenGroups, cluster_groups, frame_tokens


def test_mean_similarity_of_two_frames_is_their_cosine() -> None:
    features = torch.tensor([[[1.0, 0.0], [3.0, 4.0]], [[1.0, 1.0], [6.0, 8.0]]])
    got = window_similarity(features, [(0, 1)])
    torch.testing.assert_close(got, torch.tensor([[0.5**0.5, 1.0]]))
    assert window_similarity(features, [(0, 0), (1, 1)]).isneginf().all()


def test_zero_vectors_are_similar_to_nothing() -> None:
    assert window_similarity(torch.zeros(3, 1, 4), [(0, 2)]).tolist() == [[0]]


def test_no_similarity_is_above_one() -> None:
    same = torch.randn(1, 500, 64, generator=torch.Generator().manual_seed(0)).expand(7, -1, -1)
    similarity = window_similarity(same, [(0, 6)])
    assert similarity.max() <= 1
    torch.testing.assert_close(similarity, torch.ones(1, 500))


def test_mean_similarity_of_three_frames() -> None:
    features = torch.eye(3)[:, None]
    features[2] = features[1]
    torch.testing.assert_close(window_similarity(features, [(0, 2)]), torch.tensor([[1 / 3]]))


def test_clusters_of_the_worked_example() -> None:
    """C = 2 and k = 3 on the line of the worked example: plain means with their centre."""
    line = torch.tensor([0, 0.1, 0.3, 1.0, 1.15])[None, :, None]
    mask = torch.ones(1, 5, dtype=torch.bool)
    found = cluster_groups(line, TokenGroups(mask, [5], [2]), frame_tokens, ClusterRule(3, None, False))
    assert found.features.flatten().tolist() == pytest.approx([0.4 / 3, 1.075])
    assert found.centers.tolist() == [1, 3]
    assert found.scores[1].exp().item() == pytest.approx(0.5901, abs=5e-5)


def test_the_number_of_clusters_does_not_limit_the_neighbours() -> None:
    """With one cluster and k limited by it, every density would be 1 and the first token the centre."""
    line = torch.tensor([0, 0.1, 0.3, 1.0, 1.15])[None, :, None]
    mask = torch.ones(1, 5, dtype=torch.bool)
    one = TokenGroups(mask, [5], [1])
    assert cluster_groups(line, one, frame_tokens, ClusterRule(3, None, False)).centers.tolist() == [1]
    assert cluster_groups(line, one, frame_tokens, ClusterRule(3, None)).centers.tolist() == [0]


def test_rounding_of_the_cluster_counts() -> None:
    assert budgeted_clusters([0, 1, 2, 5, 7, 13], 0.5) == [0, 1, 1, 2, 4, 6]
    assert budgeted_clusters([0, 1, 3], 0.1) == [0, 1, 1]
    assert fixed_clusters([0, 14, 15, 29, 196], 0.5, 14) == [0, 14, 7, 14, 98]
    assert fixed_clusters([15], 0.05, 14) == [1]
