"""DPC-KNN: the worked example, ties, ragged batches and the naive loop."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from holitom.ops import group_clustering
from holitom.ops.clustering import (
    density_peak_scores,
    log_density,
    merge_clusters,
    squared_distances,
)
from holitom.ops.group_clustering import ClusterRule, TokenGroups, cluster_groups
from holitom.ops.token_ops import highest
from tests.references import outer as reference

GOLDENS = sorted((Path(__file__).parents[2] / "goldens").glob("dpc_*.safetensors"))
LINE = torch.tensor([0, 0.1, 0.3, 1.0, 1.15])[None, :, None]


def density_peak_centers(squares, valid, clusters, neighbors, most_neighbors):
    return highest(density_peak_scores(squares, valid, neighbors, most_neighbors), valid, clusters)


def centers_of(points, clusters, neighbors):
    """Centres of one group without padding."""
    points = torch.as_tensor(points)
    valid = torch.ones(points.shape[:2], dtype=torch.bool)
    count = torch.full((len(points),), neighbors)
    chosen = density_peak_centers(
        squared_distances(points), valid, torch.full((len(points),), clusters), count, neighbors
    )
    return [row.nonzero().flatten().tolist() for row in chosen]


def merge(points, clusters, neighbors, weight):
    valid = torch.ones(points.shape[:2], dtype=torch.bool)
    squares = squared_distances(points)
    many, count = (torch.full((len(points),), number) for number in (clusters, neighbors))
    chosen = density_peak_centers(squares, valid, many, count, neighbors)
    return merge_clusters(points, squares, valid, chosen, clusters, weight)


def test_density_of_the_worked_example():
    valid = torch.ones(1, 5, dtype=torch.bool)
    density = log_density(squared_distances(LINE), valid, torch.tensor([3]), 3).exp()[0]
    assert density.tolist() == pytest.approx([0.9672, 0.9835, 0.9576, 0.8430, 0.7801], abs=5e-5)


def test_reference_scores_of_the_worked_example():
    _, _, separation, score = reference.density_scores(LINE[0].double().numpy(), 3)
    assert separation == pytest.approx([0.1, 1.15, 0.2, 0.7, 0.15], abs=1e-6)
    assert score == pytest.approx([0.0967, 1.1310, 0.1915, 0.5901, 0.1170], abs=5e-5)


@pytest.mark.parametrize(("clusters", "expected"), [(1, [1]), (2, [1, 3]), (3, [1, 2, 3]), (5, [0, 1, 2, 3, 4])])
def test_centers_of_the_worked_example(clusters, expected):
    assert centers_of(LINE, clusters, 3) == [expected]


def test_merging_the_worked_example():
    mixed = merge(LINE, 3, 3, 0.6)
    assert mixed.features.flatten().tolist() == pytest.approx([0.06, 0.3, 1.06])
    assert mixed.centers.tolist() == [[1, 2, 3]]
    assert mixed.assignment.tolist() == [[0, 0, 1, 2, 2]]
    assert merge(LINE, 2, 3, None).features.flatten().tolist() == pytest.approx([0.4 / 3, 1.075])


def test_a_mutual_pair_is_decided_by_the_lower_index():
    """With k = 2 the two nearest neighbours of a pair are equally dense."""
    points = torch.tensor([[[5.0], [5.5], [0.0], [0.5]]])
    assert centers_of(points, 2, 2) == [[0, 2]]


def test_equal_points_are_taken_in_order():
    assert centers_of(torch.ones(1, 6, 3), 3, 3) == [[0, 1, 2]]
    merged = merge(torch.ones(1, 6, 3), 3, 3, 0.6)
    assert merged.assignment.tolist() == [[0, 1, 2, 0, 0, 0]]


def test_duplicates_tie_whatever_their_length():
    """Inner products round; equal vectors must still be at distance zero and equally far from everything else."""
    base = torch.randn(1, 9, 3584, generator=torch.Generator().manual_seed(3)) + 40
    squares = squared_distances(base.repeat(1, 2, 1))
    torch.testing.assert_close(squares[:, :9, 9:].diagonal(dim1=1, dim2=2), torch.zeros(1, 9), atol=0, rtol=0)
    assert torch.equal(squares[:, :9, :9], squares[:, 9:, 9:])
    assert torch.equal(squares, squares.mT)


def test_a_large_common_part_does_not_hide_the_distances():
    points = torch.randn(1, 12, 64, generator=torch.Generator().manual_seed(4)) * 0.01 + 300
    direct = ((points[:, :, None].double() - points[:, None].double()) ** 2).mean(-1)
    torch.testing.assert_close(squared_distances(points).double(), direct, rtol=1e-4, atol=1e-12)


def test_densities_far_below_the_float_range_still_rank():
    """exp(-5000) is zero in every precision; the tight pair must still come before the isolated points."""
    points = torch.tensor([[[0.0], [900.0], [1900.0], [2000.0], [3500.0]]])
    assert centers_of(points, 1, 2) == [[2]]


def test_points_that_do_not_exist_are_neither_neighbours_nor_centers():
    """Padding may lie anywhere; here it comes first, and the points that exist are all the same."""
    valid = torch.tensor([[False, True, True, True, False]])
    squares, three = squared_distances(torch.ones(1, 5, 2)), torch.tensor([3])
    assert density_peak_centers(squares, valid, three, three, 3).tolist() == valid.tolist()
    apart = squared_distances(torch.tensor([[[0.0], [1.0], [9.0]]]))
    pair = torch.tensor([[True, True, False]])
    assert log_density(apart, pair, torch.tensor([5]), 5).tolist() == [[-0.5, -0.5, -torch.inf]]


@settings(derandomize=True, deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), groups=st.integers(1, 5), tokens=st.integers(1, 12), data=st.data())
def test_ragged_groups_match_the_loop(seed, groups, tokens, data):
    random = np.random.default_rng(seed)
    features = random.normal(size=(groups, tokens, 5)).astype(np.float32)
    mask = random.random((groups, tokens)) > 0.4
    sizes = mask.sum(1).tolist()
    clusters = [data.draw(st.integers(0, size)) for size in sizes]
    neighbors = data.draw(st.integers(1, 8))
    weight = data.draw(st.sampled_from([0.0, 0.6, 1.0, None]))
    table = torch.as_tensor(features)

    def load(features, hosts, chosen, positions):
        assert chosen.tolist() == hosts
        return features[chosen[:, None], positions]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group_clustering, "BATCH_ELEMENTS", data.draw(st.sampled_from([1, 150, 2**20])))
        ragged = TokenGroups(torch.as_tensor(mask), sizes, clusters)
        found = cluster_groups(table, ragged, load, ClusterRule(neighbors, weight))
    vectors, centers, start = [], [], 0
    for group in range(len(sizes)):
        positions = np.flatnonzero(mask[group])
        own = reference.cluster(features[group, positions].astype(np.float64), clusters[group], neighbors, weight)
        vectors += own[0]
        centers += positions[own[1]].tolist()
        expected = np.full(tokens, -1)
        if clusters[group]:
            expected[positions] = np.array(own[2]) + start
        assert found.membership[group].tolist() == expected.tolist()
        start += clusters[group]
    assert found.centers.tolist() == centers
    np.testing.assert_allclose(found.features.numpy(), np.array(vectors).reshape(-1, 5), atol=1e-5)


@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem)
def test_recorded_clusterings(path):
    settings_, data = json.loads(path.with_suffix(".json").read_text()), load_file(path)
    for name, weight in (("merged_beta06", 0.6), ("merged_no_beta", None)):
        found = merge(data["x"].float(), settings_["clusters"], settings_["k"], weight)
        assert torch.equal(found.centers, data["centers"].long())
        torch.testing.assert_close(found.features.float(), data[name], atol=1e-5, rtol=0)


def test_recorded_clusterings_are_there():
    assert len(GOLDENS) == 6
