"""Merging visual tokens inside the language model: keep the best-scored ones, average the others into them."""

from collections.abc import Iterable
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from holitom.ops.cpu_memory import CACHED_ELEMENTS, work_buffer
from holitom.ops.nearest import by_product, most_similar, shortlist_pays
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
    spans = list(spans)
    lengths = [kept_length(stop - start, merge_ratio) for start, stop in spans]
    removed = sum(stop - start - length for (start, stop), length in zip(spans, lengths, strict=True))
    learning = hidden.requires_grad and torch.is_grad_enabled()  # writing into one tensor would cut the gradients off
    place = None if learning else hidden.new_empty(len(hidden) - removed, hidden.shape[1])
    parts, kept, source = [], [], positions.clone()
    end = at = 0
    for (start, stop), length in zip(spans, lengths, strict=True):
        text, begin, out = hidden[end:start], at + start - end, None
        if place is not None:
            place[at:begin] = text
            out = place[begin : begin + length]
        merged, chosen, target = _merge_span(hidden[start:stop], scores[start:stop], length, rule, out)
        parts += [text, merged]
        kept += [positions[end:start], chosen + start]
        source[start:stop] = target + start
        end, at = stop, begin + length
    if place is None:
        place = torch.cat([*parts, hidden[end:]])
    else:
        place[at:] = hidden[end:]
    return ShortSequences(place, torch.cat([*kept, positions[end:]]), source)


def _merge_span(
    tokens: Tensor, scores: Tensor, n_keep: int, rule: Rule, out: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Merge one span, into ``out`` if given; returns its states, the kept indices and every token's kept token."""
    target = torch.arange(len(tokens), device=tokens.device)
    if n_keep == len(tokens):
        return tokens if out is None else out.copy_(tokens), target, target
    ranked = scores.argsort(descending=True, stable=True)
    kept, others = ranked[:n_keep].sort().values, ranked[n_keep:].sort().values
    if shortlist_pays(tokens, min(n_keep, len(others))):
        nearest = most_similar(tokens, others, kept, shortlist=True)
        merged = average_into_kept(tokens, kept, others, nearest, rule, out)
    else:
        # Kept tokens first: both sides of the product are then views of one copy, which is widened once.
        states = tokens.index_select(0, torch.cat([kept, others])).float()
        with torch.no_grad():
            nearest = by_product(states[n_keep:], states[:n_keep])
        merged = average_into_kept(states, target[:n_keep], target[n_keep:], nearest, rule, out)
    target[others] = kept[nearest]
    return merged.to(tokens.dtype), kept, target


def average_into_kept(
    states: Float[Tensor, "seq dim"],
    kept: Int[Tensor, " kept"],
    others: Int[Tensor, " others"],
    nearest: Int[Tensor, " others"],
    rule: Rule,
    out: Float[Tensor, "kept dim"] | None = None,
) -> Float[Tensor, "kept dim"]:
    """States of the ``kept`` tokens after the merge, added up in fp32; ``nearest`` names the kept row of each other.

    Bags of rows are added one after the other, each by one thread, hence reproducibly; scattered additions are not on
    CUDA. With m members the sequential rule gives the kept state 2^-m and the i-th member 2^-(m - i + 1).
    """
    bag = torch.cat([torch.arange(len(kept), device=kept.device), nearest])
    order = bag.argsort(stable=True)  # a kept token comes before its members, and these in ascending order
    rows, bag = torch.cat([kept, others]).index_select(0, order), bag.index_select(0, order)
    edges = torch.searchsorted(bag, torch.arange(len(kept) + 1, device=kept.device))
    first = edges[:-1]
    weights = None
    if rule == "sequential":
        behind = edges[1:].index_select(0, bag)  # where the next begins
        halvings = behind - torch.arange(len(rows), device=rows.device)
        halvings = torch.where(rows == kept.index_select(0, bag), halvings - 1, halvings)
        weights = torch.pow(0.5, halvings.float())
    out = states.new_empty(len(kept), states.shape[1]) if out is None else out
    return add_bags(states, rows, first, weights, out)


def add_bags(
    states: Float[Tensor, "seq dim"],
    rows: Int[Tensor, " listed"],
    first: Int[Tensor, " bags"],
    weights: Float[Tensor, " listed"] | None,
    out: Float[Tensor, "bags dim"],
) -> Float[Tensor, "bags dim"]:
    """Weighted sums of bags of rows in fp32, without weights means; on a CPU as many at a time as its cache holds."""
    add, wide = partial(embedding_bag, mode="mean" if weights is None else "sum"), states.dtype == torch.float32
    step = max(1, (8 if wide else 1) * CACHED_ELEMENTS * len(first) // max(1, states.numel()))
    if states.device.type != "cpu" or step >= len(first) or (states.requires_grad and torch.is_grad_enabled()):
        return out.copy_(add(rows, states.float(), first, per_sample_weights=weights))
    bounds = pairwise([*first.numpy()[::step].tolist(), len(rows)])
    for (start, stop), some, part in zip(bounds, first.split(step), out.split(step), strict=True):
        used, table, own = rows[start:stop], states, None if weights is None else weights[start:stop]
        if not wide:
            narrow, used = states.index_select(0, used), torch.arange(len(used))
            table = work_buffer(narrow.shape, torch.float32, states.device).copy_(narrow)
        part.copy_(add(used, table, some - start, per_sample_weights=own))
    return out
