"""EVS: counts, the first frame, ties and the naive oracle."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from holitom.encoded_video import EncodedVideo
from holitom.methods.evs import EvsConfig
from llava.errors import InputError
from tests.references import evs


def clip(frames: int, tokens: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(frames, tokens, 4, generator=torch.Generator().manual_seed(seed))


def compress(features: torch.Tensor, **fields):
    outer = EvsConfig(**fields).build().outer
    kept = outer(EncodedVideo(features))
    assert len(kept.index) == outer.most_kept(*features.shape[:2]), "the bound is exact"
    return kept


@pytest.mark.parametrize(
    ("ratio", "count"), [(0.25, 1568), (0.2, 1254), (0.15, 940), (0.1, 627), (0.01, 196), (1.0, 6272)]
)
def test_counts_at_32_frames(ratio: float, count: int) -> None:
    assert len(compress(clip(32, 196), retain_ratio=ratio).index) == count


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.integers(1, 8), st.integers(1, 12), st.floats(0.01, 1), st.integers(0, 99))
def test_equals_the_naive_list(frames: int, tokens: int, ratio: float, seed: int) -> None:
    features = clip(frames, tokens, seed).half()
    kept = compress(features, retain_ratio=ratio)
    want = evs.kept(features.double().numpy(), ratio)
    assert kept.index.tolist() == [frame * tokens + position for frame, position in want]
    assert torch.equal(kept.features, torch.stack([features[place] for place in want]))
    assert kept.features.dtype == torch.float16
    rows = kept.details.source_map()
    assert rows[0].tolist() == list(range(tokens)), "the first frame stays"
    assert rows.flatten()[kept.index].tolist() == list(range(len(want)))


def test_ties_go_to_the_earlier_frame_and_the_lower_position() -> None:
    still = torch.ones(4, 5, 2)
    assert compress(still, retain_ratio=0.4).index.tolist() == list(range(8))
    still[2, 4] = torch.tensor([1.0, -1.0])  # changes at frame 2 and back at frame 3
    assert compress(still, retain_ratio=0.4).index.tolist() == [0, 1, 2, 3, 4, 5, 14, 19]


def test_zero_vectors_are_as_far_as_right_angles() -> None:
    features = torch.ones(3, 3, 2)
    features[1, 1] = 0
    features[1, 2] = torch.tensor([1.0, -0.5])
    kept = compress(features, retain_ratio=5 / 9)
    assert kept.index.tolist() == [0, 1, 2, 4, 7]


def test_it_keeps_positions_and_refuses_newlines_inside() -> None:
    outer = EvsConfig().build().outer
    assert outer.keeps_positions
    with pytest.raises(InputError, match="mm_newline_position"):
        outer(EncodedVideo(clip(4, 9), order="raster"))


def test_nan_and_bad_ratios_are_refused() -> None:
    features = clip(3, 5)
    features[0, 1, 3] = float("nan")
    with pytest.raises(InputError, match=r"features has NaN .*\(frame 0\)"):
        compress(features)
    with pytest.raises(InputError, match="retain_ratio = 0"):
        EvsConfig(0)
