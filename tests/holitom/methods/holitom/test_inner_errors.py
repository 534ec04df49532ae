"""Inner merging fails loudly, with a remedy, where it cannot work."""

import copy

import pytest
import torch
from torch import nn
from transformers import DynamicCache, Qwen2Config, Qwen2Model, StaticCache

from holitom.methods.holitom.inner import merging_stage
from llava.errors import InputError
from tests.references.inner_checks import make_prompt, settings, tiny_model


@pytest.fixture
def model():
    return tiny_model()


def plain(prompt):
    return {name: value for name, value in prompt.arguments().items() if name != "video_spans"}


def test_missing_spans_fail_loudly(model):
    prompt = make_prompt("single")
    with merging_stage(settings()).applied(model.model):
        with pytest.raises(RuntimeError, match="without video_spans"):
            model(**plain(prompt))
        with pytest.raises(RuntimeError, match="without video_spans"):
            model.generate(**plain(prompt), max_new_tokens=2, pad_token_id=0)


@pytest.mark.parametrize("layer", [6, 18])
def test_merge_layer_beyond_the_decoder(model, layer):
    with pytest.raises(InputError, match=rf"merge_layer = {layer}.*\[1, 5\]"):
        merging_stage(settings(layer)).apply(model.model)


def test_apply_to_the_wrong_module_or_twice(model):
    with pytest.raises(InputError, match="SpanQwen2"):
        merging_stage(settings()).apply(model)
    merging = merging_stage(settings())
    with pytest.raises(RuntimeError, match="no prefill"):
        merging.align(torch.zeros(1, 1))
    with merging.applied(model.model), pytest.raises(RuntimeError, match="applied already"):
        merging.apply(model.model)


def test_sliding_window_layers_are_refused():
    config = Qwen2Config(
        vocab_size=9, hidden_size=8, intermediate_size=8, num_hidden_layers=4, num_attention_heads=2,
        num_key_value_heads=1, use_sliding_window=True, sliding_window=4, max_window_layers=2,
    )  # fmt: skip
    with pytest.raises(NotImplementedError, match="full attention"):
        merging_stage(settings(1)).apply(Qwen2Model(config))


def call_with(model, **changes):
    arguments = make_prompt("ragged").arguments() | changes
    with merging_stage(settings()).applied(model.model):
        return model(**arguments)


def test_unsupported_masks_and_caches(model):
    mask = make_prompt("ragged").mask
    with pytest.raises(NotImplementedError, match="2D"):
        call_with(model, attention_mask=torch.ones(2, 1, 32, 32, dtype=torch.bool))
    with pytest.raises(NotImplementedError, match="StaticCache"):
        call_with(model, past_key_values=StaticCache(config=model.config, max_cache_len=64))
    with pytest.raises(NotImplementedError, match="left padding"):
        call_with(model, attention_mask=mask.flip(1))
    with pytest.raises(NotImplementedError, match="left padding"):
        call_with(model, attention_mask=torch.zeros_like(mask))
    with pytest.raises(NotImplementedError, match="columns"):
        call_with(model, attention_mask=nn.functional.pad(mask, (1, 0), value=1))


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([[[5, 40]], [[20, 29]]], "out of range"),
        ([[[5, 25], [24, 26]], [[20, 29], [0, 0]]], "out of range"),
        ([[[-3, 5]], [[20, 29]]], "out of range"),
        ([[[5, 25]], [[3, 29]]], "padding"),
        ([[[5, 25]]], "rows"),
    ],
)
def test_spans_out_of_range(model, spans, message):
    with pytest.raises(InputError, match=message):
        call_with(model, video_spans=torch.tensor(spans))


def test_caches_that_no_longer_fit_their_prefill(model):
    prompt, token = make_prompt("ragged"), torch.ones(2, 1, dtype=torch.long)
    mask = nn.functional.pad(prompt.mask, (0, 1), value=1)

    def go_on(cache, rows=2, **others):
        others = {"attention_mask": mask[:rows], **others}
        return model(input_ids=token[:rows], past_key_values=cache, **others)

    with merging_stage(settings()).applied(model.model):
        cache = DynamicCache(config=model.config)
        model(**prompt.arguments(), past_key_values=cache)
        with pytest.raises(RuntimeError, match="is a copy"):
            go_on(copy.deepcopy(cache))
        with pytest.raises(InputError, match="32 \\+ 1 tokens"):
            go_on(cache, attention_mask=mask[:, :20])
        with pytest.raises(NotImplementedError, match="2D"):
            go_on(cache, attention_mask=torch.ones(2, 1, 1, 33, dtype=torch.bool))
        cache = DynamicCache(config=model.config)
        model(**prompt.arguments(), past_key_values=cache)
        cache.crop(-1)
        with pytest.raises(RuntimeError, match="cropped into the prompt"):
            go_on(cache, attention_mask=prompt.mask)
        cache = DynamicCache(config=model.config)
        model(**prompt.arguments(), past_key_values=cache)
        cache.batch_select_indices(torch.tensor([0]))
        with pytest.raises(RuntimeError, match="continued with 1"):
            go_on(cache, rows=1)


def test_a_video_in_a_later_turn_is_refused(model):
    prompt, cache = make_prompt("single"), DynamicCache(config=model.config)
    with merging_stage(settings()).applied(model.model):
        model(**prompt.arguments(), past_key_values=cache)
        with pytest.raises(NotImplementedError, match="later turn"):
            model.model(inputs_embeds=prompt.embeds, video_spans=prompt.spans, past_key_values=cache)
