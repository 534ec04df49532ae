"""Inner merging comes off without a trace, keeps its state in the right place and reads nothing back per step."""

import copy
import gc
from collections import Counter

import pytest
import torch
from accelerate import cpu_offload
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DynamicCache

from holitom.methods.holitom.inner import merging_stage
from tests.references.inner_checks import (
    LAYERS,
    assert_close,
    check_prefill,
    expected,
    make_prompt,
    settings,
    tiny_model,
)
from tests.tiny_models import hook_count


@pytest.fixture
def model():
    model = tiny_model()
    before = hook_count(model)
    yield model
    assert hook_count(model) == before, "a test left hooks behind"


def plain(prompt, **others):
    return {**{name: value for name, value in prompt.arguments().items() if name != "video_spans"}, **others}


def test_nothing_is_left_after_remove(model):
    prompt, before = make_prompt("ragged"), tiny_model()(**plain(make_prompt("ragged"))).logits
    hooks = hook_count(model)  # transformers leaves hooks of its own once hidden states were asked for
    merging = merging_stage(settings()).apply(model.model)
    assert hook_count(model) >= hooks + LAYERS - 1
    assert model(**prompt.arguments()).logits.shape != before.shape
    merging.remove()
    assert hook_count(model) == hooks
    assert torch.equal(model(**plain(prompt)).logits, before)
    merging.remove()


def test_hooks_are_gone_after_an_exception(model, monkeypatch):
    prompt, before = make_prompt("single"), tiny_model()(**plain(make_prompt("single"))).logits

    def fail(*_, **__):
        raise ArithmeticError("broken layer")

    merging, hooks = merging_stage(settings()), hook_count(model)
    monkeypatch.setattr(model.model.layers[4].mlp, "forward", fail)
    with pytest.raises(ArithmeticError), merging.applied(model.model):
        model(**prompt.arguments())
    monkeypatch.undo()
    assert hook_count(model) == hooks
    assert torch.equal(model(**plain(prompt)).logits, before)


