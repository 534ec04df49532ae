"""DyCoke's temporal merging: counts of the rule and of the release, order, and both naive oracles."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from holitom.encoded_video import EncodedVideo
from holitom.methods.dycoke import DycokeConfig, DycokeDecodeConfig
from holitom.ops.exact_similarity import similarity_to
from llava.errors import InputError
from tests.references import dycoke
from tests.tiny_models import prompt, video

RELEASE = {"reference_groups": True, "similarity_order": True}


def features(frames: int, tokens: int, dim: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(frames, tokens, dim, generator=torch.Generator().manual_seed(seed))


def compress(video: torch.Tensor, order: str = "block", **fields):
    outer = DycokeConfig(**fields).build().outer
    kept = outer(EncodedVideo(video, order=order))
    assert len(kept.index) == outer.most_kept(*video.shape[:2]), "the bound is exact"
    return kept


@pytest.mark.parametrize(
    ("ratio", "ideal", "release"),
    [(0.3, 4856, 4915), (0.5, 3920, 4018), (0.7, 2960, 3098), (0.9, 2024, 2201), (1.0, 1568, 1764)],
)
def test_counts_at_32_frames(ratio: float, ideal: int, release: int) -> None:
    """Golden check 3: counts of the compatible mode, and of the complete rule beside them."""
    video = features(32, 196, 2)
    assert len(compress(video, merge_ratio=ratio).index) == ideal
    assert len(compress(video, merge_ratio=ratio, **RELEASE).index) == release


def test_an_odd_number_of_frames() -> None:
    """33 frames at 0.7: the release loses the last one (2,960 tokens), the rule starts a group with it."""
    video = features(33, 196, 2)
    assert len(compress(video, merge_ratio=0.7, reference_groups=True).index) == 2960
    assert len(compress(video, merge_ratio=0.7).index) == 2960 + 196


def test_worked_example() -> None:
    """Section 6.1: 8 frames of 4 tokens at 0.5 keep 20 tokens, 22 in the compatible mode."""
    video = features(8, 4)
    assert len(compress(video, merge_ratio=0.5).index) == 20
    assert len(compress(video, merge_ratio=0.5, **RELEASE).index) == 22


def test_which_frames_are_compared() -> None:
    """One position of each frame is turned away from the frame that the rule compares with, and that one is kept."""
    first, third = torch.eye(4)[:1].repeat(4, 1), torch.eye(4)[1:2].repeat(4, 1)
    second, fourth, third_alone = first.clone(), third.clone(), first.clone()
    second[1], third_alone[2], fourth[3] = torch.eye(4)[2], torch.eye(4)[2], torch.eye(4)[2]
    got = compress(torch.stack([first, second, third_alone, first]), merge_ratio=0.75)
    assert got.index.tolist() == [0, 1, 2, 3, 4 + 1, 8 + 2, 12 + 2]  # the fourth differs from the third at 2
    got = compress(torch.stack([first, second, third, fourth]), merge_ratio=0.75)
    assert got.index.tolist() == [0, 1, 2, 3, 4 + 1, 8 + 0, 12 + 3]


@settings(derandomize=True, deadline=None, max_examples=100)
@given(
    st.integers(1, 14), st.integers(1, 8), st.sampled_from([0, 0.3, 0.5, 0.7, 0.9, 1]), st.booleans(), st.integers(0, 9)
)
def test_equals_the_naive_groups(frames: int, tokens: int, ratio: float, still: bool, seed: int) -> None:
    video = features(frames, tokens, 3, seed)
    if still:  # whole frames repeat: their similarities tie exactly
        video = video[:1].sign().repeat(frames, 1, 1)
    count, naive = int((1 - ratio) * tokens), video.double().numpy()
    for in_order in (True, False):
        got = compress(video, merge_ratio=ratio, similarity_order=not in_order)
        want = dycoke.kept(naive, count, in_order)
        assert got.index.tolist() == [frame * tokens + position for frame, position in want]
        assert torch.equal(got.features, torch.stack([video[place] for place in want]))
    if frames > 4:
        got = compress(video, merge_ratio=ratio, **RELEASE)
        want = dycoke.kept_by_the_release(naive, count)
        assert got.index.tolist() == [frame * tokens + position for frame, position in want]
        rows = got.details.source_map().flatten()
        assert rows[got.index].tolist() == list(range(len(want)))
        assert int((rows >= 0).sum()) == len(want)


def test_groups_are_its_segments() -> None:
    assert compress(features(10, 3)).details.segments == [(0, 3), (4, 7), (8, 9)]


def test_similarity_in_float32_and_of_zero_vectors() -> None:
    video = torch.zeros(2, 3, 2, dtype=torch.float16)
    video[0, 0], video[1, 0] = torch.tensor([300.0, 300.0]), torch.tensor([300.0, -300.0])
    video[0, 1], video[1, 1] = torch.tensor([300.0, 300.0]), torch.tensor([250.0, 250.0])
    got = similarity_to(video, torch.tensor([1]), torch.tensor([0]))
    torch.testing.assert_close(got, torch.tensor([[0.0, 1.0, 0.0]]))


def test_what_cannot_be_served() -> None:
    with pytest.raises(InputError, match=r"4 frames is too short for reference_groups.*at least 5"):
        compress(features(4, 3), reference_groups=True)
    with pytest.raises(InputError, match="mm_newline_position"):
        compress(features(8, 3), order="raster", similarity_order=True)
    video = features(6, 3)
    video[4, 1, 0] = float("inf")
    with pytest.raises(InputError, match=r"features has NaN or infinite values in 1 of 6 frames \(frame 4\)"):
        compress(video)


def test_raster_order_is_the_default() -> None:
    video = features(9, 6)
    assert compress(video, merge_ratio=0.5).index.tolist() == compress(video, "raster", merge_ratio=0.5).index.tolist()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("merge_ratio", value) for value in (-0.1, 1.1, float("nan"), True, "all")],
        ("reference_groups", 1),
        ("similarity_order", None),
    ],
)
def test_settings_out_of_range(field: str, value: object) -> None:
    with pytest.raises(InputError) as error:
        DycokeConfig(**{field: value})
    assert f"{field} = {value!r}" in str(error.value)


def test_decode_changes_nothing_before_the_second_token(model) -> None:
    inputs = {"images": [video(8)], "modalities": ["video"], "max_new_tokens": 4, "do_sample": False}
    outputs = {"return_dict_in_generate": True, "output_logits": True, "eos_token_id": None, "pad_token_id": 256}
    logits = []
    for decode in (None, DycokeDecodeConfig(), DycokeDecodeConfig(prune_ratio=0), DycokeDecodeConfig(layer=5)):
        with DycokeConfig(decode=decode).build().applied(model) as compressor:
            out = model.generate(prompt(5, "video", 9), **inputs, **outputs)
            assert compressor.record.tokens_after_outer == [2 * 196]
        logits.append(torch.stack(out.logits)[:, 0])
    plain, pruned, everything, later = logits
    assert torch.equal(plain[0], pruned[0])
    assert not torch.allclose(plain[1], pruned[1], atol=1e-3)
    torch.testing.assert_close(plain, everything)
    assert not torch.allclose(later[1], pruned[1], atol=1e-3)


@pytest.mark.parametrize(("field", "value"), [("layer", 0), ("prune_ratio", 1.0), ("similarity_threshold", 2.0)])
def test_decode_settings_out_of_range(field: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{field} = {value}"):
        DycokeDecodeConfig(**{field: value})
