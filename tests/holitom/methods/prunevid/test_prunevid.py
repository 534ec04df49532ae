"""PruneVid's outer stage: worked examples, the naive loops, budgets, orders and errors."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from holitom.encoded_video import EncodedVideo
from holitom.methods.prunevid import PruneVidConfig, PruneVidInnerConfig, PruneVidOuter
from holitom.methods.prunevid.frame_windows import clean_labels, frame_labels, windows_of
from holitom.settings import load_config
from holitom.tokens import TokenKind
from llava.errors import InputError
from tests.references import prunevid as reference
from tests.tiny_models import prompt, video


def scenes(frames: int, tokens: int, dim: int = 8, cuts: tuple[int, ...] = (), still: float = 0.5, seed: int = 0):
    """Features of a clip with cuts, in which a share of the positions keeps its vector but for noise."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(len(cuts) + 1, tokens, dim, generator=generator)
    noise = torch.randn(frames, tokens, dim, generator=generator)
    moving = torch.rand(len(cuts) + 1, tokens, 1, generator=generator) > still
    scene = torch.tensor([sum(frame >= cut for cut in cuts) for frame in range(frames)])
    return base[scene] + 3 * (scene[:, None, None] - 1.0) + noise * torch.where(moving[scene], 2.0, 0.02)


def compress(features, order="block", **changes):
    return PruneVidOuter(PruneVidConfig(**changes))(EncodedVideo(features, order=order))


def test_a_token_at_the_threshold_is_dynamic() -> None:
    assert compress(torch.zeros(2, 4, 3), similarity_threshold=0.0).details.static_counts == [0]


CASES = [
    {"retain_ratio": 0.25},
    {"retain_ratio": 0.1, "neighbors": 3},
    {"retain_ratio": 0.02},
    {"retain_ratio": 1.0},
    {"retain_ratio": 0.3, "cluster_order": "score"},
    {"retain_ratio": None, "cluster_ratio": 0.5},
    {"retain_ratio": None, "cluster_ratio": 0.5, "cluster_order": "score"},
    {"retain_ratio": None, "cluster_ratio": 0.4, "exempt_tokens": 5, "cluster_order": "score"},
    {"retain_ratio": 0.4, "similarity_threshold": -1.0},
    {"retain_ratio": 0.4, "similarity_threshold": 1.0, "frame_cluster_ratio": 1.0},
]


@pytest.mark.parametrize("frames", [1, 2, 3, 6, 9, 13])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_loops(case, frames) -> None:
    features = scenes(frames, 21, cuts=tuple(range(4, frames, 4)), seed=frames)
    config = PruneVidConfig(**case)
    got = PruneVidOuter(config)(EncodedVideo(features))
    want = reference.prunevid(features.double().numpy(), config)
    assert got.details.segments == want.windows
    assert got.details.static_counts == [len(still) for still in want.static]
    assert got.details.cluster_ratio == pytest.approx(want.ratio)
    assert got.index.tolist() == [entry[0] * 21 + entry[1] for entry in want.entries]
    assert got.details.group.tolist() == [entry[4] for entry in want.entries]
    np.testing.assert_allclose(got.features.numpy(), [entry[2] for entry in want.entries], atol=1e-5)
    source = got.details.source_map()
    assert sorted(source.flatten().unique().tolist()) == list(range(len(want.entries)))
    for row, entry in enumerate(want.entries):
        assert sorted(entry[3]) == [tuple(place) for place in (source == row).nonzero().tolist()]
    assert len(want.entries) <= PruneVidOuter(config).most_kept(frames, 21)


@pytest.mark.parametrize("neighbors", [3, 7])
def test_frame_labels_equal_the_loops(neighbors: int) -> None:
    features = scenes(12, 6, cuts=(5, 9))
    want = reference.labels_of_frames(features.double().numpy(), 3, neighbors)
    got = frame_labels(features, 3, neighbors).tolist()
    assert len(set(zip(got, want, strict=True))) == len(set(got)) == len(set(want)) == 3
    if neighbors == 3:
        assert windows_of(clean_labels(got)) == [(0, 4), (5, 8), (9, 11)]


def test_every_group_is_served_in_turn() -> None:
    """Reading order: a window's static tokens, then its frames; the last window after the first."""
    got = compress(scenes(8, 30, cuts=(4,)), retain_ratio=0.3)
    groups = got.details.group.tolist()
    assert groups == sorted(groups)
    kinds = got.details.token_kinds().flatten()[got.index]
    static_groups = {0, 5}
    for group, kind in zip(groups, kinds.tolist(), strict=True):
        assert (kind == TokenKind.STATIC_CENTER) == (group in static_groups)
    assert all(b > a for (g, a), (h, b) in pairwise(zip(groups, got.index.tolist(), strict=True)) if g == h)


def test_raster_order_is_the_same_tokens_sorted() -> None:
    features = scenes(8, 36, cuts=(4,))
    block, raster = compress(features), compress(features, order="raster")
    order = block.index.argsort()
    assert torch.equal(raster.index, block.index[order])
    assert torch.equal(raster.features, block.features[order])
    assert torch.equal(raster.details.group, block.details.group[order])
    torch.testing.assert_close(raster.features[raster.details.source], block.features[block.details.source])
    with pytest.raises(InputError, match="mm_newline_position"):
        compress(features, order="raster", cluster_order="score")


def test_score_order_is_the_same_tokens_rearranged() -> None:
    features = scenes(8, 40, cuts=(4,))
    raster, score = compress(features, retain_ratio=0.3), compress(features, retain_ratio=0.3, cluster_order="score")
    assert raster.index.tolist() != score.index.tolist()
    assert sorted(raster.index.tolist()) == sorted(score.index.tolist())
    assert torch.equal(raster.details.group, score.details.group)


