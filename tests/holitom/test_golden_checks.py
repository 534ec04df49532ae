"""The nine checks that any implementation of the paper's comparison must pass, by number.

1 FLOPs to three decimals; 2 every worked example; 3 counts per frame; 4 all kept is unchanged; 5 VisionZip's frames are
independent; 6 the dynamic programme is optimal; 7 identical frames; 8 cached decoding; 9 order and positions.
Where a whole test file makes the check, its test is named here, so that it cannot vanish unseen.
"""

import importlib

import pytest
import torch

from eval.paper.formula import ONEVISION_7B, TERA, fastv_layers, inner_layers, outer_layers, paper_flops, pdrop_layers
from holitom.encoded_video import EncodedVideo
from holitom.methods.dycoke import DycokeConfig
from holitom.methods.fastv import FastvConfig
from holitom.methods.fastvid import FastVidConfig
from holitom.methods.holitom import HolitomConfig
from holitom.methods.holitom.config import InnerConfig, OuterConfig
from holitom.methods.holitom.outer import OuterCompression
from holitom.methods.pdrop import PdropConfig
from holitom.methods.prunevid import PruneVidConfig
from holitom.methods.visionzip import VisionzipConfig
from tests.tiny_models import prompt, video

WORKED_EXAMPLES = {
    "3 clustering": ("ops.test_clustering", "test_centers_of_the_worked_example", "test_density_of_the_worked_example"),
    "4 FastV": ("methods.test_fastv", "test_example_of_the_specification"),
    "6.1 DyCoke": ("methods.dycoke.test_dycoke", "test_worked_example"),
    "7.2 VisionZip": ("methods.visionzip.test_visionzip", "test_worked_example"),
    "8 PruneVid clean-up": ("methods.prunevid.test_frame_windows", "test_clean_up_of_the_worked_example"),
    "8 PruneVid clusters": ("methods.prunevid.test_window_merging", "test_clusters_of_the_worked_example"),
    "9 FastVID": (
        "methods.fastvid.test_fastvid",
        "test_cuts_of_the_worked_example",
        "test_anchors_of_the_worked_example",
        "test_tokens_of_the_worked_example",
    ),
    "10 tie": ("methods.holitom.test_outer", "test_worked_example_with_a_tie"),
    "10 optimum": ("methods.holitom.test_outer", "test_worked_example_of_the_global_optimum"),
    "10 merging": ("methods.holitom.test_temporal_merging", "test_the_worked_example_of_merging"),
    "11 inner merge": (
        "methods.holitom.test_inner_merging",
        "test_worked_example_of_the_sequential_rule",
        "test_worked_example_of_the_mean_rule",
    ),
}
ELSEWHERE = {
    "6 optimal": (
        "methods.holitom.test_temporal_segmentation",
        "test_no_segmentation_is_better_and_ties_follow_the_rule",
    ),
    "8 inner decode": ("test_every_method", "test_cached_decoding_equals_recomputation_of_the_kept_tokens"),
    "8 staged decode": ("hooks.decoder.test_staged", "test_renumbered_positions"),
    "9 order": ("test_every_method", "test_order_positions_and_source_map"),
}


def tera(layers: list[int]) -> float:
    return round(paper_flops(layers, ONEVISION_7B.hidden_size, ONEVISION_7B.intermediate_size) / TERA, 3)


def clip(frames: int = 32, tokens: int = 196, dim: int = 16) -> EncodedVideo:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(1, tokens, dim, generator=generator)
    features = base + 0.7 * torch.randn(frames, tokens, dim, generator=generator)
    scores = torch.rand(frames, tokens, generator=generator)
    keys = torch.randn(frames, tokens, 8, generator=generator)
    return EncodedVideo(features, {"received_attention": scores, "key_metric": keys})


def test_1_flops_to_three_decimals() -> None:
    assert tera(outer_layers(ONEVISION_7B)) == 40.765
    assert [tera(outer_layers(ONEVISION_7B, r)) for r in (0.25, 0.2, 0.15, 0.1)] == [8.711, 7.037, 5.216, 3.436]
    inner = [tera(inner_layers(ONEVISION_7B, r, merge_layer=18)) for r in (0.25, 0.2, 0.15, 0.1)]
    assert inner == [7.111, 5.751, 4.268, 2.815]
    assert tera(fastv_layers(ONEVISION_7B)) == 9.307
    assert tera(pdrop_layers(ONEVISION_7B)) == 10.493
    assert tera([32 * 19] * 28) == 3.261  # FastVID at "10 %": 608 tokens, 9.7 %
    assert tera([32 * 50] * 28) == 8.899  # VisionZip at "25 %": 1,600 tokens, 25.5 %


