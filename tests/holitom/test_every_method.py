"""One contract for every registered method; a new file in ``holitom/methods`` is held to it at once."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from holitom import available_methods, load_config
from holitom.compressor import Compressor
from holitom.settings import RunConfig, from_mapping, parse_config
from llava.errors import InputError
from llava.model.builder import load_pretrained_model
from tests.references import flash_stub
from tests.tiny_models import greedily, hook_count, pixels, prompt, video

STEPS = 3
TOKENS = 196
LAYERS = 6
# Settings of methods whose defaults need more decoder layers, or more frames, than these tests have.
SMALL: dict[str, dict[str, Any]] = {
    "earlytom": {"similarity_threshold": 0.3, "tower_layers": [0], "inner": {"merge_layer": 4}},
    "fastvid": {"min_segments": 3},
    "flashvid": {"min_segments": 3, "prune_layer": 4},
    "holitom": {"inner": {"merge_layer": 4}},
    "pdrop": {"drop_layers": [1, 3, 4]},
}
# Stages that a method leaves out by default and that change what its contract is about: "method+stage".
VARIANTS: dict[str, dict[str, Any]] = {
    "holitom+tower": {"inner": {"merge_layer": 4}, "tower": {"layers": [0], "static_share": 0.6}},
}
# Methods whose tokens of one frame may follow those of a later one (a segment's tokens before its frames).
NOT_FRAME_BY_FRAME = {"holitom", "holitom+tower", "prunevid"}
# Methods whose tokens stay at their positions of the uncompressed video; all others are numbered without gaps.
KEEPS_POSITIONS = {"evs", "fastvid"}
# Methods two of whose tokens may stand at one place: a picked one and, behind it, a cluster around the same one.
SHARES_PLACES = {"flashvid"}
# The methods those lines speak of; a new one is taken at its word.
KNOWN = {
    "dycoke",
    "earlytom",
    "evs",
    "fastv",
    "fastvid",
    "flashvid",
    "holitom",
    "pdrop",
    "prunevid",
    "random",
    "uniform",
    "vidcom2",
    "visionzip",
}
METHODS = sorted(available_methods())
WITH_OUTER = [name for name in METHODS if available_methods()[name]().build().outer is not None]


@pytest.fixture(scope="module")
def model(checkpoint):
    """One tiny model for all tests of this file; each leaves it as it was."""
    return load_pretrained_model(checkpoint, None, "llava_qwen", torch_dtype="float32")[1]


@pytest.fixture(autouse=True)
def untouched(model):
    """No test leaves a hook, a compressor or a changed setting behind."""
    yield
    model.set_attn_implementation("sdpa")
    model.config.mm_newline_position = "one_token"
    assert hook_count(model) == 0
    assert model.visual_compressor is None


def small(name: str) -> Compressor:
    """The method with its defaults, except for what a model of few layers needs."""
    return from_mapping(available_methods()[name.partition("+")[0]], (SMALL | VARIANTS).get(name, {})).build()


def without_inner(name: str) -> Compressor:
    """The same without what it does inside the LLM."""
    compressor = small(name)
    compressor.inner = None
    return compressor


def applied(name: str, model: nn.Module):
    """A ``with`` block that compresses; explains what to do if the defaults do not fit."""
    compressor = small(name)
    try:
        compressor.apply(model).remove()
    except InputError as error:
        pytest.fail(f"{name} does not fit a decoder of {LAYERS} layers: give it smaller ones in SMALL ({error})")
    return compressor.applied(model)


greedy = partial(greedily, steps=STEPS)


def spliced(model, ids: Tensor, visuals: list[Tensor], kinds: list[str]):
    with torch.no_grad():
        return model.splice_visuals(ids, None, None, visuals, None, kinds)


def served_or_refused(call: Callable, *args, **inputs) -> tuple[Any, str | None]:
    """What the call returns and None, or None and the one line it refuses with."""
    try:
        return call(*args, **inputs), None
    except InputError as error:
        return None, str(error)


@pytest.mark.parametrize("name", METHODS)
def test_builds_from_its_defaults_and_says_what_it_is(name: str) -> None:
    config = available_methods()[name]()
    compressor = config.build()
    assert compressor.outer is not None or compressor.inner is not None
    assert type(config).__doc__
    with pytest.raises((AttributeError, TypeError)):  # frozen
        config.__setattr__(next(iter(type(config).__dataclass_fields__)), None)


@pytest.mark.parametrize("name", METHODS)
def test_configuration_survives_yaml(name: str, tmp_path) -> None:
    for settings in ({}, SMALL.get(name, {})):
        run = RunConfig(
            parse_config({"compressor": None}).model, name, from_mapping(available_methods()[name], settings)
        )
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(run.as_dict()))
        assert load_config(path) == run
        with pytest.raises(InputError, match="unknown key"):
            load_config(path, ["no_such_setting=1"])


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_shipped_configuration(name: str) -> None:
    shipped = [load_config(path) for path in sorted(Path("configs").rglob(f"{name}*.yaml"))]
    assert name in {config.method for config in shipped}


@pytest.mark.parametrize("name", [*METHODS, *VARIANTS])
def test_bit_for_bit_gone_after_remove(model, name: str) -> None:
    ids, inputs = prompt(5, "video", 9), {"images": [video(5, cuts=(2,))], "modalities": ["video"]}
    before = greedy(model, ids, **inputs)
    with applied(name, model):
        inside = greedy(model, ids, **inputs)
    after = greedy(model, ids, **inputs)
    assert torch.equal(torch.stack(before.logits), torch.stack(after.logits))
    assert not torch.equal(inside.logits[-1], before.logits[-1])
    assert hook_count(model) == 0
    with pytest.raises(ZeroDivisionError), applied(name, model):
        raise ZeroDivisionError
    assert hook_count(model) == 0


@pytest.mark.parametrize("name", METHODS)
def test_text_and_images_are_left_alone(model, name: str) -> None:
    """Alone they give the same logits; beside a video they have the embeddings they would have without the method."""
    ids, visuals, kinds = prompt(4, "image", 3, "video", 6), [pixels(), video(4, cuts=(2,))], ["image", "video"]
    image_ids, image = prompt(5, "image", 9), {"images": [pixels()], "image_sizes": [(384, 384)]}
    want = [greedy(model, prompt(20)), greedy(model, image_ids, **image)]
    whole = spliced(model, ids, visuals, kinds)
    with applied(name, model):
        got = [greedy(model, prompt(20)), greedy(model, image_ids, **image)]
        short = spliced(model, ids, visuals, kinds)
    for one, other in zip(got, want, strict=True):
        assert torch.equal(torch.stack(one.logits), torch.stack(other.logits))
    (start, stop), (whole_start, whole_stop) = short.video_spans[0, 0].tolist(), whole.video_spans[0, 0].tolist()
    assert start == whole_start
    assert torch.equal(short.inputs_embeds[:, :start], whole.inputs_embeds[:, :whole_start])
    assert torch.equal(short.inputs_embeds[:, stop:], whole.inputs_embeds[:, whole_stop:])
    assert torch.equal(short.inputs_embeds[:, stop - 1], whole.inputs_embeds[:, whole_stop - 1]), "the newline"


@pytest.mark.parametrize("name", [*WITH_OUTER, *VARIANTS])
@pytest.mark.parametrize("frames", [4, 9])
def test_respects_its_budget_and_reports_the_exact_count(model, name: str, frames: int) -> None:
    with applied(name, model) as compressor:
        batch = spliced(model, prompt(5, "video", 9), [video(frames, cuts=(3,))], ["video"])
        record, most = compressor.record, compressor.outer.most_kept(frames, TOKENS)
    (kept,) = record.videos
    count = record.tokens_after_outer[0]
    assert record.tokens_before == [frames * TOKENS]
    assert count == len(kept.index) == len(kept.features)
    assert 0 < count <= most <= frames * TOKENS
    assert count < frames * TOKENS, "nothing was compressed"
    start, stop = batch.video_spans[0, 0].tolist()
    assert stop - start == count + 1, "one newline behind the tokens"
    assert torch.equal(batch.inputs_embeds[0, start : stop - 1], kept.features)


@pytest.mark.parametrize("name", [*WITH_OUTER, *VARIANTS])
def test_order_positions_and_source_map(model, name: str) -> None:
    frames, text = 6, 5
    with applied(name, model) as compressor:
        batch = spliced(model, prompt(text, "video", 9), [video(frames, cuts=(3,))], ["video"])
        kept, gaps = compressor.record.videos[0], compressor.keeps_positions
    assert gaps == (name in KEEPS_POSITIONS or (name not in KNOWN and compressor.outer.keeps_positions))
    index, details, count = kept.index, kept.details, len(kept.index)
    assert 0 <= int(index.min()) <= int(index.max()) < frames * TOKENS
    source = details.source_map()
    assert source.shape == details.token_kinds().shape == (frames, TOKENS) == (details.frames, details.tokens_per_frame)
    own, rows = source.flatten()[index], torch.arange(count)
    if name in SHARES_PLACES:
        shared = torch.cat([torch.tensor([False]), index.diff() == 0])
        assert torch.equal(own[~shared], rows[~shared])
        assert torch.equal(own[shared], rows[shared] - 1), "the row in front stands at the same place"
        assert set(source.unique().tolist()) <= set(range(count))
    else:
        assert len(set(index.tolist())) == count
        assert torch.equal(own, rows), "every output row knows its own token"
        assert set(source.unique().tolist()) - {-1} == set(range(count))
    assert [first for first, _ in details.segments] == [0, *(last + 1 for _, last in details.segments[:-1])]
    assert details.segments[-1][1] == frames - 1
    if name in KNOWN - NOT_FRAME_BY_FRAME:
        assert bool((index.diff() // TOKENS >= -1).all())
        assert bool(((index // TOKENS).diff() >= 0).all()), "frame by frame"
    if gaps:
        assert bool((index.diff() > 0).all())
        inside = torch.cat([index, torch.tensor([frames * TOKENS])]) + text
        after = text + frames * TOKENS + 1
    else:
        inside, after = torch.arange(count + 1) + text, text + count + 1
    want = torch.cat([torch.arange(text), inside, torch.arange(after, after + 9)])
    assert torch.equal(batch.position_ids[0], want)


@pytest.mark.parametrize("attention", ["sdpa", "eager", "flash stub"])
@pytest.mark.parametrize("name", [*METHODS, *VARIANTS])
def test_a_left_padded_batch_gets_what_its_rows_get_alone(model, name: str, attention: str) -> None:
    """Rows with two videos and an image, with text alone, and with one video."""
    rows = [prompt(5, "video", 4, "image", 3, "video", 2, seed=1), prompt(12, seed=2), prompt(3, "video", 4, seed=3)]
    visuals = [video(4, seed=1, cuts=(2,)), pixels(seed=8), video(5, seed=4), video(4, seed=9, cuts=(3,))]
    kinds, parts = ["video", "image", "video", "video"], [slice(0, 3), slice(3, 3), slice(3, 4)]
    ids = torch.nn.utils.rnn.pad_sequence(
        [row[0] for row in rows], batch_first=True, padding_value=256, padding_side="left"
    )
    with applied(name, model) as compressor:
        model.set_attn_implementation(flash_stub.register() if attention == "flash stub" else attention)
        together = greedy(model, ids, attention_mask=ids.ne(256), images=visuals, modalities=kinds)
        counts, alone_counts = compressor.record.tokens_after_outer, []
        for number, (row, part) in enumerate(zip(rows, parts, strict=True)):
            alone = greedy(model, row, images=visuals[part] or None, modalities=kinds[part] or None)
            assert together.sequences[number].tolist() == alone.sequences[0].tolist()
            for got, want in zip(together.logits, alone.logits, strict=True):
                torch.testing.assert_close(got[number], want[0], atol=1e-4, rtol=0)
            alone_counts += compressor.record.tokens_after_outer
    assert counts == alone_counts


@pytest.mark.parametrize("name", [*METHODS, *VARIANTS])
def test_attention_implementations_agree(model, name: str) -> None:
    ids, inputs = prompt(5, "video", 9), {"images": [video(5, cuts=(2,))], "modalities": ["video"]}
    logits = {}
    with applied(name, model):
        for attention in ("sdpa", "eager", flash_stub.register()):
            model.set_attn_implementation(attention)
            logits[attention] = torch.stack(greedy(model, ids, **inputs).logits)
    for other in logits.values():
        torch.testing.assert_close(other, logits["sdpa"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", [*WITH_OUTER, *VARIANTS])
def test_several_videos_get_the_tokens_that_each_gets_alone(model, name: str) -> None:
    clips = [video(5, seed=1), video(4, seed=30, cuts=(1, 2, 3)), video(6, seed=7, cuts=(4,))]
    with applied(name, model) as compressor:
        spliced(model, prompt(3, "video", 2, "video", 2, "video", 1), clips, ["video"] * 3)
        together = compressor.record.videos
        for number, clip in enumerate(clips):
            spliced(model, prompt(2, "video", 4), [clip], ["video"])
            (alone,) = compressor.record.videos
            assert torch.equal(alone.features, together[number].features)
            assert torch.equal(alone.index, together[number].index)


@pytest.mark.parametrize("name", [*WITH_OUTER, *VARIANTS])
def test_cached_decoding_equals_recomputation_of_the_kept_tokens(model, name: str) -> None:
    """The outer stage's tokens are frozen and the answer is computed in one pass without cache and hooks.

    Inner stages are left out here: each has its own test against a naive decoder.
    """
    ids, clips, kinds = prompt(5, "video", 9, "video", 2), [video(5, cuts=(2,)), video(4, seed=6)], ["video"] * 2
    with without_inner(name).applied(model):
        out = greedy(model, ids, images=clips, modalities=kinds)
        kept = spliced(model, ids, clips, kinds)
    answer = model.model.embed_tokens(out.sequences[:, :-1])
    positions = torch.cat([kept.position_ids, kept.position_ids[:, -1:] + torch.arange(1, STEPS)], dim=1)
    embeds = torch.cat([kept.inputs_embeds, answer], dim=1)
    call = {"inputs_embeds": embeds, "position_ids": positions, "attention_mask": torch.ones_like(positions)}
    with torch.no_grad():
        logits = model(**call, use_cache=False).logits
    torch.testing.assert_close(logits[0, -STEPS:], torch.stack(out.logits)[:, 0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize("name", METHODS)
def test_short_videos_are_served_or_refused(model, name: str, frames: int) -> None:
    ids, inputs = prompt(5, "video", 9), {"images": [video(frames)], "modalities": ["video"]}
    with applied(name, model) as compressor:
        out, refusal = served_or_refused(greedy, model, ids, **inputs)
        counts = compressor.record.tokens_after_outer
    if refusal is not None:
        assert "frame" in refusal
        assert "\n" not in refusal
        return
    assert torch.isfinite(torch.stack(out.logits)).all()
    assert all(0 < count <= frames * TOKENS for count in counts)


@pytest.mark.parametrize("name", METHODS)
def test_a_clip_of_equal_frames_is_served(model, name: str) -> None:
    """Every similarity ties: selections must still be well-defined, and the same in a second run."""
    ids, inputs = prompt(5, "video", 9), {"images": [video(1).repeat(6, 1, 1, 1)], "modalities": ["video"]}
    with applied(name, model):
        first, second = greedy(model, ids, **inputs), greedy(model, ids, **inputs)
    assert torch.isfinite(torch.stack(first.logits)).all()
    assert torch.equal(torch.stack(first.logits), torch.stack(second.logits))


@pytest.mark.parametrize("newline", ["grid", "frame", "no_token"])
@pytest.mark.parametrize("name", WITH_OUTER)
def test_other_newline_modes_are_served_or_refused(model, name: str, newline: str) -> None:
    model.config.mm_newline_position = newline
    group = {"grid": 14, "frame": TOKENS, "no_token": None}[newline]
    with applied(name, model) as compressor:
        call = (model, prompt(5, "video", 9), [video(4, cuts=(2,))], ["video"])
        batch, refusal = served_or_refused(spliced, *call)
        videos = compressor.record.videos
    if refusal is not None:
        assert newline != "no_token"
        assert "mm_newline_position" in refusal
        return
    (kept,) = videos
    start, stop = batch.video_spans[0, 0].tolist()
    newlines = 0 if group is None else len(set((kept.index // group).tolist()))
    if newline == "grid" and kept.every_row:
        newlines = 4 * TOKENS // group
    assert stop - start == len(kept.index) + newlines
    if group is not None:
        assert bool((kept.index.diff() >= (name not in SHARES_PLACES)).all()), "raster order"
