"""The shortlist by a low-precision product never changes which row is the most similar one."""

import pytest
import torch

from holitom.ops import nearest
from holitom.ops.nearest import most_similar


def make(dtype: torch.dtype, common: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows with near ties, exact duplicates, very different lengths and a part that all share."""
    generator = torch.Generator().manual_seed(seed)
    others = torch.randn(60, 96, generator=generator)
    others[30:40] = others[:10]
    others[40:50] = others[:10] + 2e-3 * torch.randn(10, 96, generator=generator)
    others *= 10 ** torch.randn(60, 1, generator=generator)
    shared = common * torch.randn(96, generator=generator)
    rows = others.repeat(2, 1) + 0.5 * torch.randn(120, 96, generator=generator)
    return (rows + shared).to(dtype).float(), (others + shared).to(dtype).float()


def listed(rows: torch.Tensor, others: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Both in one matrix and turn about as far as they go, and where they are in it."""
    at = torch.argsort(torch.cat([torch.arange(len(rows)) / len(rows), torch.arange(len(others)) / len(others)]))
    places = at.argsort()
    return torch.cat([rows, others])[at], places[: len(rows)], places[len(rows) :]


def exact(rows: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Cosine similarity times the length of the row, in float64, every pair by itself."""
    return (rows.double()[:, None] * others.double()).sum(-1) / others.double().norm(dim=1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("common", [0.0, 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shortlist", [True, False])
def test_finds_the_most_similar(dtype, common, seed, shortlist):
    rows, others = make(dtype, common, seed)
    wanted = exact(rows, others)
    vectors, *places = listed(rows, others)
    found = most_similar(vectors.to(dtype), *places, shortlist)
    lost = wanted.amax(1) - wanted.gather(1, found[:, None])[:, 0]
    assert (lost <= 1e-6 * rows.double().norm(dim=1)).all()
    assert (found[lost == 0] == wanted.argmax(1)[lost == 0]).all()


@pytest.mark.parametrize("common", [0.0, 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bounds_hold_and_few_rows_need_more(dtype, common, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    rows, others = (
        (torch.randn(count, 256, generator=generator) + common * torch.ones(256)).to(dtype) for count in (80, 40)
    )
    vectors, *places = listed(rows, others)
    upper, errors, lengths = nearest.rough_similarity(vectors, *places)
    truth = exact(rows, others)
    assert torch.allclose(lengths, others.float().norm(dim=1))
    assert (upper >= truth).all()
    assert (upper - errors <= truth).all()
    asked = []
    products = nearest.listed_products
    monkeypatch.setattr(nearest, "listed_products", lambda *given: asked.append(len(given[-1])) or products(*given))
    found = nearest.by_shortlist(vectors, *places)
    assert found is not None
    assert found.equal(truth.argmax(1))
    # states in bfloat16 are not rounded at all: what they share costs them little
    assert asked[0] < (10 if dtype == torch.float32 else 3) * len(rows)


def test_equal_rows_go_to_the_first_and_many_candidates_to_the_whole_product():
    rows, others = torch.randn(70, 32, generator=torch.Generator().manual_seed(0)), torch.ones(50, 32)
    vectors, *places = listed(rows.abs(), others)
    assert nearest.by_shortlist(vectors, *places) is None
    assert most_similar(vectors, *places, True).tolist() == [0] * 70


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_values_that_are_not_finite_go_to_the_whole_product(bad):
    rows, others = make(torch.float32, 0.0, 0)
    rows[5, 3] = bad
    vectors, *places = listed(rows, others)
    assert nearest.by_shortlist(vectors, *places) is None
