"""Checks that pruning in stages equals the naive reference, shared by several tests."""

from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor
from transformers import DynamicCache

from holitom.hooks.decoder.staged import StagedCompression
from holitom.methods.fastv import FastvConfig
from holitom.methods.pdrop import PdropConfig
from tests.references.inner_checks import LAYERS, VOCAB, assert_close, make_prompt, tiny_model
from tests.references.staged_decoder import NaiveStage, NaiveStages, Trace

RECIPES = {
    "fastv": (FastvConfig(2, 0.8), ((2, Fraction(1, 5), False),)),
    "fastv_first": (FastvConfig(1, 0.5), ((1, Fraction(1, 2), False),)),
    "fastv_last": (FastvConfig(5, 0.75), ((5, Fraction(1, 4), False),)),
    "pdrop": (
        PdropConfig([1, 3, 4], [0.5, 0.25, 0.125]),
        ((1, Fraction(1, 2), True), (3, Fraction(1, 4), True), (4, Fraction(1, 8), True)),
    ),
    "pdrop_two": (PdropConfig([2, 5], [0.75, 0.4]), ((2, Fraction(3, 4), True), (5, Fraction(2, 5), True))),
    "pdrop_late": (PdropConfig([2, 4], [1.0, 0.3]), ((2, Fraction(1), True), (4, Fraction(3, 10), True))),
}


def engine(recipe: str) -> StagedCompression:
    """The inner stage under test."""
    inner = RECIPES[recipe][0].build().inner
    assert isinstance(inner, StagedCompression)
    return inner


def naive(recipe: str) -> NaiveStages:
    return NaiveStages(tiny_model(), [NaiveStage(*stage) for stage in RECIPES[recipe][1]])


@lru_cache(maxsize=256)
def expected(name: str, recipe: str) -> list[tuple[Tensor, Trace]]:
    """Logits and decisions of every row by the reference."""
    return [naive(recipe).run_stages(states, spans) for states, spans in make_prompt(name).rows]


def check_prefill(name: str, recipe: str, attention: str = "sdpa", masked: bool = True, **call) -> None:
    """Logits of all kept tokens and the record of one prefill."""
    model, prompt, inner = tiny_model(attention), make_prompt(name), engine(recipe)
    with inner.applied(model.model):
        logits = model(**prompt.arguments(masked), **call).logits
    record = inner.last
    assert record is not None
    for row, (wanted, trace) in enumerate(expected(name, recipe)):
        states, padding = prompt.rows[row][0], prompt.padding[row]
        for number, stage in enumerate(record.stages):
            kept = stage.kept[row]
            real = kept[kept >= 0]
            wanted_kept = trace.kept[number] if trace.kept else list(range(len(states)))
            assert (real - padding).tolist() == wanted_kept, f"kept positions of stage {number}"
            assert (kept[: len(kept) - len(real)] == -1).all(), "rows are compacted to the right"
            if trace.kept:
                scores = stage.scores[row, -len(trace.scores[number]) :].double()
                assert (scores - torch.tensor(trace.scores[number])).abs().max() < 1e-5, f"scores of stage {number}"
        last = trace.kept[-1] if trace.kept else list(range(len(states)))
        assert_close(logits[row, logits.shape[1] - len(last) :], wanted, f"row {row}")
        source = [place if place in last else -1 - padding for place in range(len(states))]
        assert (record.cpu_source[row, padding:] - padding).tolist() == source, "source map"


def forced_logits(recipe: str, row: tuple, trace: Trace, tokens: Tensor) -> Tensor:
    """Logits that predict each of ``tokens`` after the row's prompt, by one recomputation of everything."""
    states, spans = row
    embeds = torch.cat([states, tiny_model().model.embed_tokens(tokens)])
    logits, _ = naive(recipe).run_stages(embeds, spans, trace, prompt=len(states))
    return logits[-len(tokens) - 1 : -1]


def check_generate(name: str, recipe: str, attention: str = "sdpa", masked: bool = True, new_tokens: int = 6) -> None:
    """Greedy generation equals teacher forcing with the prompt's decisions; caches shrink stage by stage."""
    model, prompt = tiny_model(attention), make_prompt(name)
    options = {"max_new_tokens": new_tokens, "do_sample": False, "pad_token_id": 0}
    with engine(recipe).applied(model.model) as inner:
        out = model.generate(**prompt.arguments(masked), **options, output_logits=True, return_dict_in_generate=True)
    logits = torch.stack(out.logits, dim=1)
    for row, (_, trace) in enumerate(expected(name, recipe)):
        wanted = forced_logits(recipe, prompt.rows[row], trace, out.sequences[row])
        assert_close(logits[row], wanted, f"row {row}")
        assert out.sequences[row].tolist() == wanted.argmax(-1).tolist(), "greedy tokens"
    starts = [0, *(stage.layer for stage in inner.last.stages), LAYERS]
    seqs = [prompt.embeds.shape[1], *(stage.kept.shape[1] for stage in inner.last.stages)]
    for seq, (begin, end) in zip(seqs, pairwise(starts), strict=True):
        for layer in range(begin, end):
            assert out.past_key_values.get_seq_length(layer) == seq + new_tokens - 1, f"cache of layer {layer}"


def check_second_turn(name: str, recipe: str, attention: str = "sdpa", ragged: bool = False) -> None:
    """A second turn of several tokens on a filled cache passes through; it may bring padding of its own."""
    model, prompt, cache = tiny_model(attention), make_prompt(name), DynamicCache(config=tiny_model().config)
    tokens = torch.arange(5 * len(prompt.rows)).reshape(-1, 5) % VOCAB
    turn_mask = torch.ones_like(tokens)
    if ragged:
        turn_mask[-1, :2] = 0
    mask = torch.cat([prompt.mask, turn_mask], dim=1)
    positions, long = (mask.cumsum(1) - 1).clamp(min=0), prompt.mask.shape[1]
    with engine(recipe).applied(model.model):
        model(**prompt.arguments(), past_key_values=cache, position_ids=positions[:, :long])
        options = {"past_key_values": cache, "position_ids": positions[:, long:]}
        logits = model(input_ids=tokens, attention_mask=mask, **options).logits
    for row, (_, trace) in enumerate(expected(name, recipe)):
        real = turn_mask[row].bool()
        turn = torch.cat([tokens[row][real], tokens.new_zeros(1)])
        assert_close(logits[row][real], forced_logits(recipe, prompt.rows[row], trace, turn)[1:], f"row {row}")
