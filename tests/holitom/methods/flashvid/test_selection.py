"""FlashVID's picks: the worked example, weights of either sign, and no token twice."""

import pytest
import torch

from holitom.methods.flashvid.selection import pick_order, pick_tokens
from holitom.ops import exact_similarity
from tests.references.flashvid import pick

EXAMPLE = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]])
ATTENTION = torch.tensor([[0.5, 0.3, 0.2]])


def test_worked_example() -> None:
    assert pick_tokens(EXAMPLE, ATTENTION, EXAMPLE.double().mean(1), 2).tolist() == [[True, True, False]]
    assert pick([*EXAMPLE[0].double().numpy()], ATTENTION[0].tolist(), EXAMPLE[0].double().mean(0).numpy(), 2) == [0, 1]


def test_first_pick_is_the_second_smallest_of_the_column() -> None:
    """From the row to the column: the candidate is the column, and a negative second smallest stays one."""
    distances = torch.tensor([[0.0, 5.0, 1.0], [2.0, 0.0, 3.0], [4.0, 6.0, 0.0]], dtype=torch.float64)
    assert pick_order(distances[None], 3).tolist() == [[1, 2, 0]]  # 2, 5, 1 are the second smallest
    negative = torch.tensor([[0.0, -1.0, 0.1], [-3.0, 0.0, 0.2], [-2.0, -4.0, 0.0]], dtype=torch.float64)
    assert pick_order(negative[None], 1).tolist() == [[2]]
    assert pick_order(negative[None][:, :2, :2], 1).tolist() == [[0]], "0 and 0: the lower position"


def test_no_token_twice() -> None:
    """Duplicates and negative relevance leave nothing to gain; the release repeats a pick there."""
    features = torch.tensor([[[1.0, 0.0]] * 4 + [[0.9, 0.1], [-1.0, 0.0]]])
    picked = pick_tokens(features, torch.ones(1, 6), features.double().mean(1), 5)
    assert int(picked.sum()) == 5
    order = pick_order(torch.zeros(2, 4, 4, dtype=torch.float64), 4)
    assert order.tolist() == [[0, 1, 2, 3]] * 2
    assert pick_order(torch.zeros(1, 4, 4, dtype=torch.float64), 0).shape == (1, 0)
    assert pick_tokens(features[:, :1], torch.ones(1, 1), features[:, 0].double(), 1).all()


@pytest.mark.parametrize("tokens", [11, 60])  # of 60 one triangle of the table is computed, in strips
@pytest.mark.parametrize("centred", [False, True])
def test_equals_the_loops(centred: bool, tokens: int, monkeypatch) -> None:
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(6, tokens, 5, generator=generator) + (0 if centred else 1)
    attention = torch.rand(6, tokens, generator=generator)
    means = features.double().mean((0, 1)).expand(6, -1)
    monkeypatch.setattr(exact_similarity, "PASS_ELEMENTS", tokens * tokens * 4)  # two passes
    for count in (1, 4, 11):
        got = pick_tokens(features, attention, means, count)
        for frame in range(6):
            want = pick([*features[frame].double().numpy()], attention[frame].tolist(), means[0].numpy(), count)
            assert got[frame].nonzero().flatten().tolist() == sorted(want)
