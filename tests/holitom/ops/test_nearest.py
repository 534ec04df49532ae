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


def halves(rows: torch.Tensor, others: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return rows.bfloat16(), others.bfloat16()


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
    found = most_similar(rows, others, halves(rows, others) if dtype == torch.bfloat16 else None, shortlist)
    lost = wanted.amax(1) - wanted.gather(1, found[:, None])[:, 0]
    assert (lost <= 1e-6 * rows.double().norm(dim=1)).all()
    assert (found[lost == 0] == wanted.argmax(1)[lost == 0]).all()


@pytest.mark.parametrize("common", [0.0, 3.0])
@pytest.mark.parametrize("narrow", [True, False])
def test_bounds_hold_and_candidates_are_few(narrow, common):
    generator = torch.Generator().manual_seed(0)
    rows, others = (torch.randn(count, 256, generator=generator) + common * torch.ones(256) for count in (80, 40))
    if narrow:
        rows, others = rows.bfloat16().float(), others.bfloat16().float()
    lengths = others.norm(dim=1)
    upper, errors = nearest.rough_similarity(rows, others, lengths, halves(rows, others) if narrow else None)
    truth = exact(rows, others)
    slack = nearest.SUMMING * rows.norm(dim=1, keepdim=True)
    assert (upper - errors <= truth + slack).all()
    found = nearest.candidates(rows, others, lengths, halves(rows, others) if narrow else None)
    assert found is not None
    assert found.isfinite().sum() < 10 * len(rows)
    assert found.isfinite().gather(1, truth.argmax(1, keepdim=True)).all()


def test_equal_rows_go_to_the_first_and_many_candidates_to_the_whole_product():
    rows, others = torch.randn(70, 32, generator=torch.Generator().manual_seed(0)), torch.ones(50, 32)
    assert nearest.candidates(rows, others, others.norm(dim=1), narrow=None) is None
    assert most_similar(rows.abs(), others, None, True).tolist() == [0] * 70
