"""VisionZip per frame: counts of the main table, the worked example, a naive oracle."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from holitom.encoded_video import EncodedVideo
from holitom.methods.visionzip import VisionzipConfig
from holitom.methods.visionzip.dominant_contextual import dominant_and_contextual, split_budget
from holitom.settings import load_config
from holitom.tokens import TokenKind
from llava.errors import InputError
from tests.references.visionzip import compress_frame


def make_video(frames: int, tokens: int, seed: int = 0, ties: bool = False, **options) -> EncodedVideo:
    """Random features; few different attention values where ties are wanted."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(frames, tokens, 5, generator=generator)
    attention = torch.rand(frames, tokens, generator=generator)
    attention = (attention * 3).floor() if ties else attention
    signals = {"received_attention": attention, "key_metric": torch.randn(frames, tokens, 3, generator=generator)}
    return EncodedVideo(features, signals, **options)


def compress(video: EncodedVideo, **fields):
    outer = VisionzipConfig(**fields).build().outer
    kept = outer(video)
    assert len(kept.index) == outer.most_kept(*video.features.shape[:2]), "the bound is exact"
    return kept


@pytest.mark.parametrize(
    ("budget", "counts"), [(50, (42, 8)), (40, (33, 7)), (30, (25, 5)), (20, (16, 4)), (64, (54, 10)), (4, (3, 1))]
)
def test_budgets_of_the_rows(budget: int, counts: tuple[int, int]) -> None:
    """Golden check 3: (42, 8), (33, 7), (25, 5), (16, 4) per frame; 1600 / 1280 / 960 / 640 tokens at 32 frames."""
    assert split_budget(196, budget, VisionzipConfig().dominant_share) == counts
    kept = compress(make_video(32, 196), tokens_per_frame=budget)
    assert len(kept.index) == 32 * budget
    kinds = kept.details.token_kinds()
    assert set((kinds == TokenKind.DYNAMIC_KEPT).sum(1).tolist()) == {counts[0]}
    assert set((kinds == TokenKind.CONTEXTUAL_CENTER).sum(1).tolist()) == {counts[1]}
    assert set((kinds == TokenKind.CONTEXTUAL_MERGED).sum(1).tolist()) == {196 - budget}


def test_worked_example() -> None:
    """Section 7.2: dominant {0, 3, 5}, one target: output x0, x3, x5, x1 + (x2 + x4) / 2."""
    video = make_video(1, 6)
    video.signals["received_attention"] = torch.tensor([[0.3, 0.1, 0.0, 0.3, 0.1, 0.2]])
    x = video.features[0]
    got = compress(video, tokens_per_frame=4, contextual_sum=True)
    torch.testing.assert_close(got.features, torch.stack([x[0], x[3], x[5], x[1] + (x[2] + x[4]) / 2]))
    assert got.index.tolist() == [0, 3, 5, 1]
    mean = compress(video, tokens_per_frame=4)
    torch.testing.assert_close(mean.features[3], (x[1] + x[2] + x[4]) / 3)


@pytest.mark.parametrize("ratio", [25, 20, 15, 10])
def test_the_rows_of_the_table_do_as_the_release_does(ratio: int) -> None:
    config = load_config(f"configs/llava_onevision_7b/visionzip_r{ratio}.yaml").compressor
    assert config.contextual_sum
    assert not VisionzipConfig().contextual_sum


@settings(derandomize=True, deadline=None, max_examples=120)
@given(
    st.integers(1, 3),
    st.integers(1, 24),
    st.integers(1, 26),
    st.sampled_from([0.0, 0.5, 54 / 64, 1.0]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 99),
)
def test_equals_the_naive_frame(frames, tokens, budget, share, mean, ties, seed) -> None:
    video = make_video(frames, tokens, seed, ties)
    fields = {"tokens_per_frame": budget, "dominant_share": share, "contextual_sum": not mean}
    got, counts = compress(video, **fields), split_budget(tokens, budget, share)
    raster = compress(EncodedVideo(video.features, video.signals, order="raster"), **fields)
    assert raster.index.tolist() == sorted(got.index.tolist())
    order = got.index.argsort()
    assert torch.equal(raster.features, got.features[order])
    signals = (video.signals["received_attention"].double().numpy(), video.signals["key_metric"].double().numpy())
    size = sum(counts)
    for frame in range(frames):
        rows = slice(frame * size, (frame + 1) * size)
        inputs = (video.features[frame].double().numpy(), *(signal[frame] for signal in signals))
        outputs, positions, slots = compress_frame(*inputs, *counts, mean)
        torch.testing.assert_close(got.features[rows].double(), torch.from_numpy(outputs), atol=1e-5, rtol=1e-5)
        assert (got.index[rows] - frame * tokens).tolist() == positions
        source = got.details.source_map()[frame].tolist()
        assert source == [slot if slot < 0 else slot + frame * size for slot in slots]
        rank = {row: place for place, row in enumerate(order.tolist())}
        assert raster.details.source_map()[frame].tolist() == [rank.get(row, -1) for row in source]
        kinds = got.details.token_kinds()[frame].tolist()
        for token, slot in enumerate(slots):
            want = TokenKind.DYNAMIC_KEPT if slot < counts[0] else TokenKind.CONTEXTUAL_MERGED
            want = TokenKind.CONTEXTUAL_CENTER if slot >= counts[0] and positions[slot] == token else want
            assert kinds[token] == (TokenKind.DYNAMIC_DROPPED if slot < 0 else want)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.integers(1, 3), st.integers(2, 24), st.integers(1, 20), st.booleans(), st.integers(0, 99))
