"""Distances by strips of a triangle and parts of the channels, against the whole float64 product."""

import pytest
import torch

from holitom.ops import clustering
from holitom.ops.clustering import density_peak_scores, gram_matrix, log_density, merge_clusters, squared_distances
from holitom.ops.token_ops import highest

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def awkward(count: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Two groups with duplicates, pairs closer than float32 products can tell, zeros and lengths far apart."""
    draw = torch.Generator().manual_seed(seed)
    points = torch.randn(2, count, 33, generator=draw) + torch.tensor([0.0, 300.0])[:, None, None]
    points[:, 10:20] = points[:, :10]
    points[:, 20:30] = points[:, :10] * (1 + 2**-6 * torch.randn(10, 1, generator=draw))
    points[:, 30] = 0
    points[:, 31] *= 1e4 if dtype == torch.float16 else 1e15
    points[:, 32] *= 1e-7 if dtype == torch.float16 else 1e-25
    return points.clamp(-6e4, 6e4).to(dtype) if dtype == torch.float16 else points.to(dtype)


def whole_squares(points: torch.Tensor) -> torch.Tensor:
    """Squared distances per channel from one float64 product of everything."""
    gram = points.double() @ points.double().mT
    lengths = gram.diagonal(dim1=1, dim2=2)
    squares = lengths[:, :, None] + lengths[:, None] - gram - gram.mT
    share = clustering.SAME_POINT * (lengths[:, :, None] + lengths[:, None])
    return squares.where(squares > share, 0) / points.shape[2]


def clustered(points: torch.Tensor, squares: torch.Tensor, clusters: int) -> tuple[torch.Tensor, torch.Tensor]:
    valid, counts = torch.ones(points.shape[:2], dtype=torch.bool), torch.full((len(points),), clusters)
    peaks = highest(density_peak_scores(squares, valid, counts.clamp_max(7), 7), valid, counts)
    return peaks, merge_clusters(points, squares, valid, peaks, clusters, 0.6).assignment


@pytest.mark.parametrize("channels", [7, 11, 33, 896])
@pytest.mark.parametrize("count", [63, 64, 65, 107])
@pytest.mark.parametrize("dtype", DTYPES)
def test_parts_choose_what_the_whole_product_chooses(dtype, count, channels, monkeypatch):
    monkeypatch.setattr(clustering, "CHANNELS", channels)
    points = awkward(count, dtype, count)
    squares, wanted = squared_distances(points), whole_squares(points)
    assert torch.equal(squares, squares.mT)
    assert not squares.diagonal(dim1=1, dim2=2).any()
    lengths = points.double().square().mean(2)
    rounding = 2e-7 * wanted + 1e-13 * (lengths[:, :, None] + lengths[:, None]) + 2e-45  # float32 has nothing smaller
    assert ((squares - wanted).abs() <= rounding).all()
    assert torch.equal(squares[:, :10, 40:], squares[:, 10:20, 40:])  # duplicates are equally far from all others
    for found, expected in zip(clustered(points, squares, 9), clustered(points, wanted.float(), 9), strict=True):
        assert torch.equal(found, expected)


def test_a_value_that_is_not_finite_spoils_its_own_row_only():
    points = torch.randn(1, 70, 20, generator=torch.Generator().manual_seed(0))
    clean = squared_distances(points)
    for bad in (torch.nan, torch.inf):
        points[0, 5, 3] = bad
        gram, squares = gram_matrix(points), squared_distances(points)
        assert not gram[0, 5].isfinite().any()
        assert not squares[0, 5].any()  # as ever: what is no number counts as no distance
        rest = torch.arange(70) != 5
        assert torch.equal(squares[0, rest][:, rest], clean[0, rest][:, rest])


def test_the_nearest_are_those_of_a_sort_by_torch():
    """Infinite distances of points that do not exist come last, equal ones count as often as they occur."""
    draw = torch.Generator().manual_seed(1)
    squares = torch.randint(0, 9, (3, 80, 80), generator=draw).float()
    valid = torch.rand(3, 80, generator=draw) > 0.3
    valid[2] = torch.arange(80) < 4
    count = torch.tensor([7, 3, 7])
    found = log_density(squares, valid, count, 7)
    for group, k in enumerate((7, 3, 4)):
        nearest = squares[group][:, valid[group]].double().sort(dim=1).values[:, :k].mean(1)
        assert torch.equal(found[group][valid[group]], -nearest[valid[group]])
        assert found[group][~valid[group]].isinf().all()
