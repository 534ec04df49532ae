"""Segmentation: worked examples, brute force over every segmentation, and the similarity itself."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from holitom.methods.holitom.temporal_segmentation import (
    SEGMENTERS,
    optimal_segments,
    static_counts,
    static_run_lengths,
)
from holitom.ops.similarity import similarity_and_norms
from tests.references import outer as reference


def segment(similarity, threshold=0.8, longest=1024, rule="global"):
    runs = static_run_lengths(torch.as_tensor(similarity, dtype=torch.float32), threshold)
    return SEGMENTERS[rule](static_counts(runs, min(len(similarity) + 1, longest)), longest)


def test_a_tie_leaves_the_last_frames_alone():
    """Counting [0, 2] as a segment would remove as many tokens as [0, 1] does."""
    found = segment([[0.9, 0.9], [0.9, 0.1], [0.1, 0.1]])
    assert found.segments == [(0, 1), (2, 2), (3, 3)]
    assert found.removable == 2
    assert found.static_counts == [2, 0, 0]


def test_the_best_segmentation_is_not_the_greedy_one():
    found = segment([[0.9, 0.9, 0.9], [0.9, 0.2, 0.9], [0.9, 0.9, 0.9], [0.1, 0.1, 0.9]])
    assert found.segments == [(0, 1), (2, 3), (4, 4)]
    assert found.removable == 6
    assert found.static_counts == [3, 3, 0]


def test_greedy_cuts_see_no_further_than_their_own_segment():
    """Alone, [0, 2] saves most of what begins at 0; but then the pair [2, 3] is lost, which saves more."""
    similarity = [[0.9, 0.9, 0.1, 0.1], [0.9, 0.9, 0.1, 0.1], [0.1, 0.9, 0.9, 0.9]]
    greedy, best = segment(similarity, rule="greedy"), segment(similarity)
    assert (greedy.segments, greedy.removable) == ([(0, 2), (3, 3)], 4)
    assert (best.segments, best.removable) == ([(0, 1), (2, 3)], 5)


def test_fixed_cuts_do_not_look():
    found = segment([[0.9], [0.1], [0.9], [0.9], [0.9], [0.9]], longest=3, rule="fixed")
    assert (found.segments, found.static_counts, found.removable) == ([(0, 2), (3, 5), (6, 6)], [0, 1, 0], 2)


def test_counts_by_last_frame_and_length():
    runs = static_run_lengths(torch.tensor([[0.9, 0.9], [0.9, 0.1], [0.1, 0.1]]), 0.8)
    assert runs.tolist() == [[1, 1], [2, 0], [0, 0]]
    assert static_counts(runs, 4).tolist() == [[2, 0, 0, 0], [2, 2, 0, 0], [2, 1, 1, 0], [2, 0, 0, 0]]
    assert static_counts(runs, 2).tolist() == [[2, 0], [2, 2], [2, 1], [2, 0]]


def test_counts_of_longer_windows_are_not_used():
    runs = static_run_lengths(torch.full((5, 2), 0.9), 0.8)
    assert optimal_segments(static_counts(runs, 6), 3).segments == [(0, 2), (3, 5)]


def test_a_similarity_equal_to_the_threshold_is_not_static():
    assert static_run_lengths(torch.tensor([[0.5], [0.75]]), 0.5).tolist() == [[0], [1]]


@settings(derandomize=True, deadline=None, max_examples=60)
@given(frames=st.integers(1, 9), tokens=st.integers(1, 5), longest=st.integers(1, 10), data=st.data())
def test_no_segmentation_is_better_and_ties_follow_the_rule(frames, tokens, longest, data):
    size = (frames - 1) * tokens
    cells = data.draw(st.lists(st.sampled_from([0.9, 0.9, 0.1]), min_size=size, max_size=size))
    similarity = np.array(cells).reshape(frames - 1, tokens)
    value, segments = reference.segment_by_enumeration(similarity, 0.8, longest)
    found = segment(similarity, longest=longest)
    assert (found.removable, found.segments) == (value, segments)
    assert (value, segments) == reference.segment_by_prefixes(similarity, 0.8, longest)
    for rule in ("greedy", "fixed"):
        other = segment(similarity, longest=longest, rule=rule)
        assert (other.removable, other.segments) == reference.SEGMENTERS[rule](similarity, 0.8, longest)
        assert other.removable <= value
    expected = [len(reference.static_positions(similarity, 0.8, first, last)) for first, last in segments]
    assert found.static_counts == expected


CONSTANT = {"still": 0.9, "at the threshold": 0.8, "all zero": 0.0}


@pytest.mark.parametrize("longest", [1, 3, 1024])
@pytest.mark.parametrize("frames", [1, 2, 3, 30])
@pytest.mark.parametrize("kind", [*CONSTANT, "alternating"])
def test_ties_of_regular_videos(kind, frames, longest):
    """Where many cuts save alike, every last frame and length is a tie; similarities of one float32 value."""
    similarity = np.full((frames - 1, 4), CONSTANT.get(kind, 0.9), dtype=np.float32)
    if kind == "alternating":
        similarity[::2, 1:] = 0.1
    found = segment(similarity, np.float32(0.8).item(), longest)
    value, segments = reference.segment_by_prefixes(similarity, np.float32(0.8), longest)
    assert (found.removable, found.segments) == (value, segments)
    if kind != "still" and kind != "alternating":
        assert segments == [(frame, frame) for frame in range(frames)]


def test_a_window_much_longer_than_all_others_is_found():
    """One token stands still for 1,024 frames, the others from time to time: savings beyond 16 bits in one window."""
    similarity = np.random.default_rng(0).choice([0.9, 0.1], (1023, 40), p=[0.3, 0.7])
    similarity[:, :30] = 0.9
    found = segment(similarity)
    assert (found.segments, found.static_counts, found.removable) == ([(0, 1023)], [30], 30 * 1023)


@pytest.mark.parametrize(("frames", "tokens", "dim"), [(1, 3, 4), (2, 1, 1), (7, 5, 16), (33, 4, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_similarity_matches_the_loop(frames, tokens, dim, dtype):
    features = torch.randn(frames, tokens, dim, generator=torch.Generator().manual_seed(frames)).to(dtype)
    expected = reference.similarities(features.double().numpy())
    actual, _ = similarity_and_norms(features)
    assert actual.dtype == torch.float32
    assert actual.shape == (frames - 1, tokens)
    np.testing.assert_allclose(actual.numpy(), expected, atol=1e-6)


def test_similarity_does_not_depend_on_the_block_size():
    """Blocks overlap by one frame; a wrong overlap would lose or repeat pairs."""
    features = torch.randn(2**9, 64, 256, generator=torch.Generator().manual_seed(0))
    whole = torch.nn.functional.cosine_similarity(features[:-1], features[1:], dim=-1)
    assert len(features) * 64 * 256 > 2**21
    similarity, norms = similarity_and_norms(features)
    torch.testing.assert_close(similarity, whole, atol=1e-6, rtol=0)
    torch.testing.assert_close(norms, features.norm(dim=-1))


def test_similarity_of_extreme_lengths():
    big = torch.full((2, 1, 4), 6e4, dtype=torch.float16)
    assert similarity_and_norms(big)[0].item() == pytest.approx(1)
    assert similarity_and_norms(torch.full((2, 1, 4), 1e18))[0].item() == pytest.approx(1)
    assert similarity_and_norms(torch.zeros(2, 1, 4))[0].item() == 0


def test_identical_frames_are_not_more_similar_than_one():
    features = torch.randn(1, 50, 37, generator=torch.Generator().manual_seed(1)).expand(3, 50, 37)
    assert similarity_and_norms(features)[0].max() <= 1
