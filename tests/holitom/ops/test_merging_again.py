"""What was done to the tokens is done again to other values of them: the tokens' own features must give the tokens."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from holitom.encoded_video import EncodedVideo
from holitom.methods.fastvid import FastVidConfig
from holitom.methods.flashvid import FlashVidConfig
from holitom.methods.holitom import HolitomConfig
from holitom.methods.holitom.config import OuterConfig
from holitom.methods.prunevid import PruneVidConfig
from holitom.ops.merging_again import mean_of_sources, merged_again
from holitom.ops.selection import PlainDetails
from holitom.stages import OuterStage
from holitom.tokens import CompressedTokens
from tests.holitom.test_every_method import WITH_OUTER, without_inner
from tests.references.mrope import merged_values
from tests.references.outer import compress, structured_video

OUTER = OuterConfig(retain_ratio=0.3, similarity_threshold=0.7)
VARIANTS = {
    "holitom with contextual clusters": lambda: HolitomConfig(replace(OUTER, contextual_ratio=0.5), None),
    "holitom by the plain mean": lambda: HolitomConfig(replace(OUTER, plain_mean=True), None),
    "holitom with selected static tokens": lambda: HolitomConfig(replace(OUTER, static_rule="attention"), None),
    "flashvid, trees by the release": lambda: FlashVidConfig(retain_ratio=0.3, min_segments=2, link_threshold=0.5),
    "flashvid, whole trees": lambda: FlashVidConfig(
        retain_ratio=0.3, min_segments=2, link_threshold=0.5, tree_mean=True
    ),
    "flashvid, cut everywhere": lambda: FlashVidConfig(retain_ratio=0.3, min_segments=9),
    "fastvid in long segments": lambda: FastVidConfig(retain_ratio=0.4, min_segments=2, similarity_threshold=0.1),
    "prunevid by score": lambda: PruneVidConfig(retain_ratio=0.3, cluster_order="score"),
}
SERVED = [name for name in WITH_OUTER if name not in ("earlytom", "visionzip")]  # these need a SigLIP tower
STAGES: dict[str, Callable[[], OuterStage | None]] = {
    **{name: lambda name=name: without_inner(name).outer for name in SERVED},
    **{name: lambda make=make: make().build().outer for name, make in VARIANTS.items()},
}


def kept_of(name: str, seed: int) -> tuple[Tensor, CompressedTokens]:
    features, attention = map(torch.tensor, structured_video(seed, frames=9, tokens=15, dim=12))
    stage = STAGES[name]()
    assert stage is not None
    return features, stage(EncodedVideo(features, {"received_attention": attention}))


@pytest.mark.parametrize("name", STAGES)
def test_the_features_give_the_tokens_again(name: str) -> None:
    for seed in range(3):
        features, kept = kept_of(name, seed)
        again = merged_again(kept, features)
        assert again.dtype == features.dtype
        torch.testing.assert_close(again, kept.features, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", STAGES)
def test_it_is_linear_and_of_any_width(name: str) -> None:
    """Decisions are not taken again: other values, other widths and sums of values change nothing in the weights."""
    features, kept = kept_of(name, 4)
    one, other = torch.randn(2, *features.shape[:2], 5, generator=torch.Generator().manual_seed(1))
    both = merged_again(kept, torch.cat([one, 3 * one - other], -1))
    assert both.shape == (len(kept.index), 10)
    want = 3 * merged_again(kept, one) - merged_again(kept, other)
    torch.testing.assert_close(both[:, 5:], want, atol=1e-4, rtol=1e-4)
    sums = merged_again(kept, torch.ones(*features.shape[:2], 1))
    if name != "flashvid, trees by the release" and not name.startswith("flashvid"):  # chains of it grow
        torch.testing.assert_close(sums, torch.ones_like(sums))


@pytest.mark.parametrize("config", [OUTER, replace(OUTER, contextual_ratio=0.5, center_weight=0.3)])
def test_holitom_equals_loops(config: OuterConfig) -> None:
    features, attention = structured_video(7, frames=8, tokens=12, dim=6)
    values = torch.randn(8, 12, 4, generator=torch.Generator().manual_seed(2))
    stage = HolitomConfig(config, None).build().outer
    assert stage is not None
    kept = stage(EncodedVideo(torch.tensor(features), {"received_attention": torch.tensor(attention)}))
    naive = compress(features, attention, config, "block")
    assert kept.index.tolist() == naive.index(12)
    want = merged_values(naive.entries, values, config.center_weight)
    torch.testing.assert_close(merged_again(kept, values).double(), want, atol=1e-5, rtol=0)
    static = np.array([kind == "static" for *_, kind in naive.entries])
    plain = mean_of_sources(values, kept.details.source_map(), len(kept.index)).double()
    assert not torch.allclose(plain[static], want[static], atol=1e-2), "the weight of a centre matters"


def test_nothing_kept_is_nothing_again() -> None:
    features = torch.ones(4, 9, 8) + 0.01 * torch.randn(4, 9, 8, generator=torch.Generator().manual_seed(0))
    stage = HolitomConfig(OuterConfig(retain_ratio=1e-3), None).build().outer
    assert stage is not None
    kept = stage(EncodedVideo(features, {"received_attention": torch.ones(4, 9)}))
    assert len(kept.index) == 0
    assert merged_again(kept, torch.ones(4, 9, 5)).shape == (0, 5)


def test_means_by_hand() -> None:
    values = torch.arange(12, dtype=torch.float32).view(2, 3, 2)
    source = torch.tensor([[0, 0, -1], [1, 1, 1]])
    assert mean_of_sources(values, source, 3).tolist() == [[1, 2], [8, 9], [0, 0]]
    details = PlainDetails(2, 3, [(0, 1)], source, torch.zeros_like(source))
    kept = CompressedTokens(values[0, :2], torch.tensor([1, 5]), details, center_weight=0.5)
    assert merged_again(kept, values).tolist() == [[1, 2], [8.5, 9.5]]
    assert merged_again(replace(kept, center_weight=0.25), values).tolist() == [[0.5, 1.5], [7.75, 8.75]]
    alone = replace(details, source=torch.tensor([[-1, 0, -1], [-1, -1, 1]]))
    assert merged_again(replace(kept, details=alone), values).tolist() == [[2, 3], [10, 11]]
