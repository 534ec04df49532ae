"""Inner merging on a tiny random decoder equals a reference without padding, cache, hooks or mask helpers."""

import pytest
import torch
from transformers import DynamicCache

from holitom.methods.holitom.inner import merging_stage
from tests.references.inner_checks import (
    PROMPTS,
    VOCAB,
    assert_close,
    check_generate,
    check_prefill,
    check_scores,
    check_second_turn,
    expected,
    forced_logits,
    make_prompt,
    settings,
    tiny_model,
)

ATTENTIONS = ["sdpa", "eager", "stub"]


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("name", PROMPTS)
@pytest.mark.parametrize(("layer", "ratio"), [(1, 0.5), (3, 0.5), (5, 0.75), (3, 0.0)])
def test_prefill(name, layer, ratio, attention):
    check_prefill(name, settings(layer, ratio), attention)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("name", ["single", "ragged", "uneven_after"])
def test_prefill_with_the_mean_rule(name, attention):
    check_prefill(name, settings(ratio=0.75, merge_rule="mean"), attention)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("name", PROMPTS)
def test_layer_before_the_merge_sees_both_ways_if_not_causal(name, attention):
    if (name, attention) == ("one_text_only", "stub"):
        with pytest.raises(NotImplementedError, match="masks per row"):
            check_prefill(name, settings(causal=False), attention)
        return
    check_prefill(name, settings(causal=False), attention)


def test_not_causal_changes_logits():
    """Otherwise the test above could pass with the switch ignored on both sides."""
    causal, both = expected("single", settings())[0][0], expected("single", settings(causal=False))[0][0]
    assert (causal[-1] - both[-1]).abs().max() > 0.1


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("name", ["single", "equal", "uneven_after"])
@pytest.mark.parametrize("use_cache", [True, False])
def test_prefill_without_attention_mask(name, use_cache, attention):
    check_prefill(name, settings(), attention, masked=False, use_cache=use_cache)


@pytest.mark.parametrize("name", ["single", "ragged"])
def test_prefill_without_cache(name):
    check_prefill(name, settings(), use_cache=False)


@pytest.mark.parametrize("layer", [1, 3, 5])
@pytest.mark.parametrize("name", PROMPTS)
def test_scores_are_the_last_row_of_attention(name, layer):
    check_scores(name, settings(layer))


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("name", PROMPTS)
def test_generate(name, attention):
    check_generate(name, settings(), attention)


@pytest.mark.parametrize("layer", [1, 5])
@pytest.mark.parametrize("name", ["single", "ragged3", "two_videos"])
def test_generate_with_other_merge_layers(name, layer):
    check_generate(name, settings(layer, 0.75))


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("name", ["single", "ragged"])
def test_generate_not_causal(name, attention):
    check_generate(name, settings(causal=False), attention)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_generate_without_attention_mask(attention):
    check_generate("uneven_after", settings(), attention, masked=False)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("name", ["single", "ragged", "uneven_after", "one_text_only"])
def test_second_turn_on_a_filled_cache(name, attention):
    check_second_turn(name, settings(), attention)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("name", ["equal", "ragged"])
def test_second_turn_with_padding_of_its_own(name, attention):
    check_second_turn(name, settings(), attention, ragged=True)


def test_without_cache_every_step_decides_anew():
    """Without a cache each forward ranks by its own last token, so step two equals a longer prompt's prefill."""
    model, prompt, config = tiny_model(), make_prompt("single"), settings()
    options = {"max_new_tokens": 3, "do_sample": False, "pad_token_id": 0, "use_cache": False}
    with merging_stage(config).applied(model.model):
        tokens = model.generate(**prompt.arguments(), **options)[0]
        longer = torch.cat([prompt.embeds, model.model.embed_tokens(tokens[None, :2])], dim=1)
        logits = model(inputs_embeds=longer, video_spans=prompt.spans).logits
    assert logits[0, -1].argmax() == tokens[2]


def decode(model, tokens, mask, cache):
    positions = (mask.cumsum(1) - 1)[:, -1:]
    return model(input_ids=tokens, attention_mask=mask, position_ids=positions, past_key_values=cache).logits[:, -1]


