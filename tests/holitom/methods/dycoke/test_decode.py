"""DyCoke's pruning while decoding equals one pass with a mask per token, and touches nothing else."""

import copy
import gc
from collections.abc import Callable

import pytest
import torch
from torch import nn
from transformers import DynamicCache

from holitom.methods.dycoke import decode as dycoke_decode
from holitom.methods.dycoke.decode import DycokeDecodePruning, attended_entries
from llava.errors import InputError
from tests.references.dycoke_decode import NaiveDycoke
from tests.references.inner_checks import PROMPTS, assert_close, make_prompt, tiny_model

ATTENTIONS = ["sdpa", "eager", "stub"]
STEPS = 7


def plain(prompt, **others):
    return {**{name: value for name, value in prompt.arguments().items() if name != "video_spans"}, **others}


def generate(model, arguments, **others):
    options = {"max_new_tokens": STEPS, "do_sample": False, "pad_token_id": 0, "output_logits": True, **others}
    return model.generate(**arguments, **options, return_dict_in_generate=True)


def check_generate(name: str, threshold: float, attention: str = "sdpa", layer: int = 3, masked: bool = True) -> None:
    """Logits of greedy decoding, what the last step attended to, and full caches."""
    model, prompt = tiny_model(attention), make_prompt(name)
    with DycokeDecodePruning(layer, 0.7, threshold).applied(model.model) as inner:
        out = generate(model, prompt.arguments(masked))
    logits = torch.stack(out.logits, dim=1)
    for row, (states, spans) in enumerate(prompt.rows):
        answer = tiny_model().model.embed_tokens(out.sequences[row])
        wanted, unseen = NaiveDycoke(tiny_model(), layer, 30, threshold).run_answer(states, spans, answer)
        assert_close(logits[row], wanted, f"row {row}")
        if inner.attended is not None:
            padding = prompt.padding[row]
            assert not inner.attended[row, :padding].any()
            assert inner.attended[row, padding:].tolist() == (~unseen[STEPS - 2, :-1]).tolist()
    lengths = {out.past_key_values.get_seq_length(each) for each in range(6)}
    assert lengths == {prompt.embeds.shape[1] + STEPS - 1}, "nothing is deleted"


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("name", PROMPTS)
@pytest.mark.parametrize("threshold", [0.9, 0.3])
def test_generate(name, attention, threshold):
    check_generate(name, threshold, attention)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("layer", [1, 2, 5])
def test_other_layers_and_no_mask(layer, attention):
    check_generate("two_videos", 0.9, attention, layer)
    check_generate("uneven_after", 0.9, attention, layer, masked=False)


def test_both_outcomes_of_the_threshold_occur():
    """Otherwise the tests above could pass with the comparison left out."""
    states, spans = make_prompt("single").rows[0]
    answer = tiny_model().model.embed_tokens(torch.arange(STEPS))
    runs = [NaiveDycoke(tiny_model(), 3, 30, each).run_answer(states, spans, answer) for each in (1.0, 0.3, -1.0)]
    pruned = [int(unseen.any(dim=1).sum()) for _, unseen in runs]
    assert pruned[0] == STEPS > pruned[1] > pruned[2] == 1
    assert (runs[0][0] - runs[1][0]).abs().max() > 0.05


def test_worked_example():
    """Ten entries, 70 % left out: the three best; once the attention stays, all; ties to the earlier entry."""
    row = torch.tensor([[0.5, *[0.01, 0.02, 0.2, 0.03, 0.1, 0.04, 0.05, 0.1, 0.1, 0.0], 0.3]])
    first = attended_entries(row, None, (((1, 11),),), 0.7, 0.9)
    assert first[0].nonzero().flatten().tolist() == [0, 3, 5, 8, 11]
    assert attended_entries(row, 3 * row[:, :11], (((1, 11),),), 0.7, 0.9).all()
    other = torch.zeros(1, 11)
    other[0, 6] = 1
    assert torch.equal(attended_entries(row, other, (((1, 11),),), 0.7, 0.9), first)
    assert attended_entries(row, None, (((1, 3),),), 0.9, 0.9)[0].nonzero().flatten().tolist() == [0, 2, *range(3, 12)]