def test_a_group_of_just_the_exempt_size_stays_as_it_is() -> None:
    features = scenes(1, 21)
    fixed = {"retain_ratio": None, "cluster_ratio": 0.5, "cluster_order": "score"}
    assert torch.equal(compress(features, exempt_tokens=21, **fixed).features, features[0])
    assert compress(features, exempt_tokens=20, **fixed).features.shape[0] == 10


def test_everything_kept_where_nothing_is_static() -> None:
    features = scenes(5, 20)
    got = compress(features, retain_ratio=1.0, similarity_threshold=1.0)
    assert torch.equal(got.features, features.flatten(0, 1))
    assert got.index.tolist() == list(range(100))


def test_one_frame_is_all_dynamic() -> None:
    got = compress(scenes(1, 196), retain_ratio=0.15)
    assert got.details.segments == [(0, 0)]
    assert got.details.static_counts == [0]
    assert got.features.shape[0] == round(196 * 0.15)


def test_equal_frames_become_one_set() -> None:
    features = scenes(1, 196).expand(8, -1, -1)
    got = compress(features, retain_ratio=0.1)
    assert got.details.segments == [(0, 7)]
    assert got.details.static_counts == [196]
    assert got.features.shape[0] == round(0.1 * 8 * 196)
    torch.testing.assert_close(compress(features, retain_ratio=0.125).features, features[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_dtype_stays(dtype) -> None:
    assert compress(scenes(6, 20).to(dtype)).features.dtype == dtype


@pytest.mark.parametrize("ratio", [0.25, 0.2, 0.15, 0.1])
def test_budget_at_the_size_of_the_table(ratio) -> None:
    """32 x 196: rule A meets the budget up to the rounding of its groups."""
    got = compress(scenes(32, 196, dim=16, cuts=(9, 17, 25), seed=3), retain_ratio=ratio)
    groups = 32 + len(got.details.segments)
    assert len(got.details.segments) > 1
    assert abs(got.features.shape[0] - ratio * 6272) <= groups / 2
    assert got.features.shape[0] <= PruneVidOuter(PruneVidConfig(ratio)).most_kept(32, 196)
    assert PruneVidOuter(PruneVidConfig(ratio)).most_kept(32, 196) <= ratio * 6272 + 48


@pytest.mark.parametrize("percent", [25, 20, 15, 10])
def test_shipped_configurations(percent) -> None:
    config = load_config(f"configs/llava_onevision_7b/prunevid_r{percent}.yaml").compressor
    assert config == PruneVidConfig(retain_ratio=percent / 100)


def test_broken_features_are_refused() -> None:
    features = scenes(6, 20)
    features[2, 5, 1] = float("nan")
    with pytest.raises(InputError, match="frame 2"):
        compress(features)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("retain_ratio", value) for value in (0, 1.01, float("nan"), True, "all")],
        *[("frame_cluster_ratio", value) for value in (0, 1.5, None)],
        *[("similarity_threshold", value) for value in (-1.1, 1.1, "high")],
        *[("neighbors", value) for value in (0, 2.5)],
        *[("exempt_tokens", value) for value in (-1, 1.5)],
        ("cluster_order", "random"),
    ],
)
def test_bounds(field, value) -> None:
    with pytest.raises(InputError, match=f"{field} = .* must be"):
        PruneVidConfig(**{field: value})


def test_one_of_both_ratios() -> None:
    with pytest.raises(InputError, match="exactly one"):
        PruneVidConfig(retain_ratio=None)
    with pytest.raises(InputError, match="exactly one"):
        PruneVidConfig(cluster_ratio=0.5)
    with pytest.raises(InputError, match="cluster_ratio = 0 "):
        replace(PruneVidConfig(), retain_ratio=None, cluster_ratio=0)


@pytest.mark.parametrize("newline", ["one_token", "grid", "frame"])
def test_on_the_model(model, newline) -> None:
    model.config.mm_newline_position = newline
    with PruneVidConfig(retain_ratio=0.2).build().applied(model) as compressor:
        model.generate(prompt(5, "video", 9), images=[video(6, cuts=(3,))], modalities=["video"], max_new_tokens=2)
        record = compressor.record
    assert record.tokens_before == [6 * 196]
    assert record.tokens_after_outer == [record.videos[0].features.shape[0]]
    assert abs(record.retained_before_llm - 0.2) < 0.01


def test_with_the_inner_stage_on_the_model(model) -> None:
    """Every group keeps its share inside the LLM, and the newline stays."""
    config = PruneVidConfig(retain_ratio=0.2, inner=PruneVidInnerConfig(layer=2, keep_ratio=0.4))
    with config.build().applied(model) as compressor:
        model.generate(prompt(5, "video", 9), images=[video(6, cuts=(3,))], modalities=["video"], max_new_tokens=2)
        record = compressor.record
    groups = record.videos[0].details.group.bincount().tolist()
    assert record.inner.tokens_before == ((sum(groups) + 1,),)
    assert record.inner.tokens_after == ((sum(int(0.4 * size) for size in groups) + 1,),)
    assert len(groups) > 6


@pytest.mark.parametrize(("field", "value"), [("layer", -1), ("layer", 1.5), ("keep_ratio", 0), ("keep_ratio", "all")])
def test_bounds_of_the_inner_stage(field: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{field} = .* must be"):
        PruneVidInnerConfig(**{field: value})