def test_interleaved_sequences_do_not_share_state():
    """Two generations take turns on one object; each has its own prompt, batch and padding."""
    model, config = tiny_model(), settings()
    names, states = ["ragged", "ragged3"], []
    with merging_stage(config).applied(model.model):
        for name in names:
            prompt, cache = make_prompt(name), DynamicCache(config=model.config)
            positions = (prompt.mask.cumsum(1) - 1).clamp(min=0)
            logits = model(**prompt.arguments(), past_key_values=cache, position_ids=positions).logits[:, -1]
            states.append({"mask": prompt.mask, "cache": cache, "logits": [logits], "tokens": []})
        for _ in range(4):
            for state in states:
                token = state["logits"][-1].argmax(-1, keepdim=True)
                state["mask"] = torch.cat([state["mask"], torch.ones_like(token)], dim=1)
                state["tokens"].append(token)
                state["logits"].append(decode(model, token, state["mask"], state["cache"]))
    for name, state in zip(names, states, strict=True):
        tokens = torch.cat([*state["tokens"], state["tokens"][0]], dim=1)
        for row, (_, decisions) in enumerate(expected(name, config)):
            wanted = forced_logits(config, make_prompt(name).rows[row], decisions, tokens[row])
            assert_close(torch.stack(state["logits"], dim=1)[row], wanted, f"{name}, row {row}")


def test_generates_in_a_row():
    check_generate("ragged", settings())
    check_generate("single", settings())


@pytest.mark.parametrize("name", ["ragged", "ragged3"])
def test_beams_in_a_batch_equal_beams_alone(name):
    model, prompt = tiny_model(), make_prompt(name)
    options = {"max_new_tokens": 6, "num_beams": 3, "do_sample": False, "pad_token_id": 0}
    with merging_stage(settings()).applied(model.model):
        together = model.generate(**prompt.arguments(), **options)
        for row, (states, spans) in enumerate(prompt.rows):
            spans = torch.tensor(spans)[None]
            alone = model.generate(inputs_embeds=states[None], video_spans=spans, **options)
            assert together[row].tolist() == alone[0].tolist()


@pytest.mark.parametrize("name", ["single", "ragged"])
def test_cropping_generated_tokens_is_fine(name):
    """Assisted decoding takes tokens back from every layer; going on must equal not having had them."""
    model, prompt, cache = tiny_model(), make_prompt(name), DynamicCache(config=tiny_model().config)
    token = torch.full((len(prompt.rows), 1), 7)
    masks = [torch.nn.functional.pad(prompt.mask, (0, extra), value=1) for extra in range(3)]
    with merging_stage(settings()).applied(model.model):
        positions = (prompt.mask.cumsum(1) - 1).clamp(min=0)
        model(**prompt.arguments(), past_key_values=cache, position_ids=positions)
        first = decode(model, token, masks[1], cache)
        decode(model, token + 5, masks[2], cache)
        cache.crop(-2)
        assert torch.equal(decode(model, token, masks[1], cache), first)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_stays_finite(attention, dtype):
    model, prompt = tiny_model(attention, dtype), make_prompt("ragged3")
    options = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, "output_logits": True}
    with merging_stage(settings()).applied(model.model) as merging:
        out = model.generate(**prompt.arguments(dtype=dtype), **options, return_dict_in_generate=True)
    assert torch.isfinite(torch.stack(out.logits)).all()
    assert merging.last.scores.dtype == torch.float32
    assert all(token < VOCAB for token in out.sequences.flatten().tolist())


def test_every_video_has_its_own_budget():
    """Two videos with an image between: the image and the text stay, each video is halved."""
    model, prompt, merging = tiny_model(), make_prompt("two_videos"), merging_stage(settings())
    with merging.applied(model.model):
        model(**prompt.arguments())
    record, padding = merging.last, prompt.padding
    assert record.tokens_before == ((14, 9), (8,))
    assert record.tokens_after == ((7, 4), (4,))
    kept = set((record.cpu_kept[0][record.cpu_kept[0] >= 0] - padding[0]).tolist())
    assert set(range(17, 23)) <= kept
    assert len(kept & set(range(3, 17))) == 7
    assert len(kept & set(range(23, 32))) == 4
    assert record.spans[1] == ((2 + padding[1], 10 + padding[1]),)


def test_align_follows_the_kept_tokens():
    model, prompt, merging = tiny_model(), make_prompt("ragged"), merging_stage(settings())
    with merging.applied(model.model):
        logits = model(**prompt.arguments()).logits
    labels = torch.arange(prompt.mask.numel()).reshape(prompt.mask.shape)
    aligned = merging.align(labels)
    assert aligned.shape == logits.shape[:2]
    for row, kept in enumerate(merging.last.cpu_kept.tolist()):
        wanted = [-100 if position < 0 else labels[row, position].item() for position in kept]
        assert aligned[row].tolist() == wanted
    with pytest.raises(ValueError, match="labels of shape"):
        merging.align(labels[:, 1:])


def test_hidden_states_show_the_lengths():
    model, prompt = tiny_model(), make_prompt("single")
    with merging_stage(settings()).applied(model.model):
        out = model(**prompt.arguments(), output_hidden_states=True)
    # transformers records the input of each layer as its argument or its output, depending on the release
    assert [state.shape[1] for state in out.hidden_states[:4]] == [32, 32, 32, 32]
    assert [state.shape[1] for state in out.hidden_states[4:]] == [22, 22, 22]
