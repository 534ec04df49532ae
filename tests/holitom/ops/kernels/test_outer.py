"""Outer stage: similarity, run lengths, table of counts, ranking and clustering against their torch versions."""

import pytest
import torch

from holitom.methods.holitom.config import OuterConfig
from holitom.methods.holitom.outer import OuterCompression
from holitom.methods.holitom.temporal_segmentation import fetch_cut, static_run_lengths
from holitom.ops import clustering, kernels, token_ops
from holitom.ops.group_clustering import ClusterRule, TokenGroups, cluster_groups, segment_means
from holitom.ops.kernels import clusters, products, ranking, similarity
from holitom.ops.similarity import similarity_and_norms
from tests.drawn import HealthCheck, given, settings, st
from tests.holitom.ops.kernels.support import DTYPES, REAL, watched, within_twice

VIDEOS = [(1, 3, 5), (2, 1, 1), (9, 70, 33), (17, 5, 130)] + ([(32, 196, 3584), (33, 169, 896)] if REAL else [])


def still_video(random, frames, tokens, dim):
    """Tokens that move a little, some at one time much, and one of length zero."""
    video = random(1, tokens, dim) + 0.4 * random(frames, tokens, dim)
    video[frames // 2, 0] = 0
    return video


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("frames", "tokens", "dim"), VIDEOS)
def test_similarity_and_norms(random, dtype, frames, tokens, dim) -> None:
    features = still_video(random, frames, tokens, dim).to(dtype)
    wide = features.double()
    norms = wide.norm(dim=-1)
    lengths = norms.clamp_min(1e-8)
    wanted = ((wide[:-1] * wide[1:]).sum(-1) / (lengths[:-1] * lengths[1:])).clamp(-1, 1)
    found, found_norms = similarity.similarity_and_norms(features, 1e-8)
    plain, plain_norms = similarity_and_norms(features.cpu())
    assert found.dtype == found_norms.dtype == torch.float32
    within_twice(found_norms, plain_norms, norms)
    if frames > 1:
        within_twice(found, plain, wanted)
        assert found.abs().max() <= 1


def test_similarity_of_equal_frames_and_any_stride(random) -> None:
    features = random(1, 6, 40).expand(5, 6, 40)
    assert (similarity.similarity_and_norms(features, 1e-8)[0] > 1 - 1e-6).all()
    turned = random(4, 40, 6).mT
    within_twice(
        similarity.similarity_and_norms(turned, 1e-8)[0],
        similarity_and_norms(turned.cpu())[0],
        torch.cosine_similarity(turned[:-1].double(), turned[1:].double(), dim=-1),
    )


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_so(random, broken) -> None:
    features = random(9, 4, 6)
    features[8, 2, 1] = broken
    found, norms = similarity.similarity_and_norms(features, 1e-8)
    assert norms.isfinite().logical_not().nonzero().tolist() == [[8, 2]]
    assert not found[7, 2] > 0.5


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 40), st.integers(1, 70), st.floats(0, 1))
def test_runs(random, pairs, tokens, share) -> None:
    still = torch.where(random(pairs, tokens) * 0.5 + 0.5 < share, 0.9, 0.8)  # 0.8 itself is not above
    runs = similarity.static_run_lengths(still, 0.8)
    assert torch.equal(runs.cpu(), static_run_lengths(still.cpu(), 0.8))


def scene(random, kind: str, pairs: int, tokens: int) -> torch.Tensor:
    """Run lengths of a video with many ties between cuts: nothing moves, everything does, or chance decides."""
    share = {"still": 1.0, "restless": 0.0}.get(kind, 0.7)
    moves = torch.rand(pairs, tokens, generator=torch.Generator().manual_seed(pairs * tokens)) >= share
    return static_run_lengths(torch.where(moves, 0.1, 0.9), 0.8).to(random(1).device)


SCENES = [(kind, *shape) for kind in ("still", "restless", "mixed") for shape in [(1, 7, 1), (2, 1, 2), (30, 4, 30)]]


@pytest.mark.parametrize(("kind", "frames", "tokens", "longest"), [*SCENES, ("mixed", 130, 1, 3)])
def test_the_best_cut(random, kernels_off, monkeypatch, kind, frames, tokens, longest) -> None:
    """The same segments, budgets and broken frames as on the host, ties included."""
    runs, norms, received = (
        scene(random, kind, frames - 1, tokens),
        random(frames, tokens).abs(),
        random(frames, tokens),
    )
    received = received.half()
    norms[frames // 2, tokens - 1], received[frames - 1, tokens // 2] = torch.inf, torch.nan
    kernels_off()
    wanted = fetch_cut(runs.cpu(), norms.cpu(), received.cpu(), "global", longest)
    monkeypatch.setattr(kernels, "supported", lambda device: True)
    calls = watched(monkeypatch, "best_windows")
    assert fetch_cut(runs, norms, received, "global", longest) == wanted
    assert len(calls) == 1


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_highest_and_packed(random, device, data) -> None:
    rows, width = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 140))
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64, torch.float16]))
    scores = (2 * random(rows, width)).round().to(dtype)  # many ties
    eligible = random(rows, width) > data.draw(st.floats(-2, 2))
    counts = (eligible.sum(1) * data.draw(st.floats(0, 1))).long()
    marks = ranking.highest(scores, eligible, counts)
    assert torch.equal(marks.cpu(), token_ops.highest(scores.cpu(), eligible.cpu(), counts.cpu()))
    most = int(counts.max()) + data.draw(st.integers(0, 2))
    assert torch.equal(ranking.packed_positions(marks, most).cpu(), token_ops.packed_positions(marks.cpu(), most))


