"""``fill_budget`` for every method with a stage before the LLM: the count is the budget, and nothing else changes."""

from __future__ import annotations

import copy
import json
import pickle
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from holitom import holitom, load_config
from holitom.budget import distance_from_kept, filled, preference
from holitom.compressor import Compressor
from holitom.encoded_video import EncodedVideo, FrameMerges
from holitom.methods import share_settings
from holitom.ops.merging_again import merged_again
from holitom.ops.selection import PlainDetails
from holitom.record.file import load_record
from holitom.record.saving import save_record
from holitom.settings import RunConfig, method_defaults, parse_config
from holitom.tokens import CompressedTokens, TokenKind
from holitom.watching import watched
from llava.errors import InputError
from llava.model.builder import load_pretrained_model
from tests.holitom.test_every_method import METHODS, SHARES_PLACES, SMALL, VARIANTS, WITH_OUTER
from tests.references.fill_budget import in_order, next_best
from tests.references.outer import structured_video
from tests.tiny_models import greedily, hook_count, hugging_face_model, prompt, video

FRAMES, TOKENS, DIM = 9, 16, 12
RATIOS = (0.1, 0.25, 0.5)
CLIPS = ("static", "dynamic", "random")
# The other ways of a method to stay under its budget.
MORE = {
    "holitom with contextual clusters": {"method": "holitom", "outer": {"contextual_ratio": 0.5}},
    "holitom with selected static tokens": {"method": "holitom", "outer": {"static_rule": "attention"}},
    "prunevid with a fixed share": {"method": "prunevid", "retain_ratio": None, "cluster_ratio": 0.5},
    "dycoke by the release": {"method": "dycoke", "merge_ratio": 0.7, "reference_groups": True},
}
CASES = [*WITH_OUTER, *VARIANTS, *MORE]
STAGES_IN_TOWER = {"earlytom": (0, 0, 1, 2, -1, 3, 4, 4, 5), "holitom+tower": (0, 0, 0, 1, 2, 3, 3, 4, 5)}


def run_of(name: str, ratio: float, fill: bool) -> RunConfig:
    """A method at a ratio, where it has one; without what it does inside the LLM."""
    given_settings = dict(MORE.get(name) or {"method": name.partition("+")[0], **(SMALL | VARIANTS).get(name, {})})
    method = given_settings.pop("method")
    values = [f"{key}={json.dumps(value)}" for key, value in given_settings.items()]
    shares = [] if name in MORE and method != "holitom" else share_settings(method, ratio, TOKENS)
    return method_defaults(method, [*values, *shares, f"fill_budget={str(fill).lower()}"])


def clip_of(name: str, kind: str, seed: int = 0) -> tuple[Tensor, dict[str, Tensor], FrameMerges | None]:
    """Features, side signals and what happened in the tower."""
    generator = torch.Generator().manual_seed(seed)
    features, received = map(torch.tensor, structured_video(seed, FRAMES, TOKENS, DIM))
    if kind == "static":
        features, received = features[:1].repeat(FRAMES, 1, 1), received[:1].repeat(FRAMES, 1)
    elif kind == "random":
        features = torch.randn(features.shape, generator=generator)
    keys, merges = torch.randn(FRAMES, TOKENS, 8, generator=generator), None
    target = STAGES_IN_TOWER.get(name)
    if target is not None:
        left = max(target) + 1
        features, received, keys = features[:left], received[:left], keys[:left]
        merges = FrameMerges(FRAMES, (0,), (target,), [(0, 2), (3, left - 1)], received)
    return features, {"received_attention": received, "key_metric": keys}, merges


def compressed(compressor: Compressor | None, clip: Any, mode: str = "one_token") -> CompressedTokens:
    assert compressor is not None
    features, signals, merges = clip
    return compressor.compress_features(features, signals, lambda signal: signal, mode, merges)


