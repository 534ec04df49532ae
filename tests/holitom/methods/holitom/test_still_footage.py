"""Still footage: equal frames tie, and the lower position decides, not the rounding of a cosine."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from holitom.encoded_video import EncodedVideo
from holitom.methods.dycoke import DycokeConfig
from holitom.methods.evs import EvsConfig
from holitom.methods.fastvid import FastVidConfig
from holitom.ops.exact_similarity import exact_cosine

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def still(frames: int, dtype: torch.dtype, seed: int = 0, dim: int = 96) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 196, dim, generator=generator).repeat(frames, 1, 1).to(dtype)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.integers(1, 300), st.sampled_from(DTYPES), st.integers(0, 99))
def test_equal_vectors_have_a_cosine_of_exactly_one(dim: int, dtype: torch.dtype, seed: int) -> None:
    vectors = torch.randn(20, dim, generator=torch.Generator().manual_seed(seed)).to(dtype).float()
    assert bool((exact_cosine(vectors, vectors) == 1).all())
    other = torch.randn(20, dim, generator=torch.Generator().manual_seed(seed + 1))
    want = torch.nn.functional.cosine_similarity(vectors.double(), other.double(), dim=-1)
    torch.testing.assert_close(exact_cosine(vectors, other).double(), want, atol=1e-6, rtol=0)


def test_zero_vectors_and_values_that_are_not_finite() -> None:
    zero, one = torch.zeros(1, 4), torch.ones(1, 4)
    assert [exact_cosine(*pair).item() for pair in ((zero, one), (one, zero), (zero, zero), (one, -one))] == [
        0,
        0,
        0,
        -1,
    ]
    for bad in (float("nan"), float("inf")):
        assert not exact_cosine(one.clone().fill_(bad), one).isfinite()


@pytest.mark.parametrize("dtype", DTYPES)
def test_dycoke_keeps_the_first_positions(dtype: torch.dtype) -> None:
    kept = DycokeConfig(merge_ratio=0.7).build().outer(EncodedVideo(still(8, dtype)))
    for frame in (1, 2, 3, 5, 6, 7):
        assert (kept.index[kept.index // 196 == frame] % 196).tolist() == list(range(58))


@pytest.mark.parametrize("dtype", DTYPES)
def test_evs_keeps_the_first_frames(dtype: torch.dtype) -> None:
    kept = EvsConfig(retain_ratio=0.25).build().outer(EncodedVideo(still(8, dtype)))
    assert kept.index.tolist() == list(range(2 * 196))


@pytest.mark.parametrize("seed", range(20))
def test_fastvid_cuts_still_scenes_at_their_start(seed: int) -> None:
    scenes = torch.cat([still(4, torch.float32, seed), still(5, torch.float32, seed + 100)])
    signals = {"received_attention": torch.rand(9, 196, generator=torch.Generator().manual_seed(seed))}
    config = FastVidConfig(retain_ratio=0.2, min_segments=3)
    kept = config.build().outer(EncodedVideo(scenes, signals))
    assert kept.details.segments == [(0, 0), (1, 3), (4, 8)]
