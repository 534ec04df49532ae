"""FastVID: worked examples, the naive loops, side signals from SigLIP's head, budgets and errors."""

import numpy as np
import pytest
import torch

from holitom.encoded_video import EncodedVideo
from holitom.methods.fastvid import FastVidConfig, FastVidOuter
from holitom.methods.fastvid import anchors as anchor_merging
from holitom.methods.fastvid.anchors import cut_segments, frame_budget, merge_anchors, plan_anchors
from holitom.settings import load_config
from holitom.tokens import TokenKind
from llava.errors import InputError
from tests.references import fastvid as reference
from tests.tiny_models import prompt, video


def clip(frames: int, tokens: int, dim: int = 8, cuts: tuple[int, ...] = (), seed: int = 0) -> EncodedVideo:
    """Features that change at the cuts, and random saliency."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(len(cuts) + 1, tokens, dim, generator=generator) + 2 * torch.randn(
        len(cuts) + 1, 1, dim, generator=generator
    )
    scene = torch.tensor([sum(frame >= cut for cut in cuts) for frame in range(frames)])
    features = base[scene] + 0.5 * torch.randn(frames, tokens, dim, generator=generator)
    return EncodedVideo(features, {"received_attention": torch.rand(frames, tokens, generator=generator)})


def compress(encoded: EncodedVideo, **changes):
    return FastVidOuter(FastVidConfig(**changes))(encoded)


def test_cuts_of_the_worked_example() -> None:
    similarity = [0.99, 0.95, 0.80, 0.97, 0.99, 0.92, 0.98]
    assert cut_segments(similarity, 3, 0.9) == [(0, 2), (3, 5), (6, 7)]
    assert cut_segments(similarity, 1, 0.9) == [(0, 2), (3, 7)]
    assert cut_segments(similarity, 1, 0.8) == [(0, 7)]  # strictly below the threshold
    assert cut_segments([0.5, 0.5, 0.5], 2, 0.1) == [(0, 0), (1, 3)]  # a tie: the earlier one
    assert cut_segments([], 1, 0.9) == [(0, 0)]


def test_anchors_of_the_worked_example() -> None:
    assert frame_budget(20, 0.5, 0.4) == (6, 4)
    plan = plan_anchors([(0, 2), (3, 5), (6, 7)], 4, 4, 14)
    assert plan.frames == [[2], [5], [7]]
    assert plan.counts == [12, 12, 8]
    assert 3 * 6 + plan.counts[0] == 30
    five = plan_anchors([(10, 14)], 4, 4, 14)
    assert five.frames == [[10, 14]]
    assert five.counts == [10]
    assert five.next_anchor() == [0, 1, 1, 1, 1]


def test_tokens_of_the_worked_example() -> None:
    """Eight frames of 20 tokens whose frame vectors have the similarities of the example."""
    similarity = torch.tensor([0.99, 0.95, 0.80, 0.97, 0.99, 0.92, 0.98], dtype=torch.float64)
    angles = torch.cat([torch.zeros(1, dtype=torch.float64), similarity.acos().cumsum(0)])
    features = torch.randn(8, 20, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    features -= features.mean(1, keepdim=True)
    features[:, :, 0] += angles.cos()[:, None]
    features[:, :, 1] += angles.sin()[:, None]
    encoded = EncodedVideo(features.float(), {"received_attention": torch.rand(8, 20)})
    got = compress(encoded, retain_ratio=0.5, min_segments=3)
    assert got.details.segments == [(0, 2), (3, 5), (6, 7)]
    assert int((got.index < 3 * 20).sum()) == 30
    assert got.features.shape[0] == 30 + 30 + 20


@pytest.mark.parametrize(("ratio", "salient", "context"), [(0.25, 30, 19), (0.2, 24, 15), (0.15, 18, 11), (0.1, 12, 7)])
def test_counts_of_the_table(ratio: float, salient: int, context: int) -> None:
    assert frame_budget(196, ratio, 0.4) == (salient, context)
    encoded = clip(32, 196, cuts=(5, 6, 17, 24))
    got, most = compress(encoded, retain_ratio=ratio), 32 * (salient + context)
    plan = zip(got.details.anchor_frames, got.details.anchors, strict=True)
    assert got.features.shape[0] == 32 * salient + sum(len(at) * count for at, count in plan)
    assert most - 3 * len(got.details.segments) < got.features.shape[0] <= most
    assert FastVidOuter(FastVidConfig(ratio)).most_kept(32, 196) == most
    assert got.details.salient_per_frame == salient


CASES = [
    {"retain_ratio": 0.5, "min_segments": 1},
    {"retain_ratio": 0.5, "min_segments": 3, "anchor_stride": 2},
    {"retain_ratio": 0.3, "min_segments": 2, "anchor_stride": 1, "anchor_weight": 0.2},
    {"retain_ratio": 0.3, "min_segments": 2, "neighbors": 2, "context_ratio": 1.0},
    {"retain_ratio": 0.3, "min_segments": 1, "context_ratio": 0.0},
    {"retain_ratio": 1.0, "min_segments": 1},
    {"retain_ratio": 0.8, "min_segments": 1, "context_ratio": 0.8, "anchor_weight": 0.0},
    {"retain_ratio": 0.5, "min_segments": 1, "similarity_threshold": 1.0},
    {"retain_ratio": 0.06, "min_segments": 1},
]


@pytest.mark.parametrize("frames", [1, 3, 10])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_loops(case: dict, frames: int) -> None:
    config = FastVidConfig(**{**case, "min_segments": min(frames, case["min_segments"])})
    encoded = clip(frames, 17, cuts=tuple(range(3, frames, 4)), seed=frames)
    got = FastVidOuter(config)(encoded)
    features = encoded.features.double().numpy()
    want = reference.fastvid(features, features.mean(1), encoded.signals["received_attention"].double().numpy(), config)
    assert got.details.segments == want.segments
    assert got.details.anchor_frames == want.anchor_frames
    assert got.index.tolist() == [17 * entry[0] + entry[1] for entry in want.entries]
    np.testing.assert_allclose(got.features.numpy(), [entry[2] for entry in want.entries], atol=1e-5)
    assert len(want.entries) <= FastVidOuter(config).most_kept(frames, 17)
    assert got.details.side_signals == "received_attention"


def test_source_and_kinds() -> None:
    encoded = clip(9, 30, cuts=(6,))
    got = compress(encoded, retain_ratio=0.3, min_segments=1)
    details, features = got.details, encoded.features
    assert details.segments == [(0, 5), (6, 8)]
    assert details.anchor_frames == [[1, 5], [8]]
    source, kinds = details.source_map(), details.token_kinds()
    assert source.flatten()[got.index].tolist() == list(range(len(got.index)))
    assert sorted(set(source.flatten().tolist())) == list(range(len(got.index)))
    unchanged = kinds == TokenKind.DYNAMIC_KEPT
    assert unchanged.sum(1).tolist() == [details.salient_per_frame] * 9
    assert torch.equal(got.features[source[unchanged]], features[unchanged])
    anchor = kinds == TokenKind.CONTEXTUAL_CENTER
    assert [frame for frame in range(9) if anchor[frame].any()] == [1, 5, 8]
    following = [1, 1, 5, 5, 5, 5, 8, 8, 8]
    units = torch.nn.functional.normalize(features, dim=-1)
    for frame in range(9):
        at = following[frame]
        positions = anchor[at].nonzero().flatten()
        best = (units[frame] @ units[at, positions].T).argmax(1)
        merged = kinds[frame] == TokenKind.CONTEXTUAL_MERGED
        assert source[frame][merged].tolist() == source[at, positions][best][merged].tolist()


def test_without_context_tokens_the_salient_ones_stay_alone() -> None:
    got = compress(clip(4, 30), retain_ratio=0.1, context_ratio=0.2, min_segments=1)
    assert got.features.shape[0] == 4 * 3
    assert set(got.details.token_kinds().flatten().tolist()) == {TokenKind.DYNAMIC_KEPT, TokenKind.DYNAMIC_DROPPED}


def test_an_anchor_is_a_member_of_itself_though_another_has_its_direction() -> None:
    """Two anchors of one direction and different lengths: each keeps its own length."""
    features = torch.tensor([[[1.0, 0.0], [3.0, 0.0], [0.0, 1.0]]])
    vectors, _, membership, _ = merge_anchors(
        features, torch.tensor([[0, 1, 2]]), plan_anchors([(0, 0)], 2, 4, 3), torch.tensor([[0, 1]]), 0.6
    )
    # The third token is as similar to both, so it joins the first.
    torch.testing.assert_close(vectors, torch.tensor([[0.6 + 0.4 * 0.5, 0.4 * 0.5], [3.0, 0.0]]))
    assert membership.tolist() == [[0, 1, 0]]


def test_long_segments_in_several_passes(monkeypatch) -> None:
    encoded = clip(9, 30)
    settings = {"retain_ratio": 0.3, "min_segments": 1, "anchor_stride": 2, "similarity_threshold": 0.0}
    want = compress(encoded, **settings)
    assert want.details.segments == [(0, 8)]
    monkeypatch.setattr(anchor_merging, "PASS_ELEMENTS", 1)
    got = compress(encoded, **settings)
    torch.testing.assert_close(got.features, want.features)
    assert torch.equal(got.details.source, want.details.source)


def test_equal_frames() -> None:
    got = compress(EncodedVideo(clip(1, 40).features.expand(9, -1, -1), {"received_attention": torch.ones(9, 40)}))
    assert len(got.details.segments) == 8
    assert got.details.segments[0] == (0, 0)  # of equal similarities the first seven are cut


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_dtype_stays(dtype: torch.dtype) -> None:
    encoded = clip(6, 20)
    got = compress(EncodedVideo(encoded.features.to(dtype), encoded.signals), min_segments=2)
    assert got.features.dtype == dtype


def test_videos_it_cannot_serve(model) -> None:
    with pytest.raises(InputError, match=r"7 frame\(s\), fewer than min_segments = 8"):
        compress(clip(7, 20))
    with pytest.raises(InputError, match="keeps no token"):
        compress(clip(8, 9), retain_ratio=0.1)
    broken = clip(8, 20)
    broken.features[3, 2, 1] = float("nan")
    with pytest.raises(InputError, match="frame 3"):
        compress(broken)
    broken = clip(8, 20)
    broken.signals["received_attention"][5, 2] = float("inf")
    with pytest.raises(InputError, match=r"saliency.*frame 5"):
        compress(broken)
    plain = clip(8, 20)
    with pytest.raises(InputError, match="mm_newline_position"):
        compress(EncodedVideo(plain.features, plain.signals, order="raster"))
    model.config.mm_newline_position = "grid"
    with FastVidConfig(min_segments=1).build().applied(model), pytest.raises(InputError, match="mm_newline_position"):
        model.generate(prompt(5, "video", 9), images=[video(1)], modalities="video", max_new_tokens=1)


@pytest.mark.parametrize("newline", ["one_token", "no_token"])
def test_one_frame_on_the_model(model, newline: str) -> None:
    model.config.mm_newline_position = newline
    with FastVidConfig(min_segments=1).build().applied(model) as compressor:
        model.generate(prompt(5, "video", 9), images=[video(1)], modalities="video", max_new_tokens=2)
        assert compressor.record.tokens_after_outer == [29]


@pytest.mark.parametrize("percent", [25, 20, 15, 10])
def test_shipped_configurations(percent: int) -> None:
    config = load_config(f"configs/llava_onevision_7b/fastvid_r{percent}.yaml").compressor
    assert config == FastVidConfig(retain_ratio=percent / 100)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("retain_ratio", value) for value in (0, 1.01, float("nan"), True, None, "all")],
        *[("similarity_threshold", value) for value in (-1.1, 1.1)],
        *[(name, value) for name in ("context_ratio", "anchor_weight") for value in (-0.1, 1.1, None)],
        *[
            (name, value)
            for name in ("min_segments", "anchor_stride", "neighbors", "head_heads")
            for value in (0, 1.5, True)
        ],
        *[("head_weights", value) for value in ("", 3)],
    ],
)
def test_bounds(field: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{field} = .* must be"):
        FastVidConfig(**{field: value})
