"""Pruning in stages on a tiny random decoder equals a reference without padding, cache, hooks or mask helpers."""

import copy
import gc

import pytest
import torch
from torch import nn
from transformers import DynamicCache, StaticCache

from holitom.hooks.decoder.pruning import pruning_stages
from holitom.hooks.decoder.rules import DecoderStage
from holitom.methods.fastv import FastvConfig
from holitom.methods.holitom.config import InnerConfig
from holitom.methods.holitom.inner import merging_stage
from holitom.methods.pdrop import PdropConfig
from llava.errors import InputError
from tests.references.inner_checks import LAYERS, PROMPTS, VOCAB, assert_close, make_prompt, tiny_model
from tests.references.staged_checks import (
    RECIPES,
    check_generate,
    check_prefill,
    check_second_turn,
    engine,
    expected,
    forced_logits,
)

ATTENTIONS = ["sdpa", "eager", "stub"]


def plain(prompt, **others):
    return {**{name: value for name, value in prompt.arguments().items() if name != "video_spans"}, **others}


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("name", PROMPTS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_prefill(name, recipe, attention):
    check_prefill(name, recipe, attention)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("name", ["single", "equal", "uneven_after"])
@pytest.mark.parametrize("recipe", ["fastv", "pdrop"])
@pytest.mark.parametrize("use_cache", [True, False])
def test_prefill_without_attention_mask(name, recipe, use_cache, attention):
    check_prefill(name, recipe, attention, masked=False, use_cache=use_cache)


@pytest.mark.parametrize("recipe", ["fastv", "pdrop"])
def test_prefill_without_cache(recipe):
    check_prefill("ragged", recipe, use_cache=False)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("name", PROMPTS)
@pytest.mark.parametrize("recipe", ["fastv", "pdrop"])
def test_generate(name, recipe, attention):
    check_generate(name, recipe, attention)


@pytest.mark.parametrize("recipe", RECIPES)
def test_generate_with_other_settings(recipe):
    check_generate("ragged3", recipe)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("recipe", ["fastv", "pdrop"])
def test_generate_without_attention_mask(recipe, attention):
    check_generate("uneven_after", recipe, attention, masked=False)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize(("name", "ragged"), [("single", False), ("ragged", False), ("ragged", True), ("equal", True)])
@pytest.mark.parametrize("recipe", ["fastv", "pdrop"])
def test_second_turn(name, ragged, recipe, attention):
    check_second_turn(name, recipe, attention, ragged)


def decode(model, tokens, mask, cache):
    positions = (mask.cumsum(1) - 1)[:, -1:]
    return model(input_ids=tokens, attention_mask=mask, position_ids=positions, past_key_values=cache).logits[:, -1]


@pytest.mark.parametrize("recipe", ["fastv", "pdrop"])
def test_interleaved_sequences_do_not_share_state(recipe):
    """Two generations take turns on one object; each has its own prompt, batch and padding."""
    model, states = tiny_model(), []
    with engine(recipe).applied(model.model):
        for name in ("ragged", "ragged3"):
            prompt, cache = make_prompt(name), DynamicCache(config=model.config)
            positions = (prompt.mask.cumsum(1) - 1).clamp(min=0)
            logits = model(**prompt.arguments(), past_key_values=cache, position_ids=positions).logits[:, -1]
            states.append({"name": name, "mask": prompt.mask, "cache": cache, "logits": [logits], "tokens": []})
        for _ in range(3):
            for state in states:
                token = state["logits"][-1].argmax(-1, keepdim=True)
                state["mask"] = torch.cat([state["mask"], torch.ones_like(token)], dim=1)
                state["tokens"].append(token)
                state["logits"].append(decode(model, token, state["mask"], state["cache"]))
    for state in states:
        tokens = torch.cat([*state["tokens"], state["tokens"][0]], dim=1)
        for row, (_, trace) in enumerate(expected(state["name"], recipe)):
            wanted = forced_logits(recipe, make_prompt(state["name"]).rows[row], trace, tokens[row])
            assert_close(torch.stack(state["logits"], dim=1)[row], wanted, f"{state['name']}, row {row}")


@pytest.mark.parametrize("recipe", ["fastv", "pdrop"])
def test_beams_in_a_batch_equal_beams_alone(recipe):
    model, prompt = tiny_model(), make_prompt("ragged3")
    options = {"max_new_tokens": 5, "num_beams": 3, "do_sample": False, "pad_token_id": 0}
    with engine(recipe).applied(model.model):
        together = model.generate(**prompt.arguments(), **options)
        for row, (states, spans) in enumerate(prompt.rows):
            alone = model.generate(inputs_embeds=states[None], video_spans=torch.tensor(spans)[None], **options)
            assert together[row].tolist() == alone[0].tolist()


@pytest.mark.parametrize("recipe", ["fastv", "pdrop"])
def test_cropping_generated_tokens_is_fine(recipe):
    model, prompt, cache = tiny_model(), make_prompt("ragged"), DynamicCache(config=tiny_model().config)
    token = torch.full((2, 1), 7)
    masks = [nn.functional.pad(prompt.mask, (0, extra), value=1) for extra in range(3)]
    with engine(recipe).applied(model.model):
        positions = (prompt.mask.cumsum(1) - 1).clamp(min=0)
        model(**prompt.arguments(), past_key_values=cache, position_ids=positions)
        first = decode(model, token, masks[1], cache)
        decode(model, token + 5, masks[2], cache)
        cache.crop(-2)
        assert torch.equal(decode(model, token, masks[1], cache), first)


@pytest.mark.parametrize(
    "config",
    [FastvConfig(2, 0.0), PdropConfig([1, 3], [1.0, 1.0]), FastvConfig(5, 0.01)],
    ids=["fastv", "pdrop", "rne"],
)
@pytest.mark.parametrize("name", ["single", "ragged"])
def test_everything_kept_is_bitwise_the_plain_model(config, name):
    """1 % of 20 tokens rounds to none."""
    model, prompt, inner = tiny_model(), make_prompt(name), config.build().inner
    before = model(**plain(prompt)).logits
    with inner.applied(model.model):
        assert torch.equal(model(**prompt.arguments()).logits, before)
        assert inner.last.tokens_after == inner.last.tokens_before
        assert inner.last.tokens_per_layer(LAYERS) == [[n] * LAYERS for row in inner.last.tokens_before for n in row]
    assert torch.equal(model(**plain(prompt)).logits, before)


@pytest.mark.parametrize("recipe", ["fastv", "pdrop"])
def test_text_only_is_bitwise_the_plain_model_and_nothing_is_left(recipe):
    model, prompt = tiny_model(), make_prompt("ragged")
    options = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, "output_logits": True}
    before = model.generate(**plain(prompt), **options, return_dict_in_generate=True)
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    with engine(recipe).applied(model.model):
        spans = prompt.spans[:, :0]
        text = model.generate(**plain(prompt, video_spans=spans), **options, return_dict_in_generate=True)
        video = model.generate(**prompt.arguments(), **options, return_dict_in_generate=True)
        with pytest.raises(RuntimeError, match="without video_spans"):
            model(**plain(prompt))
    after = model.generate(**plain(prompt), **options, return_dict_in_generate=True)
    assert torch.equal(torch.stack(text.logits), torch.stack(before.logits))
    assert torch.equal(torch.stack(after.logits), torch.stack(before.logits))
    assert not torch.equal(torch.stack(video.logits), torch.stack(before.logits))
    assert sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()) == hooks


