"""VidCom2: kernels, budgets of the frames and kept tokens against a naive oracle."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from holitom.encoded_video import EncodedVideo
from holitom.methods.vidcom2 import Vidcom2Config
from holitom.methods.vidcom2.video_centers import frame_budgets, likeness, quiet_channels, unlike_centers
from llava.errors import InputError
from tests.references import vidcom2


def clip(frames: int, tokens: int, dim: int, seed: int = 0) -> torch.Tensor:
    """Frames that resemble a common scene more or less."""
    generator = torch.Generator().manual_seed(seed)
    scene = torch.randn(tokens, dim, generator=generator)
    noise = torch.randn(frames, tokens, dim, generator=generator)
    return scene + noise * torch.rand(frames, 1, 1, generator=generator) * 2


def compress(features: torch.Tensor, **fields):
    outer = Vidcom2Config(**fields).build().outer
    kept = outer(EncodedVideo(features))
    assert len(kept.index) <= outer.most_kept(*features.shape[:2])
    return kept


@pytest.mark.parametrize("ratio", [0.25, 0.2, 0.15, 0.1])
def test_counts_at_32_frames(ratio: float) -> None:
    """The budgets add up to the ratio; rounding adds or takes at most half a token a frame."""
    count = len(compress(clip(32, 196, 16), retain_ratio=ratio).index)
    assert abs(count - 6272 * ratio) <= 16


def test_kernels_by_hand() -> None:
    """At squared distance 1: exp(-4) + exp(-2) + exp(-1) + exp(-1/2) + exp(-1/4); at 0: 5."""
    tokens = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    want = sum(math.exp(-value) for value in (4, 2, 1, 0.5, 0.25))
    torch.testing.assert_close(likeness(tokens, torch.zeros(1, 1, 2)), torch.tensor([[want, 5.0]]))


def test_the_quiet_half_of_the_channels() -> None:
    features = torch.tensor([[[1.0, 9.0, 3.0, 5.0, 4.0]], [[1.0, -9.0, 3.5, -5.0, 4.0]]])
    got = quiet_channels(features)[:, 0]
    want = torch.tensor([1.0, 4.0]) / 17**0.5  # channels 0 and 4 do not vary; 5 // 2 = 2
    torch.testing.assert_close(got, want.expand(2, 2))
    assert quiet_channels(features[..., :1]).shape == (2, 1, 1)


def test_budgets_by_hand() -> None:
    """Two frames, the second far more unique: weights 0 and 1, shares ratio * (1 -+ 1/2)."""
    to_video = torch.tensor([[3.0], [1.0]]).expand(2, 10)
    assert frame_budgets(to_video, 0.5).tolist() == [2, 8]  # 2.5 and 7.5, halves to even
    assert frame_budgets(to_video, 0.8).tolist() == [4, 10]  # the second share is cut at 1
    assert frame_budgets(to_video, 0.01).tolist() == [1, 1]
    assert frame_budgets(torch.ones(4, 10), 0.3).tolist() == [3, 3, 3, 3]


def selection_is_allowed(frame_scores: list[float], kept: list[int], budget: float) -> None:
    """The lowest scores are kept and the budget is rounded, but for what float32 cannot tell apart."""
    assert abs(len(kept) - max(1.0, budget)) <= 0.5 + 1e-3
    dropped = [score for position, score in enumerate(frame_scores) if position not in kept]
    if dropped:
        assert max(frame_scores[position] for position in kept) <= min(dropped) + 1e-5


@settings(derandomize=True, deadline=None, max_examples=80)
@given(st.integers(1, 6), st.integers(1, 9), st.integers(1, 7), st.floats(0.01, 1), st.integers(0, 99))
def test_equals_the_naive_scores(frames: int, tokens: int, dim: int, ratio: float, seed: int) -> None:
    features = clip(frames, tokens, dim, seed)
    scores, budgets = vidcom2.scores_and_budgets(features.double().numpy(), ratio)
    _, got = unlike_centers(features, ratio)
    torch.testing.assert_close(got.double(), torch.tensor(scores, dtype=torch.float64), atol=1e-4, rtol=0)
    kept = compress(features, retain_ratio=ratio)
    index = kept.index.tolist()
    assert index == sorted(set(index))
    assert torch.equal(kept.features, torch.stack([features[divmod(at, tokens)] for at in index]))
    for frame in range(frames):
        positions = [at % tokens for at in index if at // tokens == frame]
        selection_is_allowed(scores[frame], positions, budgets[frame])


def test_equals_the_naive_selection_on_a_larger_clip() -> None:
    features = clip(8, 49, 12, seed=3)
    want = vidcom2.kept(*vidcom2.scores_and_budgets(features.double().numpy(), 0.2))
    assert compress(features, retain_ratio=0.2).index.tolist() == [t * 49 + p for t, p in want]


def test_unlike_frames_keep_more() -> None:
    """Seven equal frames and one of its own."""
    features = clip(1, 49, 12).repeat(8, 1, 1)
    features[5] = clip(1, 49, 12, seed=9)[0]
    rows = compress(features, retain_ratio=0.2).details.source_map() >= 0
    counts = rows.sum(1).tolist()
    assert counts.index(max(counts)) == 5
    assert len(set(counts)) == 2


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 30), st.floats(0.001, 1), st.integers(0, 99))
def test_the_bound_holds_for_any_uniqueness(frames: int, tokens: int, ratio: float, seed: int) -> None:
    """Also where the rounding of every frame goes up, and where shares fall below one token."""
    to_video = torch.rand(frames, 1, generator=torch.Generator().manual_seed(seed)).expand(frames, tokens) * 0.05
    outer = Vidcom2Config(ratio).build().outer
    assert int(frame_budgets(to_video, ratio).sum()) <= outer.most_kept(frames, tokens)


def test_everything_is_kept_where_the_ratio_says_so() -> None:
    assert len(compress(clip(1, 7, 4), retain_ratio=1.0).index) == 7


def test_nan_and_bad_ratios_are_refused() -> None:
    features = clip(3, 5, 4)
    features[2, 1, 3] = float("nan")
    with pytest.raises(InputError, match=r"features has NaN .*\(frame 2\)"):
        compress(features)
    with pytest.raises(InputError, match=r"retain_ratio = 1\.5"):
        Vidcom2Config(1.5)
