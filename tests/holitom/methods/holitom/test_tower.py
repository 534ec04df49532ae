"""Still frames merged inside the tower: the naive rule, the budget of the whole video, and nothing else changed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from holitom import InnerConfig, OuterConfig, TowerConfig
from holitom.methods.holitom import HolitomConfig
from holitom.methods.holitom.tower import StillFrameMerging, still_groups
from holitom.record.file import load_record
from holitom.record.saving import save_record
from holitom.tokens import TokenKind
from llava.errors import InputError
from llava.model.visual_inputs import VisualEncoder
from tests.references import still_frames
from tests.tiny_models import hook_count, video

OUTER = OuterConfig(retain_ratio=0.2)
TOKENS = 196


def scenes(seed: int, frames: int, patches: int, moving: float) -> Tensor:
    """States of a video in which some patches move and others stand still but for noise, with a cut now and then."""
    random = np.random.default_rng(seed)
    states, scene = [], random.normal(size=(patches, 5))
    for _ in range(frames):
        if random.random() < 0.15:
            scene = random.normal(size=(patches, 5))
        scene = np.where(random.random((patches, 1)) < moving, random.normal(size=(patches, 5)), scene)
        states.append(scene + 0.05 * random.normal(size=(patches, 5)))
    return torch.tensor(np.stack(states), dtype=torch.float32)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6), frames=st.integers(1, 7), patches=st.integers(1, 12),
    moving=st.sampled_from([0.0, 0.05, 0.2]), share=st.sampled_from([0.4, 0.7, 0.9, 1.0]),
    most=st.integers(2, 5), rule=st.sampled_from(["first", "mean"]),
)  # fmt: skip
def test_groups_and_frames_are_the_naive_ones(seed, frames, patches, moving, share, most, rule) -> None:
    states, config = scenes(seed, frames, patches, moving), TowerConfig([0], 0.8, share, most, rule)
    rules, naive = StillFrameMerging(config), list(states.double().numpy())
    plan = rules.plan(states)
    assert plan.groups == still_frames.groups(naive, config)
    assert len(plan.groups) == still_frames.fewest(naive, config)
    want = np.stack(still_frames.merged(naive, config))
    torch.testing.assert_close(rules.merge(states, plan).double(), torch.tensor(want), atol=1e-6, rtol=0)
    target = rules.target(plan, frames)
    assert [target.index(group) for group in range(len(plan.groups))] == [first for first, _ in plan.groups]
    counts = [target.count(group) for group in range(len(plan.groups))]
    assert counts == [last - first + 1 for first, last in plan.groups]
    # other values per frame go the same way
    values = torch.arange(frames * patches, dtype=torch.float32).view(frames, patches)
    torch.testing.assert_close(rules.merge(values, plan), rules.merge(values[..., None], plan)[..., 0])


def test_a_share_that_is_just_met_is_enough() -> None:
    """7 of 10 patches are 0.7 of them, though 0.7 * 10 is more than 7 in double precision."""
    counts = torch.tensor([[10, 0, 0], [10, 7, 0], [10, 8, 7]])
    assert still_groups(counts, 10, 0.7) == [(0, 2)]
    assert still_groups(counts, 10, 0.8) == [(0, 0), (1, 2)]
    assert still_groups(counts[:, :2], 10, 0.7) == [(0, 1), (2, 2)]
    assert still_groups(torch.full((3, 3), 4), 4, 1.0) == [(0, 2)]


def test_frames_that_stand_alone_are_not_touched_and_half_precision_stays() -> None:
    states = scenes(3, 6, 9, 0.05).half()
    rules = StillFrameMerging(TowerConfig([0], 0.8, 1.0, 8))
    plan = rules.plan(states)
    merged = rules.merge(states, plan)
    assert merged.dtype == torch.float16
    alone = [(group, first) for group, (first, last) in enumerate(plan.groups) if first == last]
    assert alone
    for group, first in alone:
        assert torch.equal(merged[group], states[first])


def test_states_that_are_not_finite_are_refused() -> None:
    states = scenes(1, 4, 5, 0.0)
    states[2, 3, 1] = torch.inf
    with pytest.raises(InputError, match=r"the vision tower's states has NaN or infinite values in 1 of 4 frames"):
        StillFrameMerging(TowerConfig()).plan(states)


def test_most_merged() -> None:
    """What FLOPs are counted on: frames that all stand still, at 7B's default layer."""
    tower = HolitomConfig(tower=TowerConfig()).build().tower
    counts = tower.nominal_frames(32, 26)
    assert counts == [32] * 7 + [4] * 19
    assert tower.nominal().nominal_frames(9, 26)[-1] == 2
    assert HolitomConfig(tower=TowerConfig([2, 4], max_frames=4)).build().tower.nominal_frames(32, 6) == [
        *[32] * 3,
        *[8] * 2,
        2,
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": []}, r"tower.layers = \[\] is out of range"),
        ({"layers": [3, 1]}, r"tower.layers = \[3, 1\] is out of range"),
        ({"similarity_threshold": 1.2}, "tower.similarity_threshold = 1.2 is out of range"),
        ({"static_share": 0}, "tower.static_share = 0 is out of range"),
        ({"static_share": 1.1}, "tower.static_share = 1.1 is out of range"),
        ({"max_frames": 1}, "tower.max_frames = 1 is out of range"),
        ({"max_frames": True}, "tower.max_frames = True is out of range"),
        ({"moving_rule": "last"}, "tower.moving_rule = 'last' is out of range"),
    ],
)
def test_settings_out_of_range(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TowerConfig(**changes)


def test_the_paper_has_no_such_stage() -> None:
    assert HolitomConfig().tower is None
    assert HolitomConfig().build().tower is None
    with pytest.raises(InputError, match="tower is set while outer is null"):
        HolitomConfig(outer=None, inner=InnerConfig(4), tower=TowerConfig())


def test_a_tower_that_is_too_short_is_refused(model) -> None:
    with pytest.raises(InputError, match=r"tower_layers = \[6\] is out of range: the tower runs 2 layers"):
        HolitomConfig(OUTER, None, TowerConfig()).build().apply(model)
    assert hook_count(model) == 0


def encoded(model, compressor, clip: Tensor):
    encoder = VisualEncoder(model.model, model.config, None)
    compressor.start_prompt()
    return compressor.compress_video(lambda: encoder.encode_frames(clip), encoder.pool, "one_token")


def test_a_moving_clip_is_compressed_as_without_the_stage(model) -> None:
    """Nothing stands still enough: bit for bit HoliTom's own tokens, whatever pieces the tower works in."""
    clip = torch.cat([video(1, seed=seed) for seed in range(4)])
    with HolitomConfig(OUTER, None).build().applied(model) as plain:
        want = encoded(model, plain, clip)
    with HolitomConfig(OUTER, None, TowerConfig([0])).build().applied(model) as compressor:
        got = encoded(model, compressor, clip)
    assert compressor.record.frames_per_tower_layer(2) == [4, 4]
    assert torch.equal(got.features, want.features)
    assert torch.equal(got.index, want.index)
    assert torch.equal(got.details.source_map(), want.details.source_map())
    assert torch.equal(got.details.token_kinds(), want.details.token_kinds())
    assert got.details.segments == want.details.segments


@pytest.mark.parametrize(("passes", "threshold"), [(2, 1.0), (16, 1.0), (16, 0.8)])
def test_a_still_clip_goes_on_as_one_frame(model, passes: int, threshold: float, monkeypatch, tmp_path) -> None:
    """Six equal frames and one of another scene: two frames are encoded to the end, with the budget of seven."""
    clip = torch.cat([video(1).expand(6, -1, -1, -1), video(1, seed=9)])
    monkeypatch.setattr(model.model.vision_tower, "frames_per_pass", passes)
    outer = replace(OUTER, similarity_threshold=threshold)
    with HolitomConfig(outer, None, TowerConfig([0])).build().applied(model) as compressor:
        kept = encoded(model, compressor, clip)
        record = compressor.record
        assert record.frames_per_tower_layer(2) == [7, 2]
        save_record(record, tmp_path / "record.npz")
        (saved,) = load_record(tmp_path / "record.npz").videos
    assert saved.frame_targets.tolist() == [[0, 0, 0, 0, 0, 0, 1]]
    assert kept.details.adjusted_ratio == pytest.approx(0.7)
    assert kept.details.frames == 7
    assert abs(len(kept.index) - 0.2 * 7 * TOKENS) <= 2
    assert not bool(((kept.index >= TOKENS) & (kept.index < 6 * TOKENS)).any()), "the first of six stands for them"
    source, kinds = kept.details.source_map(), kept.details.token_kinds()
    assert torch.equal(source[0], source[5])
    dropped = {TokenKind.DYNAMIC_DROPPED, TokenKind.STATIC_DROPPED}
    merged = {TokenKind.CONTEXTUAL_MERGED, TokenKind.STATIC_MERGED}
    centers = {TokenKind.CONTEXTUAL_CENTER, TokenKind.STATIC_CENTER}
    assert set(kinds[1:6].flatten().tolist()) <= dropped | merged
    assert set(kinds.flatten()[kept.index].tolist()) <= centers | {TokenKind.DYNAMIC_KEPT}
    assert TokenKind.DYNAMIC_KEPT not in kinds[0].tolist(), "a token of six frames is no token that was kept unchanged"
    if threshold == 1:
        assert kept.index.max() >= 6 * TOKENS, "the last frame's tokens stand at its own place"
        assert kept.details.segments == [(0, 5), (6, 6)]
        assert TokenKind.DYNAMIC_KEPT in kinds[6].tolist()
    rows = torch.arange(len(kept.index))
    assert torch.equal(source.flatten()[kept.index], rows)
    # what the merged frame holds is what each of the equal frames alone would hold
    alone = HolitomConfig(replace(outer, retain_ratio=0.7), None).build()
    with alone.applied(model):
        pair = encoded(model, alone, clip[[0, 6]])
    torch.testing.assert_close(kept.features, pair.features, atol=1e-5, rtol=0)
    assert hook_count(model) == 0
