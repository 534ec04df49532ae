"""Each plausible mistake in inner merging, made on purpose, must be noticed by a check of ``test_inner.py``."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from transformers.masking_utils import create_causal_mask

from holitom.hooks.call_names import causal_mask
from holitom.hooks.decoder import decoder_layers, rules, staged, stages
from holitom.hooks.decoder.decoder_state import ForwardCall
from holitom.hooks.decoder.staged import StagedCompression
from holitom.methods.holitom import inner
from tests.holitom.methods.holitom import test_inner
from tests.references.inner_checks import check_generate, check_prefill, check_scores, check_second_turn, settings

FAILURES = (AssertionError, RuntimeError, IndexError, ValueError)
MUTATIONS: dict[str, Callable] = {}


def mutation(function: Callable) -> Callable:
    MUTATIONS[function.__name__] = function
    return function


def wrap(patch, owner, name: str, change: Callable) -> None:
    """Replace ``owner.name`` by ``change(original)``."""
    patch.setattr(owner, name, change(getattr(owner, name)))


@mutation
def later_layers_keep_the_long_mask(patch):
    patch.setattr(StagedCompression, "_enter_later_layer", lambda *_: None)


@mutation
def nothing_is_done_in_decode_steps(patch):
    patch.setattr(StagedCompression, "_continued", lambda *_: None)


@mutation
def short_mask_is_not_extended(patch):
    patch.setattr(ForwardCall, "real_tokens", lambda call, *_: call.state.stages[0].real_tokens)


@mutation
def padding_is_ignored_after_the_merge(patch):
    patch.setattr(ForwardCall, "real_tokens", lambda *_: None)


@mutation
def padding_of_a_later_turn_is_ignored(patch):
    def change(original):
        return lambda call, *others: original(replace(call, padding_mask=None), *others)

    wrap(patch, ForwardCall, "real_tokens", change)


@mutation
def mask_is_sized_by_layer_zero(patch):
    patch.setattr(stages, "causal_mask", lambda cache, layer_idx, **others: causal_mask(cache, **others))


@mutation
def gappy_positions_reach_the_mask(patch):
    kept, original = [], stages.advance

    def advance(call, *others):
        original(call, *others)
        kept.append(call.kept)

    def mask(config, stage, hidden, real_tokens, cache):
        return create_causal_mask(config, hidden, real_tokens, cache, position_ids=kept[-1], layer_idx=stage.layer)

    patch.setattr(stages, "advance", advance)
    patch.setattr(staged, "short_mask", mask)


@mutation
def gappy_positions_reach_the_layers(patch):
    def change(original):
        def enter(merging, layer, args, kwargs):
            args, kwargs = original(merging, layer, args, kwargs)
            return args, {**kwargs, "position_ids": merging.last.kept}

        return enter

    wrap(patch, StagedCompression, "_enter_later_layer", change)


@mutation
def positions_are_renumbered(patch):
    patch.setattr(stages, "rotary_of", lambda kept, parts: tuple(part[:, : kept.shape[1]] for part in parts))


@mutation
def padding_takes_part_in_the_scores(patch):
    wrap(patch, decoder_layers, "last_query_attention", lambda original: lambda *args: original(*args[:3], None))


@mutation
def scores_ask_the_first_token(patch):
    wrap(patch, rules, "score_tokens", lambda original: lambda a, hidden, *rest: original(a, hidden.flip(1), *rest))


@mutation
def scores_ignore_rotary_positions(patch):
    def change(original):
        def score(attention, hidden, parts, mask):
            return original(attention, hidden, (torch.ones_like(parts[0]), torch.zeros_like(parts[1])), mask)

        return score

    wrap(patch, rules, "score_tokens", change)


@mutation
def all_videos_share_one_budget(patch):
    def change(original):
        def merge(hidden, scores, spans, *others):
            joined = [((row[0][0], row[-1][1]),) if row else () for row in spans]
            return original(hidden, scores, joined, *others)

        return merge

    wrap(patch, inner, "merge_batch", change)


@mutation
def merge_rule_is_ignored(patch):
    wrap(patch, inner, "merge_batch", lambda original: lambda *args: original(*args[:5], "sequential"))


@mutation
def causal_switch_is_ignored(patch):
    patch.setattr(inner, "both_ways_mask", lambda *args: create_causal_mask(*args[:3], past_key_values=None))


@mutation
def text_only_rows_see_both_ways(patch):
    wrap(patch, inner, "both_ways_mask", lambda original: lambda *args: original(*args[:3], [True]))


class OneForAll(dict):
    """A state store that does not look at the cache."""

    def __setitem__(self, cache, state):
        super().__setitem__("the", state)

    def get(self, cache):
        return super().get("the")

    def pop(self, cache, default):
        return super().pop("the", default)


@mutation
def sequences_share_their_state(patch):
    patch.setattr(staged, "WeakKeyDictionary", OneForAll)


CASES = [
    (later_layers_keep_the_long_mask, lambda: check_prefill("single", settings())),
    (nothing_is_done_in_decode_steps, lambda: check_generate("ragged", settings())),
    (nothing_is_done_in_decode_steps, lambda: check_generate("single", settings(), "eager")),
    (short_mask_is_not_extended, lambda: check_generate("ragged", settings())),
    (padding_is_ignored_after_the_merge, lambda: check_prefill("ragged", settings())),
    (padding_is_ignored_after_the_merge, lambda: check_prefill("uneven_after", settings(), "stub")),
    (padding_of_a_later_turn_is_ignored, lambda: check_second_turn("equal", settings(), ragged=True)),
    (mask_is_sized_by_layer_zero, lambda: check_prefill("single", settings())),
    (gappy_positions_reach_the_mask, lambda: check_prefill("single", settings(), masked=False, use_cache=False)),
    (gappy_positions_reach_the_layers, lambda: check_prefill("single", settings(), "stub")),
    (positions_are_renumbered, lambda: check_prefill("single", settings())),
    (padding_takes_part_in_the_scores, lambda: check_scores("ragged", settings())),
    (scores_ask_the_first_token, lambda: check_scores("single", settings())),
    (scores_ignore_rotary_positions, lambda: check_scores("single", settings())),
    (all_videos_share_one_budget, lambda: check_prefill("two_videos", settings())),
    (merge_rule_is_ignored, lambda: check_prefill("single", settings(ratio=0.75, merge_rule="mean"))),
    (causal_switch_is_ignored, lambda: check_prefill("single", settings(causal=False), "eager")),
    (text_only_rows_see_both_ways, lambda: check_prefill("one_text_only", settings(causal=False))),
    (sequences_share_their_state, test_inner.test_interleaved_sequences_do_not_share_state),
]


@pytest.mark.parametrize(("mutate", "check"), CASES, ids=[f"{case[0].__name__}-{i}" for i, case in enumerate(CASES)])
def test_mutation_is_caught(monkeypatch, mutate, check):
    check()
    mutate(monkeypatch)
    with pytest.raises(FAILURES):
        check()


def test_every_mutation_has_a_case():
    assert {case[0].__name__ for case in CASES} == set(MUTATIONS)


def test_batch_one_under_sdpa_cannot_see_a_forgotten_decode_step(monkeypatch):
    """Why the cases above use padding or eager attention: one query without padding needs no mask at all."""
    nothing_is_done_in_decode_steps(monkeypatch)
    check_generate("single", settings())