@pytest.mark.parametrize("recipe", ["fastv", "pdrop"])
def test_records_of_every_stage(recipe):
    model, prompt, inner = tiny_model(), make_prompt("two_videos"), engine(recipe)
    with inner.applied(model.model):
        logits = model(**prompt.arguments()).logits
    record = inner.last
    counts = {"fastv": [((3, 2), (2,))], "pdrop": [((7, 4), (4,)), ((3, 2), (2,)), ((1, 1), (1,))]}[recipe]
    assert record.tokens_before == ((14, 9), (8,))
    assert [stage.tokens_after for stage in record.stages] == counts
    assert record.tokens_after == counts[-1]
    layers = {
        "fastv": [[14, 14, 3, 3, 3, 3], [9, 9, 2, 2, 2, 2], [8, 8, 2, 2, 2, 2]],
        "pdrop": [[14, 7, 7, 3, 1, 1], [9, 4, 4, 2, 1, 1], [8, 4, 4, 2, 1, 1]],
    }[recipe]
    assert record.tokens_per_layer(LAYERS) == layers
    labels = torch.arange(prompt.mask.numel()).reshape(prompt.mask.shape)
    aligned = inner.align(labels)
    assert aligned.shape == logits.shape[:2]
    for row, kept in enumerate(record.cpu_kept.tolist()):
        assert aligned[row].tolist() == [-100 if place < 0 else labels[row, place].item() for place in kept]


def test_merging_counts_its_layers_too():
    model, prompt, inner = tiny_model(), make_prompt("two_videos"), merging_stage(InnerConfig(4, 0.5))
    with inner.applied(model.model):
        model(**prompt.arguments())
    assert inner.last.tokens_per_layer(LAYERS) == [[14] * 4 + [7] * 2, [9] * 4 + [4] * 2, [8] * 4 + [4] * 2]
    assert [stage.layer for stage in inner.last.stages] == [4]
    assert torch.equal(inner.last.stages[0].kept, inner.last.kept)


