"""Merging visual tokens inside the language model: keep the best-scored ones, average the others into them."""

from collections.abc import Iterable
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from holitom.ops.nearest import most_similar
from holitom.ops.short_sequences import ShortSequences, kept_length

Rule = Literal["sequential", "mean"]


def merge_into_nearest(
    hidden: Float[Tensor, "seq dim"],
    scores: Float[Tensor, " seq"],
    spans: Iterable[tuple[int, int]],
    merge_ratio: float,
    rule: Rule = "sequential",
) -> ShortSequences:
    """Shorten every span of one sequence by ``merge_ratio``; tokens outside the spans stay as they are.

    HoliTom, Sec. 3.3. Each span keeps its :func:`kept_length` best scores (of equal scores the earlier token). Every
    other token of the span goes to the kept token of the same span with the largest cosine similarity (the first of
    equals), all similarities taken from the states before any merge, in fp32. No value is read back from the device.

    Args:
        hidden: states, (seq, dim).
        scores: finite score per token, (seq,); only those inside the spans are used.
        spans: ``[start, stop)`` of each span, ascending, disjoint and not empty, which a caller has checked.
        merge_ratio: share of a span that is merged away, in [0, 1).
        rule: ``"sequential"``: in ascending order ``kept = (kept + token) / 2``, so that later tokens weigh more (what
            the released code does); ``"mean"``: mean of the kept token and all its tokens (what the paper says).

    Returns:
        The shortened sequence, where its tokens come from and where the others went.
    """
    positions = torch.arange(hidden.shape[0], device=hidden.device)
    states, kept, source = [], [], positions.clone()
    end = 0
    for start, stop in spans:
        merged, chosen, target = _merge_span(hidden[start:stop], scores[start:stop], merge_ratio, rule)
        states += [hidden[end:start], merged]
        kept += [positions[end:start], chosen + start]
        source[start:stop] = target + start
        end = stop
    return ShortSequences(torch.cat([*states, hidden[end:]]), torch.cat([*kept, positions[end:]]), source)


def _merge_span(tokens: Tensor, scores: Tensor, merge_ratio: float, rule: Rule) -> tuple[Tensor, Tensor, Tensor]:
    """Merge one span; returns its kept states, their indices and every token's kept token, all within the span."""
    length = tokens.shape[0]
    n_keep = kept_length(length, merge_ratio)
    target = torch.arange(length, device=tokens.device)
    if n_keep == length:
        return tokens, target, target
    ranked = scores.argsort(descending=True, stable=True)
    kept, others = ranked[:n_keep].sort().values, ranked[n_keep:].sort().values
    # Kept tokens first: both sides of the product are then views of one copy, which is widened once.
    gathered = tokens.index_select(0, torch.cat([kept, others]))
    states = gathered.float()
    narrow = (gathered[n_keep:], gathered[:n_keep]) if tokens.dtype == torch.bfloat16 else None
    nearest = most_similar(states[n_keep:], states[:n_keep], narrow)
    merged = average_into_kept(states, target[:n_keep], target[n_keep:], nearest, rule).to(tokens.dtype)
    target[others] = kept[nearest]
    return merged, kept, target


def average_into_kept(
    states: Float[Tensor, "seq dim"],
    kept: Int[Tensor, " kept"],
    others: Int[Tensor, " others"],
    nearest: Int[Tensor, " others"],
    rule: Rule,
) -> Float[Tensor, "kept dim"]:
    """States of the ``kept`` tokens after the merge; ``nearest`` names the kept row of each of the ``others``.

    Bags of rows are added one after the other, each by one thread, hence reproducibly; scattered additions are not on
    CUDA. With m members the sequential rule gives the kept state 2^-m and the i-th member 2^-(m - i + 1).
    """
    bag = torch.cat([torch.arange(len(kept), device=kept.device), nearest])
    order = bag.argsort(stable=True)  # a kept token comes before its members, and these in ascending order
    rows, bag = torch.cat([kept, others]).index_select(0, order), bag.index_select(0, order)
    first = torch.searchsorted(bag, torch.arange(len(kept), device=kept.device))
    if rule == "mean":
        return embedding_bag(rows, states, first, mode="mean")
    behind = torch.cat([first[1:], first.new_full((1,), len(rows))]).index_select(0, bag)  # where the next bag begins
    halvings = behind - torch.arange(len(rows), device=rows.device)
    halvings = torch.where(rows == kept.index_select(0, bag), halvings - 1, halvings)
    return embedding_bag(rows, states, first, mode="sum", per_sample_weights=torch.pow(0.5, halvings.to(states.dtype)))