@pytest.mark.parametrize("section", [*WORKED_EXAMPLES, *ELSEWHERE])
def test_2_6_8_9_made_elsewhere(section: str) -> None:
    module, *names = {**WORKED_EXAMPLES, **ELSEWHERE}[section]
    found = importlib.import_module(f"tests.holitom.{module}")
    assert all(callable(getattr(found, name)) for name in names)


def test_3_counts_per_frame() -> None:
    for budget, share in ((50, (42, 8)), (40, (33, 7)), (30, (25, 5)), (20, (16, 4))):
        kept = VisionzipConfig(tokens_per_frame=budget).build().outer(clip())
        assert len(kept.index) == 32 * budget
        assert sum(share) == budget
    for ratio, budget in ((0.25, 49), (0.2, 39), (0.15, 29), (0.1, 19)):
        stage = FastVidConfig(retain_ratio=ratio).build().outer
        assert stage.most_kept(32, 196) == 32 * budget
        assert len(stage(clip()).index) <= 32 * budget
    for merge_ratio, compatible in ((0.3, 4915), (0.5, 4018), (0.7, 3098), (0.9, 2201), (1.0, 1764)):
        config = DycokeConfig(merge_ratio=merge_ratio, reference_groups=True)
        assert len(config.build().outer(clip()).index) == compatible
    assert len(DycokeConfig().build().outer(clip()).index) == 1568


@pytest.mark.parametrize(
    "config",
    [
        FastvConfig(prune_layer=2, prune_ratio=0.0),
        PdropConfig(drop_layers=[1, 3], keep_ratios=[1.0, 1.0]),
        HolitomConfig(None, InnerConfig(4, 0.0)),
    ],
    ids=lambda config: type(config).__name__,
)
def test_4_all_kept_is_unchanged(model, config) -> None:
    inputs = {"images": [video(3)], "modalities": ["video"]}
    with torch.no_grad():
        want = model(input_ids=prompt(5, "video", 4), **inputs).logits
        with config.build().applied(model):
            got = model(input_ids=prompt(5, "video", 4), **inputs).logits
    assert torch.equal(got, want)


def test_4_holitom_keeps_all_tokens_in_order_where_nothing_stands_still() -> None:
    given = clip(8)
    kept = OuterCompression(OuterConfig(1.0, 1.0))(given.features, given.signals["received_attention"])
    assert torch.equal(kept.features, given.features.flatten(0, 1))


def test_5_visionzip_treats_frames_alone() -> None:
    given = clip(6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    permuted = EncodedVideo(given.features[order], {name: signal[order] for name, signal in given.signals.items()})
    stage = VisionzipConfig(tokens_per_frame=20).build().outer
    first, second = (stage(clip_).features.view(6, 20, -1) for clip_ in (given, permuted))
    assert torch.equal(first[order], second)


@pytest.mark.parametrize(("frames", "ratio"), [(10, 0.1), (4, 0.5), (10, 0.05)])
def test_7_identical_frames(frames: int, ratio: float) -> None:
    features = clip(1).features.repeat(frames, 1, 1)
    details = OuterCompression(OuterConfig(ratio, 0.8))(features, torch.rand(frames, 196)).details
    assert details.segments == [(0, frames - 1)]
    assert details.removable == 196 * (frames - 1)
    assert details.adjusted_ratio == pytest.approx(min(1.0, ratio * frames))


def test_prunevid_rule_b_matches_tokens_per_layer() -> None:
    """Rule B: a fixed share b of the clusters with the inner stage at layer 10 and 0.4; 10 full and 18 short layers."""
    for retained, share in ((25, 40.7), (20, 32.5), (15, 24.4), (10, 16.3)):
        assert abs(retained / ((10 + 18 * 0.4) / 28) - share) < 0.1
        assert PruneVidConfig(retain_ratio=None, cluster_ratio=share / 100).build().inner is None
