"""Each plausible mistake in pruning by stages, made on purpose, must be noticed by a check of ``test_staged.py``."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from holitom.hooks.decoder import pruning, rules, staged, stages
from holitom.hooks.decoder.decoder_state import ForwardCall
from holitom.hooks.decoder.staged import StagedCompression
from tests.holitom.hooks.decoder import test_staged
from tests.references.staged_checks import check_generate, check_prefill, check_second_turn

FAILURES = (AssertionError, RuntimeError, IndexError, ValueError)


def wrap(patch, owner, name: str, change: Callable) -> None:
    """Replace ``owner.name`` by ``change(original)``."""
    patch.setattr(owner, name, change(getattr(owner, name)))


def change_stage(**changes) -> Callable:
    def mutate(patch):
        def change(original):
            return lambda self, stages, *rules: original(self, [replace(stage, **changes) for stage in stages], *rules)

        wrap(patch, StagedCompression, "__init__", change)

    return mutate


def decoded_positions_are_not_shifted(patch):
    wrap(patch, stages, "StageState", lambda original: lambda seq, real, shift: original(seq, real, None))


def shifts_of_stages_are_those_of_the_first(patch):
    def change(original):
        def advance(call, *others):
            original(call, *others)
            call.state.stages[-1] = replace(call.state.stages[-1], shift=call.state.stages[0].shift)

        return advance

    wrap(patch, stages, "advance", change)


def rows_share_their_shift(patch):
    def change(original):
        return lambda seq, real, shift: original(seq, real, None if shift is None else shift[:1].expand(len(shift), 1))

    wrap(patch, stages, "StageState", change)


def ratios_are_of_the_span_before_the_stage(patch):
    def counts(stages, spans):
        result, current = [], staged.count_tokens(spans)
        for stage in stages:
            current = tuple(tuple(stage.kept(length) for length in row) for row in current)
            result.append(current)
        return result

    patch.setattr(rules, "stage_counts", counts)


def spans_are_not_moved(patch):
    def same_start(spans, counts, *_):
        return tuple(
            tuple((start, start + count) for (start, _), count in zip(*row, strict=True))
            for row in zip(spans, counts, strict=True)
        )

    patch.setattr(stages, "shortened_spans", same_start)


def later_stages_forget_the_padding(patch):
    patch.setattr(ForwardCall, "current_padding", None)


def kept_positions_count_from_the_stage_before(patch):
    patch.setattr(stages, "_in_prompt", lambda call, reduced: (reduced.kept, reduced.source))


def lowest_scores_are_kept(patch):
    wrap(patch, pruning, "prune_batch", lambda original: lambda hidden, scores, *rest: original(hidden, -scores, *rest))


def own_layer_is_asked_without_its_norm(patch):
    def change(original):
        def shorten(call, rules, stage, decoder, layer, hidden, kwargs):
            class Bare:
                self_attn, input_layernorm = layer.self_attn, torch.nn.Identity()

            return original(call, rules, stage, decoder, Bare, hidden, kwargs)

        return shorten

    wrap(patch, staged, "shorten", change)


def renumbering_starts_at_the_padding(patch):
    """Rotary embeddings are relative, so only the numbers themselves show it."""

    def change(original):
        return lambda call, reduced, positions: original(
            call, replace(reduced, first=(0,) * len(call.first)), positions
        )

    wrap(patch, stages, "_renumbered", change)


def masks_have_the_first_stages_size(patch):
    def change(original):
        return lambda config, stage, *others: original(config, replace(stage, layer=1), *others)

    wrap(patch, staged, "short_mask", change)


CASES = [
    (change_stage(renumbers=False), lambda: check_prefill("single", "pdrop")),
    (change_stage(renumbers=True), lambda: check_prefill("single", "fastv")),
    (change_stage(scored_by="layer_before"), lambda: check_prefill("single", "pdrop_two")),
    (change_stage(scored_by="own_layer"), lambda: check_prefill("single", "fastv")),
    (decoded_positions_are_not_shifted, lambda: check_generate("single", "pdrop")),
    (shifts_of_stages_are_those_of_the_first, lambda: check_generate("single", "pdrop")),
    (rows_share_their_shift, lambda: check_generate("ragged", "pdrop")),
    (ratios_are_of_the_span_before_the_stage, lambda: check_prefill("single", "pdrop")),
    (spans_are_not_moved, lambda: check_prefill("two_videos", "pdrop")),
    (later_stages_forget_the_padding, lambda: check_prefill("ragged", "pdrop")),
    (kept_positions_count_from_the_stage_before, lambda: check_prefill("single", "pdrop")),
    (lowest_scores_are_kept, lambda: check_prefill("single", "fastv")),
    (own_layer_is_asked_without_its_norm, lambda: check_prefill("single", "pdrop")),
    (renumbering_starts_at_the_padding, test_staged.test_renumbered_positions),
    (masks_have_the_first_stages_size, lambda: check_second_turn("ragged", "pdrop", ragged=True)),
]


@pytest.mark.parametrize(("mutate", "check"), CASES, ids=[f"{case[0].__name__}-{i}" for i, case in enumerate(CASES)])
def test_mutation_is_caught(monkeypatch, mutate, check):
    check()
    mutate(monkeypatch)
    with pytest.raises(FAILURES):
        check()
