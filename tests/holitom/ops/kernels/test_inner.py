"""The merge inside the language model: kernels against the torch version and a loop in float64."""

import pytest
import torch

from holitom.methods.holitom.batch_merging import merge_batch
from holitom.methods.holitom.inner_merging import merge_into_nearest
from holitom.ops.kernels import inner_merge
from holitom.ops.short_sequences import kept_length
from tests.drawn import HealthCheck, given, settings, st
from tests.holitom.ops.kernels.support import DTYPES, REAL, within_twice

TIE = 2e-6  # difference of cosines that float32 cannot tell
CASES = [(150, 80, ((3, 90), (90, 93), (100, 149))), (9, 1, ((0, 9),)), (70, 33, ()), (1, 5, ((0, 1),))]
CASES += [(700, 3584, ((14, 655),)), (6300, 896, ((14, 6287),))] if REAL else []


def folded(hidden, kept, source, sequential):
    """Every kept token with its members, one after the other, in float64."""
    rows = []
    for place in kept.tolist():
        members = [token for token in (source == place).nonzero().flatten().tolist() if token != place]
        state = hidden[place].double()
        for token in members:
            state = state + hidden[token].double()
            state = state / 2 if sequential else state
        rows.append(state if sequential else state / (1 + len(members)))
    return torch.stack(rows)


def same_choices(hidden, source, plain, spans) -> None:
    """Every token went to the kept token that the torch version chose, or to one of its span that is as near.

    Which of two is nearer by less than float32 rounds depends on the order in which products are added up.
    """
    other = (source != plain.source).nonzero().flatten()
    chosen, wanted = source[other], plain.source[other]
    kept = torch.zeros(len(hidden), dtype=torch.bool).index_fill(0, plain.kept, True)
    assert (kept[chosen] & ~kept[other]).all()
    span = torch.zeros(len(hidden), dtype=torch.long)
    for number, (start, stop) in enumerate(spans, 1):
        span[start:stop] = number
    assert torch.equal(span[chosen], span[other])
    unit = torch.nn.functional.normalize(hidden.double(), dim=-1)
    assert ((unit[other] * (unit[wanted] - unit[chosen])).sum(-1).abs() <= TIE).all()


def test_a_near_tie_is_let_pass_and_a_wrong_choice_is_not(fixed) -> None:
    hidden, spans = fixed(40, 16).cpu(), ((2, 20), (20, 38))
    hidden[4] = hidden[3] + 1e-8  # the two best scores of the first span
    plain = merge_into_nearest(hidden, -torch.arange(40.0), spans, 0.8)
    near = plain.source.clone()
    near[near == 3] = 4
    near[3] = 3
    assert not torch.equal(near, plain.source)
    same_choices(hidden, near, plain, spans)
    moved = (plain.source != torch.arange(40)).nonzero().flatten().tolist()
    for token in moved:
        for target in {*range(40)} - {*near[[token]].tolist(), *plain.source[[token]].tolist(), 3, 4}:
            wrong = plain.source.clone()
            wrong[token] = target
            with pytest.raises(AssertionError):
                same_choices(hidden, wrong, plain, spans)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", ["sequential", "mean"])
@pytest.mark.parametrize(("seq", "dim", "spans"), CASES)
def test_merge(random, dtype, rule, seq, dim, spans) -> None:
    hidden, scores = random(seq, dim).to(dtype), (3 * random(seq)).round()
    counts = [kept_length(stop - start, 0.6) for start, stop in spans]
    merged, kept, source = inner_merge.merge_spans(hidden, scores, spans, counts, rule == "sequential")
    plain = merge_into_nearest(hidden.cpu(), scores.cpu(), spans, 0.6, rule)
    kept, source, hidden = kept.cpu(), source.cpu(), hidden.cpu()
    assert torch.equal(kept, plain.kept)
    same_choices(hidden, source, plain, spans)
    assert torch.equal(source[kept], kept)
    assert merged.dtype == dtype
    # by the kernel's own choices: with those of the torch version every near tie would count as an error
    wanted = folded(hidden, kept, source, rule == "sequential")
    rounding = 2e-6 if dtype == torch.float32 else torch.finfo(dtype).eps
    within_twice(merged, wanted.to(dtype), wanted, rounding)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 120), st.floats(0, 0.95), st.integers(0, 30))
def test_equal_tokens_go_to_the_first(random, length, ratio, head) -> None:
    """All states equal: whatever is merged away goes to the first kept token, by ties alone."""
    hidden = torch.ones(head + length + 2, 3, device=random(1).device)
    scores, spans = random(len(hidden)).sign(), [(head, head + length)]
    _, kept, source = inner_merge.merge_spans(hidden, scores, spans, [kept_length(length, ratio)], True)
    plain = merge_into_nearest(hidden.cpu(), scores.cpu(), spans, ratio)
    assert torch.equal(kept.cpu(), plain.kept)
    assert torch.equal(source.cpu(), plain.source)


def test_zero_states(fixed) -> None:
    hidden, scores = fixed(60, 8), fixed(60)
    hidden[10:20] = 0
    _, _, source = inner_merge.merge_spans(hidden, scores, [(0, 60)], [30], True)
    assert torch.equal(source.cpu(), merge_into_nearest(hidden.cpu(), scores.cpu(), [(0, 60)], 0.5).source)


@pytest.mark.parametrize("broken", [slice(0, 60), slice(7, 8), slice(0, 60, 3)])
def test_states_and_scores_that_are_not_numbers(fixed, broken) -> None:
    """The same tokens as in torch, where what is not a number is the highest score and the nearest state."""
    hidden, scores = fixed(60, 8), fixed(60)
    hidden[broken] = torch.nan
    for ranks in (scores, torch.where(hidden[:, 0].isnan(), hidden[:, 0], scores), scores * torch.nan):
        _, kept, source = inner_merge.merge_spans(hidden, ranks, [(2, 58)], [20], True)
        plain = merge_into_nearest(hidden.cpu(), ranks.cpu(), [(2, 58)], 1 - 20 / 56)
        assert torch.equal(kept.cpu(), plain.kept)
        assert torch.equal(source.cpu(), plain.source)


def test_the_library_takes_the_kernels(fixed, kernels_on, kernels_off) -> None:
    hidden, scores = fixed(2, 50, 16), fixed(2, 50)
    arguments = [((4, 40),), ((10, 30), (30, 44))], [3, 0], 0.5, "sequential"
    found = merge_batch(hidden, scores, *arguments)
    kernels_off()
    wanted = merge_batch(hidden.cpu(), scores.cpu(), *arguments)
    assert torch.equal(found.kept.cpu(), wanted.kept)
    assert torch.equal(found.source.cpu(), wanted.source)
    torch.testing.assert_close(found.hidden.cpu(), wanted.hidden, atol=1e-5, rtol=1e-5)