@pytest.mark.parametrize("recipe", ["fastv", "pdrop"])
def test_state_lives_as_long_as_its_cache_and_copies_are_refused(recipe):
    model, cache, inner = tiny_model(), DynamicCache(config=tiny_model().config), engine(recipe)
    prompt, token = make_prompt("ragged"), torch.ones(2, 1, dtype=torch.long)
    mask = nn.functional.pad(prompt.mask, (0, 1), value=1)
    with inner.applied(model.model):
        model(**prompt.arguments(), past_key_values=cache)
        with pytest.raises(RuntimeError, match="is a copy"):
            model(input_ids=token, attention_mask=mask, past_key_values=copy.deepcopy(cache))
        with pytest.raises(InputError, match="32 \\+ 1 tokens"):
            model(input_ids=token, attention_mask=mask[:, :20], past_key_values=cache)
        cache.crop(-1)
        with pytest.raises(RuntimeError, match="cropped into the prompt"):
            model(input_ids=token, attention_mask=mask, past_key_values=cache)
        assert len(inner._states) == 1
        del cache
        gc.collect()
        assert len(inner._states) == 0


@pytest.mark.parametrize("layer", [0, 2, 3, 5])
@pytest.mark.parametrize("recipe", ["fastv", "pdrop"])
def test_a_broken_off_prefill_is_refused(recipe, layer, monkeypatch):
    """Wherever it broke off, also behind a stage: the last layer's cache is empty then."""
    model, prompt, cache = tiny_model(), make_prompt("single"), DynamicCache(config=tiny_model().config)
    with engine(recipe).applied(model.model) as inner:
        with monkeypatch.context() as patch:
            patch.setattr(model.model.layers[layer].self_attn, "forward", lambda *_, **__: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                model(**prompt.arguments(), past_key_values=cache)
        assert inner._call is None
        if layer:
            with pytest.raises(RuntimeError, match="broken off"):
                model(**prompt.arguments(), past_key_values=cache)
        logits = model(**prompt.arguments()).logits
    assert_close(logits[0], expected("single", recipe)[0][0], "after a failure")


@pytest.mark.parametrize("recipe", ["fastv", "pdrop"])
def test_unsupported_masks_and_caches(recipe):
    model, prompt = tiny_model(), make_prompt("ragged")
    wrong = [
        ({"attention_mask": torch.ones(2, 1, 32, 32, dtype=torch.bool)}, "2D"),
        ({"past_key_values": StaticCache(config=model.config, max_cache_len=64)}, "StaticCache"),
        ({"attention_mask": prompt.mask.flip(1)}, "left padding"),
    ]
    for changes, message in wrong:
        with engine(recipe).applied(model.model), pytest.raises(NotImplementedError, match=message):
            model(**{**prompt.arguments(), **changes})


def test_layers_that_do_not_fit():
    model = tiny_model()
    with pytest.raises(InputError, match=r"prune_layer = 6.*\[1, 5\]"):
        FastvConfig(6).build().inner.apply(model.model)
    with pytest.raises(InputError, match=r"drop_layers = 7.*\[1, 5\]"):
        PdropConfig().build().inner.apply(model.model)
    with pytest.raises(InputError, match="out of order"):
        pruning_stages([DecoderStage(3, int), DecoderStage(3, int)])
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("recipe", ["fastv", "pdrop"])
def test_low_precision_stays_finite(recipe, dtype):
    model, prompt = tiny_model("sdpa", dtype), make_prompt("ragged3")
    options = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, "output_logits": True}
    with engine(recipe).applied(model.model) as inner:
        out = model.generate(**prompt.arguments(dtype=dtype), **options, return_dict_in_generate=True)
    assert torch.isfinite(torch.stack(out.logits)).all()
    assert all(stage.scores.dtype == torch.float32 for stage in inner.last.stages)
    assert all(token < VOCAB for token in out.sequences.flatten().tolist())


def test_renumbered_positions():
    """Every row of every stage counts 0, 1, 2 ... over its real tokens, and the next token follows."""
    model, prompt, cache, asked = tiny_model(), make_prompt("ragged"), DynamicCache(config=tiny_model().config), []
    positions = (prompt.mask.cumsum(1) - 1).clamp(min=0)
    probe = model.model.rotary_emb.register_forward_pre_hook(
        lambda _, args, kw: asked.append((*args, *kw.values())[1]), with_kwargs=True
    )
    with engine("pdrop").applied(model.model) as inner:
        model(**prompt.arguments(), past_key_values=cache, position_ids=positions)
        decode(model, torch.ones(2, 1, dtype=torch.long), nn.functional.pad(prompt.mask, (0, 1), value=1), cache)
    probe.remove()
    stages = len(inner.last.stages)
    assert len(asked) == 2 * (1 + stages)
    for number, stage in enumerate(inner.last.stages):
        for row, real in enumerate((stage.kept >= 0).sum(1).tolist()):
            assert asked[1 + number][row, -real:].tolist() == list(range(real))
            assert asked[2 + stages + number][row].tolist() == [real]