def assert_filled(name: str, clip: Any, plain: CompressedTokens, got: CompressedTokens, raster: bool) -> None:
    """Against the naive rule, token by token."""
    features, signals, merges = clip
    order = "raster" if raster else "block"
    seen = EncodedVideo(features, signals, order=order, merges=merges)
    outer = run_of(name, 0.25, fill=False).build()
    assert outer is not None
    assert outer.outer is not None
    score = preference(outer.outer, seen, plain)
    target = list(range(FRAMES)) if merges is None else list(merges.targets[-1])
    index, count = plain.index.tolist(), len(got.index) - len(plain.index)
    added = next_best(index, plain.details.source_map().tolist(), score.tolist(), target, TOKENS, count)
    static = (plain.details.token_kinds().flatten()[plain.index] == TokenKind.STATIC_CENTER).tolist()
    want = in_order(index, static, added, TOKENS, raster)
    assert got.index.tolist() == [place for place, _ in want]
    new = torch.tensor([is_new for _, is_new in want])
    assert torch.equal(got.features[~new], plain.features)
    frames = torch.tensor([target[place // TOKENS] for place in added], dtype=torch.long)
    positions = torch.tensor([place % TOKENS for place in added], dtype=torch.long)
    assert torch.equal(got.features[new], features[frames, positions])
    if count:
        assert_details(plain, got, new, target)


def assert_details(plain: CompressedTokens, got: CompressedTokens, new: Tensor, target: list[int]) -> None:
    """Every token of the video is part of what it was part of, or is an added one."""
    details, rows = got.details, torch.arange(len(got.index))
    before, after = plain.details.source_map(), details.source_map()
    assert torch.equal(details.added, rows[new])
    own = {int(got.index[row]): int(row) for row in rows[new]}
    moved = rows[~new].tolist()
    for frame in range(FRAMES):
        head = target.index(target[frame]) if target[frame] >= 0 else frame
        for position in range(TOKENS):
            old = int(before[frame, position])
            row = own.get(head * TOKENS + position) if target[frame] >= 0 else None
            assert int(after[frame, position]) == (row if row is not None else moved[old] if old >= 0 else -1)
    for row, absorbed in zip(details.added.tolist(), details.absorbed.tolist(), strict=True):
        old = int(before.flatten()[got.index[row]])
        assert absorbed == (moved[old] if old >= 0 else -1)
    kinds = details.token_kinds().flatten()[got.index[new]].tolist()
    alone = [target.count(target[int(place) // TOKENS]) == 1 for place in got.index[new]]
    assert kinds == [TokenKind.DYNAMIC_KEPT if one else TokenKind.CONTEXTUAL_CENTER for one in alone]
    assert details.method is plain.details or type(details.method) is type(plain.details)


@pytest.mark.parametrize("kind", CLIPS)
@pytest.mark.parametrize("name", CASES)
def test_the_count_is_the_budget(name: str, kind: str) -> None:
    clip = clip_of(name, kind)
    for ratio in RATIOS:
        off, on = run_of(name, ratio, fill=False).build(), run_of(name, ratio, fill=True).build()
        assert off is not None
        assert off.outer is not None
        features, signals, merges = clip
        alone = off.outer(EncodedVideo(features, signals, merges=merges))
        plain, got, again = compressed(off, clip), compressed(on, clip), compressed(on, clip)
        assert torch.equal(plain.features, alone.features)
        assert torch.equal(plain.index, alone.index), "off is the method, bit for bit"
        assert not hasattr(plain.details, "budget")
        assert len(got.index) == len(got.features) == off.outer.most_kept(FRAMES, TOKENS)
        assert torch.equal(got.features, again.features)
        assert torch.equal(got.index, again.index)
        assert_filled(name, clip, plain, got, raster=False)
        if name not in SHARES_PLACES:
            assert len(set(got.index.tolist())) == len(got.index)
        if name not in STAGES_IN_TOWER:  # the features before merging are not there
            same = merged_again(got, features)
            torch.testing.assert_close(same, got.features, atol=1e-5, rtol=1e-5)


def test_most_methods_had_something_to_fill() -> None:
    """Else the contract above would hold of nothing; the others meet their budget by themselves."""
    short = set()
    for name in CASES:
        for kind in CLIPS:
            run = run_of(name, 0.25, fill=False).build()
            assert run is not None
            assert run.outer is not None
            if len(compressed(run, clip_of(name, kind)).index) < run.outer.most_kept(FRAMES, TOKENS):
                short.add(name)
    exact = {"dycoke", "dycoke by the release", "evs", "random", "uniform", "visionzip"}
    assert short == set(CASES) - exact


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("evs", "fastvid")])
def test_raster_order_stays_raster_order(name: str) -> None:
    for kind in CLIPS:
        clip = clip_of(name, kind, seed=1)
        plain, got = (compressed(run_of(name, 0.25, fill).build(), clip, "grid") for fill in (False, True))
        assert_filled(name, clip, plain, got, raster=True)
        if name not in SHARES_PLACES:
            assert bool((got.index.diff() > 0).all())


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_selection_is_filled_like_by_loops(data: st.DataObject) -> None:
    """Merges, drops, ties and orders that no method makes."""
    frames, tokens = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5))
    total = frames * tokens
    index = data.draw(st.permutations(range(total)))[: data.draw(st.integers(0, total))]
    source = [data.draw(st.integers(-1, len(index) - 1)) for _ in range(total)]
    kinds = [data.draw(st.sampled_from([TokenKind.STATIC_CENTER, TokenKind.DYNAMIC_KEPT])) for _ in range(total)]
    for row, place in enumerate(index):
        source[place] = row
    shape, raster = (frames, tokens), data.draw(st.booleans())
    features = torch.randn(*shape, 3, generator=torch.Generator().manual_seed(0))
    score = torch.tensor([data.draw(st.integers(0, 3)) for _ in range(total)]).float().view(shape)
    places = torch.tensor(index, dtype=torch.long)
    details = PlainDetails(frames, tokens, [(0, frames - 1)], torch.tensor(source).view(shape), _ints(kinds, shape))
    kept = CompressedTokens(features.flatten(0, 1)[places], places, details)
    budget = data.draw(st.integers(len(index), total))
    seen = EncodedVideo(features, order="raster" if raster else "block")
    got = filled(seen, kept, budget, score)
    want = next_best(index, details.source.tolist(), score.tolist(), list(range(frames)), tokens, budget - len(index))
    static = [kinds[place] == TokenKind.STATIC_CENTER for place in index]
    assert got.index.tolist() == [place for place, _ in in_order(index, static, want, tokens, raster)]
    assert torch.equal(got.features, features.flatten(0, 1)[got.index])
    assert len(got.index) == budget


def test_added_tokens_stand_behind_the_static_ones_of_their_segment() -> None:
    """Two frames of four tokens, static ones at 1 and 3 of the first; the rest of the first frame is added."""
    features = torch.arange(8.0).view(2, 4, 1)
    index = torch.tensor([1, 3, 5])
    source = torch.tensor([[-1, 0, -1, 1], [-1, 2, -1, -1]])
    kinds = torch.tensor([[0, 3, 0, 3], [0, 1, 0, 0]])
    kept = CompressedTokens(features.flatten(0, 1)[index], index, PlainDetails(2, 4, [(0, 1)], source, kinds))
    score = torch.tensor([[5.0, 0, 5, 0], [0, 0, 0, 5]])
    want = {"block": [1, 3, 0, 2, 5, 7], "raster": [0, 1, 2, 3, 5, 7]}
    for order in ("block", "raster"):
        assert filled(EncodedVideo(features, order=order), kept, 6, score).index.tolist() == want[order]


def _ints(values: list[Any], shape: tuple[int, int]) -> Tensor:
    return torch.tensor([int(value) for value in values]).view(shape)


def test_a_budget_beyond_what_the_tower_left_keeps_everything_and_says_so() -> None:
    clip = clip_of("holitom+tower", "dynamic")
    left = clip[0].shape[0] * TOKENS
    compressor = run_of("holitom+tower", 0.9, fill=True).build()
    with pytest.warns(UserWarning, match=rf"leave {left} tokens, fewer than the budget of \d+: all of them are kept"):
        got = compressed(compressor, clip)
    assert len(got.index) == left < got.details.budget
    assert set(got.details.source_map().unique().tolist()) == set(range(left))
    assert compressor is not None
    with pytest.raises(InputError, match="frames merge inside the vision tower"):
        compressor.exact_kept(FRAMES, TOKENS)


def test_details_say_what_the_method_says_and_survive_copies() -> None:
    got = compressed(run_of("holitom", 0.25, fill=True).build(), clip_of("holitom", "dynamic")).details
    assert got.static_counts == got.method.static_counts
    assert got.budget == len(got.added) + len(got.method.index)
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = got.no_such_thing
    for other in (copy.copy(got), pickle.loads(pickle.dumps(got))):
        assert torch.equal(other.added, got.added)
        assert other.adjusted_ratio == got.adjusted_ratio


@pytest.mark.parametrize("name", ["holitom", "holitom+tower", "earlytom", "flashvid", "prunevid"])
def test_the_record_of_a_filled_video_is_one_that_can_be_read(name: str, tmp_path) -> None:
    """Reading checks that kinds, rows and places of a saved record fit together."""
    compressor = run_of(name, 0.25, fill=True).build()
    assert compressor is not None
    compressor.inner = None
    compressor.start_prompt()
    kept = compressed(compressor, clip_of(name, "dynamic"))
    save_record(compressor.record, tmp_path / "record.npz")
    (saved,) = load_record(tmp_path / "record.npz").videos
    assert saved.index.tolist() == kept.index.tolist()
    assert saved.source_map.tolist() == kept.details.source_map().tolist()


def test_an_absorbed_token_stays_part_of_what_it_was_merged_into() -> None:
    clip = clip_of("prunevid", "dynamic")
    plain, got = (compressed(run_of("prunevid", 0.1, fill).build(), clip) for fill in (False, True))
    absorbed = got.details.absorbed
    assert bool((absorbed >= 0).all()), "PruneVid drops nothing"
    rows = torch.ones(len(got.index), dtype=torch.bool)
    rows[got.details.added] = False
    assert torch.equal(got.features[rows], plain.features), "as if nothing had been taken out"
    values = torch.randn(FRAMES, TOKENS, 3)
    assert torch.equal(merged_again(got, values)[rows], merged_again(plain, values))
    assert torch.equal(merged_again(got, values)[~rows], values.flatten(0, 1)[got.index[~rows]])


def test_the_distance_from_what_is_kept() -> None:
    features, kept = torch.randn(3, 5, 7), torch.randn(4, 7)
    features[1, 2] = 3 * kept[1]
    got = distance_from_kept(features, kept).double()
    unit = torch.nn.functional.normalize
    want = 1 - (unit(features.double(), dim=-1) @ unit(kept.double(), dim=-1).T).amax(-1)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
    assert distance_from_kept(features, kept[:0]).tolist() == torch.ones(3, 5).tolist()


@pytest.mark.parametrize("name", [name for name in METHODS if name not in WITH_OUTER])
def test_without_a_budget_it_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(InputError, match="fill_budget = true needs a stage before the LLM") as refused:
        method_defaults(name, ["fill_budget=true"]).build()
    assert "\n" not in str(refused.value)


def test_the_setting_is_read_strictly_and_written_only_where_it_is_on() -> None:
    for wrong in ("1", "null", "maybe"):
        with pytest.raises(InputError, match=r"fill_budget = .* must be true or false"):
            load_config("llava_onevision_7b/holitom_r15", [f"fill_budget={wrong}"])
    on = load_config("llava_onevision_7b/holitom_r15", ["fill_budget=true"])
    off = load_config("llava_onevision_7b/holitom_r15", ["fill_budget=false"])
    assert parse_config(on.as_dict()) == on != off == load_config("llava_onevision_7b/holitom_r15")
    assert "fill_budget" not in off.as_dict()["compressor"]


def test_the_count_is_known_before_there_is_a_video() -> None:
    run = load_config("llava_onevision_7b/holitom_without_inner_r10", ["fill_budget=true"]).build()
    assert run is not None
    assert run.exact_kept(32, 196) == 627 + 32 + 8
    plain = load_config("llava_onevision_7b/holitom_without_inner_r10").build()
    assert plain is not None
    with pytest.raises(InputError, match="up to 667 tokens are kept, and fewer of some videos: set fill_budget"):
        plain.exact_kept(32, 196)
    assert Compressor(None, None).exact_kept(3, 4) == 12


@pytest.mark.parametrize("name", ["holitom", "vidcom2", "prunevid", "fastvid"])
def test_watching_changes_nothing(name: str) -> None:
    clip = clip_of(name, "dynamic")
    run = run_of(name, 0.25, fill=True)
    plain, seen = run.build(), run.build()
    assert plain is not None
    assert seen is not None
    want, got = compressed(plain, clip), compressed(watched(seen), clip)
    assert torch.equal(got.index, want.index)
    assert torch.equal(got.features, want.features)
    assert got.observed is not None


def test_both_runtimes_and_a_batch_keep_exactly_the_budget(checkpoint) -> None:
    """The same tokens in transformers' class; a left-padded batch gets what its rows get alone."""
    ours = load_pretrained_model(checkpoint, None, "llava_qwen", torch_dtype="float32")[1]
    theirs = hugging_face_model(checkpoint)
    rows, visuals = [prompt(5, "video", 4, seed=1), prompt(3, "video", 4, seed=3)], [video(4, cuts=(2,)), video(5)]
    ids = torch.nn.utils.rnn.pad_sequence(
        [row[0] for row in rows], batch_first=True, padding_value=256, padding_side="left"
    )
    holitom(ours, retain_ratio=0.2, merge_layer=4, fill_budget=True)
    compressor = ours.visual_compressor
    batch = greedily(ours, ids, steps=2, attention_mask=ids.ne(256), images=visuals, modalities=["video"] * 2)
    counts, kept = compressor.record.tokens_after_outer, compressor.record.videos
    assert counts == [compressor.exact_kept(frames, 196) for frames in (4, 5)]
    for number, row in enumerate(rows):
        alone = greedily(ours, row, steps=2, images=[visuals[number]], modalities=["video"])
        assert batch.sequences[number].tolist() == alone.sequences[0].tolist()
    compressor.remove()
    holitom(theirs, retain_ratio=0.2, merge_layer=4, fill_budget=True)
    for number, clip in enumerate(visuals):
        text = torch.tensor([[4, 5, *[theirs.config.video_token_id] * (len(clip) * 196 + 1), 6, 7]])
        with torch.no_grad():
            theirs(input_ids=text, pixel_values_videos=clip[None])
        (own,) = theirs.visual_compressor.record.videos
        assert own.index.tolist() == kept[number].index.tolist()
        torch.testing.assert_close(own.features, kept[number].features, atol=1e-4, rtol=1e-4)
    theirs.visual_compressor.remove()
    assert hook_count(ours) == 0


def test_no_warning_where_the_budget_is_met() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compressed(run_of("earlytom", 0.1, fill=True).build(), clip_of("earlytom", "random"))
