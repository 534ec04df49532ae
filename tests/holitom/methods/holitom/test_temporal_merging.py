"""Temporal merging: the adjusted ratio, static masks and segment averages."""

import pytest
import torch

from holitom.methods.holitom.temporal_merging import adjusted_ratio, static_masks
from holitom.methods.holitom.temporal_segmentation import static_run_lengths
from holitom.ops.group_clustering import ClusterRule, TokenGroups, cluster_groups, segment_means


def test_adjusted_ratio_of_the_worked_example():
    assert adjusted_ratio(0.25, 8, 2) == pytest.approx(1 / 3)


@pytest.mark.parametrize("ratio", [0.04, 0.1, 0.15, 0.2, 0.25, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("total", [20, 196, 6272, 10816])
def test_nothing_removable_leaves_the_ratio_exactly_as_it_is(ratio, total):
    """Multiplying by the total first can move the ratio by one ulp, and the rounding up by one token."""
    assert adjusted_ratio(ratio, total, 0) == ratio


@pytest.mark.parametrize("frames", [2, 5, 10])
def test_identical_frames(frames):
    assert adjusted_ratio(0.1, frames * 196, (frames - 1) * 196) == pytest.approx(min(1, 0.1 * frames))


def masks_of(runs, segments):
    first, last = torch.tensor(segments).T
    return static_masks(runs, last, last - first + 1)


def test_masks_hold_over_the_whole_segment_only():
    similarity = torch.tensor([[0.9, 0.9, 0.1], [0.9, 0.1, 0.9], [0.9, 0.9, 0.9]])
    runs = static_run_lengths(similarity, 0.8)
    assert masks_of(runs, [(0, 1), (2, 3)]).tolist() == [[True, True, False], [True, True, True]]
    assert masks_of(runs, [(0, 2), (3, 3)]).tolist() == [[True, False, False], [False, False, False]]
    assert masks_of(runs, [(0, 0), (1, 3)]).tolist() == [[False, False, False], [True, False, True]]
    assert masks_of(runs[:0], [(0, 0)]).tolist() == [[False, False, False]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_static_tokens_are_averaged_over_their_segment(dtype):
    """Keeping every static token leaves the averages themselves, in raster order, segment after segment."""
    features = torch.randn(5, 4, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    masks = torch.tensor([[True, False, True, True], [False] * 4, [False, True, False, False]])
    segments = [(0, 1), (2, 2), (3, 4)]
    groups = TokenGroups(masks, [3, 0, 1], [3, 0, 1])
    found = cluster_groups(features, groups, segment_means(segments), ClusterRule(7, 0.6))
    wide = features.double()
    expected = torch.cat([wide[:2, [0, 2, 3]].mean(0), wide[3:, [1]].mean(0)])
    assert found.features.dtype == dtype
    torch.testing.assert_close(found.features, expected.to(dtype))
    assert found.centers.tolist() == [0, 2, 3, 1]
    assert found.membership.tolist() == [[0, -1, 1, 2], [-1] * 4, [-1, 3, -1, -1]]


def test_the_worked_example_of_merging():
    """Two frames whose averages are 0, 0.1, 0.3, 1.0 and 1.15."""
    line = torch.tensor([0, 0.1, 0.3, 1.0, 1.15])[None, :, None]
    features = torch.cat([line + 0.05, line - 0.05])
    whole = TokenGroups(torch.ones(1, 5, dtype=torch.bool), [5], [3])
    found = cluster_groups(features, whole, segment_means([(0, 1)]), ClusterRule(3, 0.6))
    assert found.features.flatten().tolist() == pytest.approx([0.06, 0.3, 1.06])
    assert found.centers.tolist() == [1, 2, 3]
