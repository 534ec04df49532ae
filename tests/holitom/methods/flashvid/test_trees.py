"""FlashVID's links and trees: worked examples of both divisors and of the protected budget."""

import torch

from holitom.methods.flashvid import trees
from holitom.methods.flashvid.segmentation import FrameSegments, segments_of
from holitom.methods.flashvid.selection import pick_tokens
from holitom.methods.flashvid.trees import Links, link_tokens, merge_trees, merged_tokens


def one_segment(frames: int) -> FrameSegments:
    return segments_of(torch.zeros(frames - 1, dtype=torch.bool))


def nothing(frames: int, tokens: int) -> torch.Tensor:
    return torch.zeros(frames, tokens, dtype=torch.bool)


def roots(features: torch.Tensor, tree_mean: bool = False):
    frames, tokens, _ = features.shape
    links = link_tokens(features, nothing(frames, tokens), one_segment(frames))
    merged = links.similarity > 0.8
    values, root = merge_trees(features, links, merged, tree_mean)
    return values[~merged], root


def test_chain() -> None:
    """1 <- 2 <- 4: the root's sum is all three, its direct children are one."""
    features = torch.tensor([1.0, 2.0, 4.0]).view(3, 1, 1)
    assert roots(features)[0].tolist() == [[3.5]]
    assert roots(features)[1].tolist() == [[0], [0], [0]]
    torch.testing.assert_close(roots(features, tree_mean=True)[0], torch.tensor([[7 / 3]]))


def test_branch() -> None:
    """Two children of one root, one with a child of its own."""
    far = [-1.0, 0.0]  # a token of its own in each frame
    features = torch.tensor([[[1.0, 0.0], far], [[1.0, 0.1], [1.0, -0.1]], [[1.0, -0.1], [0.0, 1.0]]])
    links = link_tokens(features, nothing(3, 2), one_segment(3))
    assert links.parent[1:].tolist() == [[0, 0], [1, 0]]
    merged = links.similarity > 0.8
    assert merged.tolist() == [[False, False], [True, True], [True, False]]
    for mean, want in ((False, [4 / 3, -0.1 / 3]), (True, [1.0, -0.025])):
        values, root = merge_trees(features, links, merged, mean)
        torch.testing.assert_close(values[0, 0], torch.tensor(want))
        assert root.tolist() == [[0, 1], [0, 0], [0, 5]]
        assert torch.equal(values[0, 1], features[0, 1])


def test_links() -> None:
    features = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], [[2.0, 0.0], [1.0, 1.0], [0.0, -1.0]]])
    picked = torch.tensor([[True, False, False], [False, False, True]])
    links = link_tokens(features, picked, one_segment(2))
    assert links.parent[1, :2].tolist() == [2, 1], "a picked token is no parent; of equal ones the first"
    assert links.similarity[0].tolist() == [-1, -1, -1]
    assert float(links.similarity[1, 2]) == -1, "a picked token has no link"
    assert links.similarity[1, 0] == 1
    apart = link_tokens(features, picked, segments_of(torch.tensor([True])))
    assert (apart.similarity == -1).all(), "no link over a cut"
    full = link_tokens(features, torch.tensor([[True] * 3, [False] * 3]), one_segment(2))
    assert (full.similarity == -1).all(), "no free token in the frame before"


def links_of(rows: list[list[float]]) -> Links:
    similarity = torch.tensor(rows)
    return Links(torch.zeros_like(similarity, dtype=torch.int64), similarity)


def test_protection() -> None:
    """Three of eight would merge and leave five of the six that the budget grants: the threshold rises to 0.90."""
    picked = torch.tensor([[True, False, False, False]] * 2)
    links = links_of([[-1.0] * 4, [-1.0, 0.95, 0.90, 0.85]])
    merged = merged_tokens(links, picked, one_segment(2), 0.8, 3)
    assert merged.tolist() == [[False] * 4, [False, True, False, False]]
    assert merged_tokens(links, picked, one_segment(2), 0.8, 2).sum() == 3, "the budget allows it"
    assert merged_tokens(links, picked, one_segment(2), 0.85, 2).sum() == 2, "strictly above"


def test_protection_is_per_segment() -> None:
    links = links_of([[-1.0, -1.0], [0.99, 0.98], [-1.0, -1.0], [0.97, 0.1]])
    parts = segments_of(torch.tensor([False, True, False]))
    merged = merged_tokens(links, nothing(4, 2), parts, 0.8, 1)
    assert merged.tolist() == [[False, False], [True, True], [False, False], [True, False]]
    # Two tokens a frame of 3 are granted to the first segment, whose second link sets the threshold.
    links = links_of([[-1.0] * 3, [0.99, 0.98, 0.97], [-1.0] * 3, [0.9, 0.1, 0.1]])
    merged = merged_tokens(links, nothing(4, 3), parts, 0.8, 2)
    assert merged.tolist() == [[False] * 3, [True, False, False], [False] * 3, [True, False, False]]


def test_equal_links_at_the_raised_threshold_stay() -> None:
    links = links_of([[-1.0] * 3, [1.0] * 3])
    assert not merged_tokens(links, nothing(2, 3), one_segment(2), 0.8, 2).any()


def test_of_equal_tokens_the_first_is_linked_to() -> None:
    """Whatever order their products are added in."""
    for seed in range(5):
        features = torch.randn(6, 40, 896, generator=torch.Generator().manual_seed(seed))
        features[:, 20:] = features[:, :20]  # each token twice
        links = link_tokens(features, nothing(6, 40), one_segment(6))
        assert int(links.parent.max()) < 20
        assert torch.equal(links.parent[:, :20], links.parent[:, 20:])


def test_several_passes_are_one(monkeypatch) -> None:
    features = torch.randn(9, 7, 5, generator=torch.Generator().manual_seed(0))
    picked = pick_tokens(features, torch.rand(9, 7), features.double().mean(1), 2)
    whole = link_tokens(features, picked, one_segment(9))
    monkeypatch.setattr(trees, "frames_at_once", lambda features: 2)
    parts = link_tokens(features, picked, one_segment(9))
    assert torch.equal(whole.parent, parts.parent)
    assert torch.equal(whole.similarity, parts.similarity)