@pytest.mark.parametrize("dtype", ranking.RANKED)
def test_highest_of_what_is_not_a_number(random, dtype) -> None:
    """As many marks as asked for, those that torch would set: more would be written past the end of every list."""
    scores = random(3, 150).round().to(dtype)
    scores[0, ::3], scores[1, 100], scores[2, 5:140] = torch.nan, torch.nan, torch.nan
    eligible = random(3, 150) > -1
    counts = (eligible.sum(1) // 3)[:1].expand(3)
    marks = ranking.highest(scores, eligible, counts)
    assert torch.equal(marks.cpu(), token_ops.highest(scores.cpu(), eligible.cpu(), counts.cpu()))


def test_packed_positions_stay_in_their_row(device) -> None:
    """A row with too many entries must not reach memory that is not its own."""
    mask = torch.tensor([[0, 1, 0, 1, 0], [1] * 5], dtype=torch.uint8, device=device)
    columns = torch.full((7,), -1, device=device)
    ranking.list_marked[(2,)](mask, columns, 5, 2, 5, BLOCK=16)
    assert columns.tolist() == [1, 3, 0, 1, -1, -1, -1]


def test_packed_positions_of_a_row_of_many_blocks(random) -> None:
    mask = random(2, 2500) > 0
    most = int(mask.sum(1).max())
    assert torch.equal(ranking.packed_positions(mask, most).cpu(), token_ops.packed_positions(mask.cpu(), most))


@pytest.mark.parametrize("frames", [1, 4, 8, 32])
@pytest.mark.parametrize("points", [119, 196])
def test_products_fill_a_gpu(frames, points) -> None:
    """By shapes alone: an H100 has 132 multiprocessors; 32 x 196 tokens are 4 groups of 119 points at any budget."""
    (tiles, shares, groups), share = products.product_grid(frames, points, 3584)
    assert tiles * shares * groups >= 128
    assert (shares - 1) * share < 3584 <= shares * share, "a share without channels, or channels in none"
    assert shares * groups * points**2 * 8 <= 2**24, "more than 16 MiB of products"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("batch", "n", "dim"), [(1, 1, 1), (3, 33, 40), (1, 70, 130), (2, 64, 64)])
def test_distances_of_shared_products(fixed, dtype, batch, n, dim) -> None:
    """Tiles, shares and edges of both come together to what torch computes at once; equal points are at no distance."""
    points = fixed(batch, n, dim).to(dtype) + 30
    points[:, n // 2] = points[:, 0]
    sizes = torch.tensor([n, max(1, n - 5), n // 2 + 1][:batch], device=points.device)
    near = torch.full_like(sizes, 3)
    squares, scores = clusters.score_points(points, sizes, near, 3)
    valid = torch.arange(n, device=points.device) < sizes[:, None]
    wanted = clustering.squared_distances(points.cpu())
    torch.testing.assert_close(squares.cpu(), wanted, rtol=1e-6, atol=1e-10)
    assert torch.equal(squares, squares.mT)
    assert not squares.diagonal(dim1=1, dim2=2).any()
    assert not squares[:, 0, n // 2].any()
    exact = clustering.density_peak_scores(wanted, valid.cpu(), near.cpu(), 3)
    torch.testing.assert_close(scores.cpu()[valid.cpu()], exact[valid.cpu()], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weight", [None, 0.6])
def test_static_clusters(random, kernels_on, kernels_off, dtype, weight) -> None:
    features = random(9, 18, 6)
    features[:, 12:] = features[:, 6:12]  # points that coincide
    features = features.to(dtype)
    masks = random(4, 18) > -0.4
    masks[1] = False
    masks[1, 5] = True
    sizes = masks.sum(1).tolist()
    counts = [max(1, sizes[0] // 3), 1, 0, sizes[3]]
    segments, rule = [(0, 3), (4, 4), (5, 6), (7, 8)], ClusterRule(7, weight, scored=True)
    found = cluster_groups(features, TokenGroups(masks, sizes, counts), segment_means(segments), rule)
    kernels_off()
    wanted = cluster_groups(features.cpu(), TokenGroups(masks.cpu(), sizes, counts), segment_means(segments), rule)
    assert torch.equal(found.centers.cpu(), wanted.centers)
    assert torch.equal(found.membership.cpu(), wanted.membership)
    assert found.features.dtype == dtype
    unit = torch.finfo(dtype).eps
    torch.testing.assert_close(found.features.cpu(), wanted.features, rtol=2 * unit, atol=unit)
    torch.testing.assert_close(found.scores.cpu(), wanted.scores, rtol=1e-5, atol=1e-6)


STAGES = [{"contextual_ratio": 0.5, "plain_mean": True}, {"static_rule": "attention"}]


@pytest.mark.parametrize(
    ("dtype", "fields"), [*((dtype, {}) for dtype in DTYPES), *((torch.float16, f) for f in STAGES)]
)
def test_outer_stage(random, kernels_on, kernels_off, dtype, fields) -> None:
    """The same tokens are kept with kernels and without."""
    shape = (32, 196, 3584) if REAL else (5, 20, 8)
    features, received = still_video(random, *shape), random(*shape[:2]).abs()
    features[2:, : shape[1] // 2] = random(1, shape[1] // 2, shape[2])
    features = features.to(dtype)
    stage = OuterCompression(OuterConfig(retain_ratio=0.3, similarity_threshold=0.8, **fields))
    found = stage(features, received, "raster")
    kernels_off()
    wanted = stage(features.cpu(), received.cpu(), "raster")
    assert found.details.segments == wanted.details.segments
    assert torch.equal(found.index.cpu(), wanted.index)
    assert torch.equal(found.details.source_map().cpu(), wanted.details.source_map())
    unit = torch.finfo(dtype).eps
    torch.testing.assert_close(found.features.cpu(), wanted.features, rtol=2 * unit, atol=2 * unit)
