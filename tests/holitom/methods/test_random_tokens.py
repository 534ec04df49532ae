"""Random selection: repeatable, unbiased, and blind to everything but seed and frame number."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from holitom.encoded_video import EncodedVideo
from holitom.methods.random_tokens import RandomConfig, random_positions
from llava.errors import InputError


def compress(features: torch.Tensor, **fields):
    outer = RandomConfig(**fields).build().outer
    kept = outer(EncodedVideo(features))
    assert len(kept.index) == outer.most_kept(*features.shape[:2]), "the bound is exact"
    return kept


@pytest.mark.parametrize(("ratio", "count"), [(0.25, 1568), (0.2, 1280), (0.15, 960), (0.1, 640), (1.0, 6272)])
def test_counts_at_32_frames(ratio: float, count: int) -> None:
    assert len(compress(torch.zeros(32, 196, 2), retain_ratio=ratio).index) == count


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.integers(1, 5), st.integers(1, 30), st.floats(0.001, 1), st.integers(0, 2**40))
def test_a_subset_of_every_frame_unchanged_and_in_raster_order(frames: int, tokens: int, ratio: float, seed) -> None:
    features = torch.randn(frames, tokens, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    kept = compress(features, retain_ratio=ratio, seed=seed)
    index = kept.index.tolist()
    assert index == sorted(set(index))
    assert len({sum(at // tokens == frame for at in index) for frame in range(frames)}) == 1
    assert torch.equal(kept.features, torch.stack([features[divmod(at, tokens)] for at in index]))
    assert [at for at, row in enumerate(kept.details.source_map().flatten().tolist()) if row >= 0] == index


def test_the_draw_depends_on_seed_and_frame_alone() -> None:
    torch.manual_seed(1)
    first = compress(torch.zeros(6, 40, 2), seed=3).index
    torch.manual_seed(2)
    assert torch.equal(first, compress(torch.randn(6, 40, 2), seed=3).index)
    longer = compress(torch.zeros(9, 40, 2), seed=3).index
    assert torch.equal(first, longer[: len(first)]), "frames of a longer video are drawn as before"
    assert not torch.equal(first, compress(torch.zeros(6, 40, 2), seed=4).index)
    rows = (first % 40).view(6, -1).tolist()
    assert len({tuple(row) for row in rows}) > 1, "frames differ"
    before = torch.random.get_rng_state()
    compress(torch.zeros(6, 40, 2))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_draw_of_seed_zero_stays_what_it_is() -> None:
    """Recorded: results of runs made at different times are comparable only if this never changes."""
    assert random_positions(2, 10, 3, 0).tolist() == [[1, 2, 3], [1, 3, 5]]


def test_every_position_is_equally_likely() -> None:
    drawn = random_positions(4000, 8, 2, 5)
    shares = torch.bincount(torch.from_numpy(drawn).flatten(), minlength=8) / 4000
    assert (shares - 0.25).abs().max() < 0.03


@pytest.mark.parametrize("seed", [-1, 0.5, True, None])
def test_seeds_out_of_range(seed: object) -> None:
    with pytest.raises(InputError, match="seed = "):
        RandomConfig(seed=seed)
    with pytest.raises(InputError, match="retain_ratio = 0"):
        RandomConfig(retain_ratio=0)