def test_first_token_and_prefill_are_the_plain_model():
    model, prompt = tiny_model(), make_prompt("ragged")
    before, labels = generate(model, plain(prompt)), torch.ones(2, 32)
    with DycokeDecodePruning().applied(model.model) as inner:
        inside = generate(model, prompt.arguments())
        none = generate(model, plain(prompt, video_spans=prompt.spans[:, :0]))
        without_cache = model(**prompt.arguments(), use_cache=False).logits
        assert inner.align(labels) is labels
        assert inner.last.tokens_after == inner.last.tokens_before
    after = generate(model, plain(prompt))
    assert torch.equal(inside.logits[0], before.logits[0])
    assert not torch.equal(inside.logits[1], before.logits[1])
    assert torch.equal(torch.stack(none.logits), torch.stack(before.logits))
    assert torch.equal(torch.stack(after.logits), torch.stack(before.logits))
    assert torch.equal(without_cache, model(**plain(prompt), use_cache=False).logits)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_everything_kept_is_bitwise_the_plain_model():
    model, prompt = tiny_model(), make_prompt("ragged")
    before = generate(model, plain(prompt))
    with DycokeDecodePruning(prune_ratio=0.0).applied(model.model):
        inside = generate(model, prompt.arguments())
    assert torch.equal(torch.stack(inside.logits), torch.stack(before.logits))


def test_a_later_turn_sees_everything():
    model, prompt = tiny_model(), make_prompt("ragged")
    tokens, logits = torch.arange(6).reshape(2, 3), []
    mask = nn.functional.pad(prompt.mask, (0, 3), value=1)
    for applied in (False, True):
        inner, cache = DycokeDecodePruning(), DynamicCache(config=model.config)
        if applied:
            inner.apply(model.model)
        model(**(prompt.arguments() if applied else plain(prompt)), past_key_values=cache)
        logits.append(model(input_ids=tokens, attention_mask=mask, past_key_values=cache).logits)
        inner.remove()
    assert torch.equal(*logits)


def test_sequences_take_turns_and_caches_must_be_known():
    model, prompt, caches = tiny_model(), make_prompt("single"), []
    token = torch.ones(1, 1, dtype=torch.long)
    with DycokeDecodePruning(similarity_threshold=0.3).applied(model.model) as inner:
        wanted = []
        for _ in range(2):
            caches.append(DynamicCache(config=model.config))
            model(**prompt.arguments(), past_key_values=caches[-1])
        for step in range(3):
            wanted.append([model(input_ids=token + step, past_key_values=cache).logits for cache in caches])
        assert all(torch.equal(*pair) for pair in wanted)
        with pytest.raises(RuntimeError, match="is a copy"):
            model(input_ids=token, past_key_values=copy.deepcopy(caches[0]))
        with pytest.raises(InputError, match="columns"):
            model(input_ids=token, past_key_values=caches[0], attention_mask=prompt.mask)
        caches[0].crop(-10)
        with pytest.raises(RuntimeError, match="no longer holds"):
            model(input_ids=token, past_key_values=caches[0])
        with pytest.raises(RuntimeError, match="without video_spans"):
            model(**plain(prompt))
        assert len(inner._sequences) == 2
        caches.clear()
        gc.collect()
        assert len(inner._sequences) == 0


@pytest.mark.parametrize(
    "settings",
    [{"layer": 0}, {"layer": 1.5}, {"prune_ratio": 1}, {"prune_ratio": -0.1}, {"similarity_threshold": 1.1}],
)
def test_wrong_settings(settings):
    with pytest.raises(InputError, match=f"{next(iter(settings))} = "):
        DycokeDecodePruning(**settings)


def test_wrong_decoders():
    model = tiny_model()
    with pytest.raises(InputError, match=r"layer = 6.*\[1, 5\]"):
        DycokeDecodePruning(6).apply(model.model)
    with DycokeDecodePruning().applied(model.model) as inner, pytest.raises(RuntimeError, match="applied already"):
        inner.apply(model.model)


def lowest(original):
    return lambda now, *rest: original(-now, *rest)


def first_is_compared(original):
    return lambda now, before, *rest: original(now, now if before is None else before, *rest)


def never_compared(original):
    return lambda now, before, *rest: original(now, None, *rest)


def second_video_is_forgotten(original):
    return lambda now, before, spans, *rest: original(now, before, tuple(row[:1] for row in spans), *rest)


def padding_is_seen(original):
    return lambda *args: original(*args[:4], None)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("attended_entries", lowest),
        ("attended_entries", first_is_compared),
        ("attended_entries", never_compared),
        ("attended_entries", second_video_is_forgotten),
        ("ask_keys", padding_is_seen),
        ("truncated_length", lambda original: lambda length, ratio: original(length, ratio) + 1),
    ],
)
def test_mutations_are_caught(monkeypatch, name: str, change: Callable):
    monkeypatch.setattr(dycoke_decode, name, change(getattr(dycoke_decode, name)))
    with pytest.raises((AssertionError, RuntimeError)):
        check_generate("two_videos", 0.3)