def test_the_order_of_the_release_moves_rows(frames, tokens, budget, ties, seed) -> None:
    """Dominant tokens in raster order, positions by falling attention: row by row, in plain Python."""
    video = make_video(frames, tokens, seed, ties)
    plain = compress(video, tokens_per_frame=budget)
    raster = EncodedVideo(video.features, video.signals, order="raster")
    got = compress(raster, tokens_per_frame=budget, attention_positions=True)
    dominant, contextual = split_budget(tokens, budget, 54 / 64)
    size, want = dominant + contextual, []
    for frame in range(frames):
        attention = video.signals["received_attention"][frame].tolist()
        places = sorted(range(tokens), key=lambda token: (-attention[token], token))[:dominant]
        places += [row - frame * tokens for row in plain.index.tolist()[frame * size + dominant : (frame + 1) * size]]
        pairs = zip(places, plain.features[frame * size : (frame + 1) * size], strict=True)
        want += [(frame * tokens + place, row) for place, row in sorted(pairs, key=lambda pair: pair[0])]
    assert got.index.tolist() == [place for place, _ in want]
    assert torch.equal(got.features, torch.stack([row for _, row in want]))
    assert torch.equal(got.details.token_kinds(), plain.details.token_kinds())
    elsewhere = compress(video, tokens_per_frame=budget, attention_positions=True)
    assert torch.equal(elsewhere.features, plain.features)


def test_frames_do_not_see_each_other() -> None:
    """Golden check 5: permuting frames permutes the outputs."""
    video, order = make_video(5, 30), torch.tensor([3, 0, 4, 1, 2])
    moved = EncodedVideo(video.features[order], {name: signal[order] for name, signal in video.signals.items()})
    first, second = compress(video, tokens_per_frame=7), compress(moved, tokens_per_frame=7)
    assert torch.equal(first.features.view(5, 7, -1)[order], second.features.view(5, 7, -1))


def test_equal_keys() -> None:
    """Targets alike in direction stay apart, and every other token joins the first of them."""
    video = make_video(1, 9)
    video.signals["key_metric"] = torch.ones(1, 9, 3)
    got = compress(video, tokens_per_frame=5, dominant_share=0.4, contextual_sum=True)
    naive = (
        video.features[0].double().numpy(),
        video.signals["received_attention"][0].numpy(),
        torch.ones(9, 3).numpy(),
    )
    outputs, positions, slots = compress_frame(*naive, 2, 3)
    assert got.index.tolist() == positions
    assert got.details.source_map()[0].tolist() == slots
    torch.testing.assert_close(got.features.double(), torch.from_numpy(outputs), atol=1e-5, rtol=1e-5)


def test_long_videos_are_merged_in_steps(monkeypatch) -> None:
    video = make_video(7, 20)
    whole = compress(video, tokens_per_frame=6)
    monkeypatch.setattr("holitom.methods.visionzip.dominant_contextual._FRAMES_PER_STEP", 3)
    torch.testing.assert_close(compress(video, tokens_per_frame=6).features, whole.features)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_merged_in_float32(dtype: torch.dtype) -> None:
    """A mean of many values that half precision would lose; only the result is rounded."""
    features = torch.full((1, 40, 2), 1 + 1 / 256).to(dtype)
    features[:, 0] = 0
    attention = torch.linspace(1, 0, 40)[None]
    attention[:, 0] = -1  # the target is the first of the rest: position 0
    got = dominant_and_contextual(features, attention, torch.ones(1, 40, 2), 2, 1)
    assert got.features.dtype == dtype
    assert torch.equal(got.features[0, 2], features[0, 5])


@pytest.mark.parametrize("where", ["features", "received_attention", "key_metric"])
def test_nan_is_refused(where: str) -> None:
    video = make_video(3, 8)
    values = video.features if where == "features" else video.signals[where]
    values[1, 2] = float("nan")
    with pytest.raises(InputError, match=rf"{where} has NaN or infinite values in 1 of 3 frames \(frame 1\)"):
        compress(video, tokens_per_frame=3)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("tokens_per_frame", value) for value in (0, -1, 2.5, True, None)],
        *[("dominant_share", value) for value in (-0.1, 1.1, float("nan"), "most")],
        *[("contextual_sum", value) for value in (0, "no")],
    ],
)
def test_settings_out_of_range(field: str, value: object) -> None:
    with pytest.raises(InputError) as error:
        VisionzipConfig(**{field: value})
    assert f"{field} = {value!r}" in str(error.value)
    assert "must be" in str(error.value)