def test_a_failed_forward_leaves_no_call_behind(model, monkeypatch):
    """The next call must not find the failed one's masks; a cache that was left half filled is refused."""
    prompt, cache = make_prompt("single"), DynamicCache(config=model.config)
    merging = merging_stage(settings())
    with merging.applied(model.model):
        with monkeypatch.context() as patch:
            patch.setattr(model.model.layers[2].mlp, "forward", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                model(**prompt.arguments(), past_key_values=cache)
        assert merging._call is None
        with pytest.raises(RuntimeError, match="broken off"):
            model(**prompt.arguments(), past_key_values=cache)
        logits = model(**prompt.arguments()).logits
    assert_close(logits[0], expected("single", settings())[0][0], "after a failure")


@pytest.mark.parametrize("name", ["single", "ragged"])
def test_ratio_zero_is_bitwise_the_plain_model(model, name):
    prompt = make_prompt(name)
    before = model(**plain(prompt)).logits
    with merging_stage(settings(ratio=0.0)).applied(model.model) as merging:
        assert torch.equal(model(**prompt.arguments()).logits, before)
        assert torch.equal(model(**plain(prompt)).logits, before)
    assert torch.equal(merging.last.cpu_kept >= 0, prompt.mask.bool())
    assert merging.last.tokens_after == merging.last.tokens_before


def test_text_only_is_bitwise_the_plain_model(model):
    prompt, options = make_prompt("ragged"), {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    options |= {"output_logits": True, "return_dict_in_generate": True}
    before = model.generate(**plain(prompt), **options)
    no_spans = torch.zeros(2, 0, 2, dtype=torch.long)
    with merging_stage(settings(causal=False)).applied(model.model) as merging:
        static = model.generate(**plain(prompt, video_spans=no_spans), **options, cache_implementation="static")
        after = model.generate(**plain(prompt, video_spans=no_spans), **options)
    assert torch.equal(torch.stack(after.logits), torch.stack(before.logits))
    assert torch.equal(static.sequences, before.sequences)
    labels = torch.ones_like(prompt.mask)
    assert torch.equal(merging.align(labels), labels.masked_fill(prompt.mask == 0, -100))


def test_state_lives_as_long_as_its_cache(model):
    merging, cache = merging_stage(settings()), DynamicCache(config=model.config)
    with merging.applied(model.model):
        model(**make_prompt("single").arguments(), past_key_values=cache)
        assert len(merging._states) == 1
        del cache
        gc.collect()
        assert len(merging._states) == 0


def test_a_cache_that_is_emptied_starts_anew(model):
    """The state of the first prefill must not outlive its tokens, even if the second has nothing to merge."""
    cache, prompt = DynamicCache(config=model.config), make_prompt("ragged")
    text = {**plain(prompt), "video_spans": prompt.spans[:, :0]}
    token, mask = torch.ones(2, 1, dtype=torch.long), nn.functional.pad(prompt.mask, (0, 1), value=1)
    model(**plain(prompt), past_key_values=cache)
    wanted = model(input_ids=token, attention_mask=mask, past_key_values=cache).logits
    cache.crop(-1000)
    with merging_stage(settings()).applied(model.model):
        model(**prompt.arguments(), past_key_values=cache)
        cache.crop(-1000)
        model(**text, past_key_values=cache)
        assert torch.equal(model(input_ids=token, attention_mask=mask, past_key_values=cache).logits, wanted)


def test_positional_arguments_of_the_decoder(model):
    prompt = make_prompt("ragged")
    with merging_stage(settings()).applied(model.model):
        by_name = model.model(**prompt.arguments()).last_hidden_state
        by_place = model.model(None, prompt.mask, None, None, prompt.embeds, video_spans=prompt.spans)
    assert torch.equal(by_place.last_hidden_state, by_name)


def test_accelerate_offload_changes_nothing(model):
    """accelerate swaps the weights in as each module is called, so the scores must call modules too."""
    prompt, offloaded = make_prompt("ragged"), copy.deepcopy(model)
    cpu_offload(offloaded, execution_device=torch.device("cpu"))
    logits = []
    for each in (model, offloaded):
        with merging_stage(settings()).applied(each.model):
            logits.append(each(**prompt.arguments()).logits)
    assert torch.equal(*logits)


class ReadBacks(TorchDispatchMode):
    """Counts operations that wait for a device to hand a value to Python."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(name in str(func) for name in ("_local_scalar_dense", "nonzero", "equal.default", "masked_select")):
            self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("name", "masked"), [("single", False), ("single", True), ("ragged", True), ("equal", True)])
def test_no_value_is_read_back_beyond_what_transformers_reads(model, monkeypatch, name, masked, causal):
    """On a GPU each such read stalls the step; the only one allowed is the padding of a prefill with a mask.

    Where that finds none, the library is not given the mask to look at again.
    """
    transfers = []
    original = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: transfers.append(self.shape) or original(self))
    prompt = make_prompt(name)
    token, mask = torch.ones(len(prompt.rows), 1, dtype=torch.long), nn.functional.pad(prompt.mask, (0, 1), value=1)

    def read_backs(**arguments):
        cache, counts = DynamicCache(config=model.config), []
        for step in (arguments, {"input_ids": token} | ({"attention_mask": mask} if masked else {})):
            with ReadBacks() as reads:
                model(**step, past_key_values=cache)
            counts.append(sum(reads.counts.values()))
        return counts

    before = read_backs(**{key: value for key, value in prompt.arguments(masked).items() if key != "video_spans"})
    assert not transfers
    with merging_stage(settings(causal=causal)).applied(model.model):
        spared = int(masked and bool(prompt.mask.all()))
        assert read_backs(**prompt.arguments(masked)) == [before[0] - spared, before[1]]
    assert transfers == [prompt.spans.shape] + [torch.Size([2, len(prompt.rows)])] * masked


def test_both_rules_and_settings_reach_the_merge():
    """Guards the plumbing: every field of the settings changes the outcome."""
    base = expected("single", settings())[0][0]
    for config in (settings(merge_rule="mean", ratio=0.75), settings(ratio=0.75), settings(layer=2)):
        other = expected("single", config)[0][0]
        assert other.shape != base.shape or (other - base).abs().max() > 1e-2
        check_prefill("single", config)


@pytest.mark.parametrize("layer", [2, 3, 5])
def test_no_mask_is_made_without_padding(model, layer):
    """SDPA keeps its fast kernels only while the mask is None, also if the caller gives a mask of ones."""
    prompt, cache, masks = make_prompt("single"), DynamicCache(config=model.config), []

    def probe(module, args, kwargs):
        masks.append(kwargs["attention_mask"])

    with merging_stage(settings(causal=False)).applied(model.model):
        handle = model.model.layers[layer].self_attn.register_forward_pre_hook(probe, with_kwargs=True)
        model(**prompt.arguments(), past_key_values=cache)
        mask = nn.functional.pad(prompt.mask, (0, 1), value=1)
        model(input_ids=torch.ones(1, 1, dtype=torch.long), attention_mask=mask, past_key_values=cache)
        handle.remove()
    assert masks == [None, None]
