"""FlashVID's cuts: the worked example, the strict threshold, ties, and videos of few frames."""

import torch

from holitom.methods.flashvid.segmentation import (
    cut_frames,
    frame_means,
    frame_similarity,
    mean_of_segments,
    segments_of,
)


def cuts(similarity: list[float], threshold: float = 0.9, least: int = 8, complementary: bool = True) -> list[int]:
    return cut_frames(torch.tensor(similarity), threshold, least, complementary).nonzero().flatten().tolist()


EXAMPLE = [0.95, 0.85, 0.97, 0.99, 0.91, 0.80, 0.98, 0.96, 0.93]


def test_worked_example() -> None:
    found = cut_frames(torch.tensor(EXAMPLE), 0.9, 4)
    assert found.nonzero().flatten().tolist() == [1, 4, 5]
    parts = segments_of(found)
    assert parts.number.tolist() == [0, 0, 1, 1, 1, 2, 3, 3, 3, 3]
    assert parts.first.nonzero().flatten().tolist() == [0, 2, 5, 6]
    assert parts.lengths.tolist() == [2, 2, 3, 3, 3, 1, 4, 4, 4, 4]


def test_cuts_beyond_the_natural_ones() -> None:
    assert cuts(EXAMPLE, complementary=False) == [1, 5]
    assert cuts(EXAMPLE, least=3) == [1, 5], "two natural cuts make three segments"
    assert cuts(EXAMPLE, least=1) == [1, 5]
    assert cuts(EXAMPLE, threshold=0.8, least=1) == [], "a similarity at the threshold is no cut"
    assert cuts([0.95, 0.93, 0.93, 0.95], least=2) == [1], "of equal ones the earlier"
    assert cuts([0.95, 0.2, 0.99]) == [0, 1, 2], "fewer frames than segments: all are cut, none twice"
    assert cuts([]) == []
    assert cuts([1.0, 1.0, 1.0], least=3) == [0, 1]


def test_means_are_those_of_the_segments() -> None:
    features = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0))
    parts = segments_of(torch.tensor([False, True, False, False]))
    means = mean_of_segments(frame_means(features), parts)
    torch.testing.assert_close(means[0], features[:2].double().mean((0, 1)))
    torch.testing.assert_close(means[4], features[2:].double().mean((0, 1)))
    assert torch.equal(means[0], means[1])


def test_similarity_is_that_of_mean_tokens() -> None:
    features = torch.tensor([[[2.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, -1.0]], [[0.0, 3.0], [0.0, 1.0]]])
    assert frame_similarity(frame_means(features)).tolist() == [1.0, 0.0]
    assert frame_similarity(frame_means(features[:1])).tolist() == []
