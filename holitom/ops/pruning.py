"""Pruning visual tokens inside the language model: keep the best-scored ones of every span, drop the others."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from holitom.ops.short_sequences import ShortSequences, Spans, shorten_rows
from holitom.ops.token_ops import upload


def truncated_length(length: int, keep_ratio: float) -> int:
    """``length * keep_ratio`` cut to an integer, but at least one of a span that is not empty.

    PyramidDrop's and PruneVid's rounding. Their references drop a span whose count is cut to zero altogether; one token
    is kept here.

    >>> truncated_length(6273, 0.25), truncated_length(7, 0.125), truncated_length(0, 0.5)
    (1568, 1, 0)
    """
    return min(length, max(1, math.trunc(length * keep_ratio)))


def keep_best(
    hidden: Float[Tensor, "seq dim"], scores: Float[Tensor, " seq"], spans: Spans, counts: Sequence[int]
) -> ShortSequences:
    """Keep the ``counts[i]`` best-scored tokens of span ``i`` and every token outside the spans, in reading order.

    FastV, Sec. 4.1; PyramidDrop, Sec. 3.2. Of equal scores the earlier token is kept. No value is read back from the
    device.

    Args:
        hidden: states, (seq, dim).
        scores: finite score per token, (seq,); only those inside the spans are used.
        spans: ``[start, stop)`` of each span, ascending and disjoint.
        counts: tokens to keep of each span, at most its length.

    Returns:
        The shortened sequence; ``source`` is -1 at dropped tokens.
    """
    ranked = [scores[start:stop].argsort(descending=True, stable=True) for start, stop in spans]
    return keep_chosen(hidden, spans, [order[:count] for order, count in zip(ranked, counts, strict=True)])


def keep_chosen(hidden: Float[Tensor, "seq dim"], spans: Spans, chosen: Sequence[Int[Tensor, "..."]]) -> ShortSequences:
    """Keep ``chosen[i]`` of span ``i``, counted from its start and in any order, and every token outside the spans."""
    positions = torch.arange(hidden.shape[0], device=hidden.device)
    kept, end = [], 0
    for (start, stop), inside in zip(spans, chosen, strict=True):
        kept += [positions[end:start], start + inside.sort().values]
        end = stop
    places = torch.cat([*kept, positions[end:]])
    source = torch.full_like(positions, -1).index_copy_(0, places, places)
    return ShortSequences(hidden[places], places, source)


def best_of_groups(
    scores: Float[Tensor, " span"], group: Int[Tensor, " span"], quotas: Sequence[int]
) -> Int[Tensor, " kept"]:
    """The ``quotas[g]`` best-scored tokens of every group ``g``, in no particular order; ties to the earlier token.

    Args:
        scores: finite score per token.
        group: group of each token, in ``[0, len(quotas))``.
        quotas: tokens to keep of each group, at most its size.
    """
    (quota,) = upload(scores.device, quotas)
    order = scores.argsort(descending=True, stable=True)
    order = order[group[order].argsort(stable=True)]  # group by group, best first
    grouped = group[order]
    begins = torch.searchsorted(grouped, torch.arange(len(quotas), device=scores.device))
    place = torch.arange(len(order), device=scores.device) - begins[grouped]
    # Kept tokens to the front; their number is known, so that the device is not asked.
    return order[(place >= quota[grouped]).long().argsort(stable=True)][: sum(quotas)]


def prune_batch(
    hidden: Float[Tensor, "batch seq dim"],
    scores: Float[Tensor, "batch seq"],
    spans: Sequence[Spans],
    first: Sequence[int],
    counts: Sequence[Sequence[int]],
) -> ShortSequences:
    """Prune every row on its own (:func:`keep_best`) and pad the results on the left to one length.

    Args:
        hidden: states, (batch, seq, dim), left-padded.
        scores: fp32 score of every token, (batch, seq).
        spans: per row, its video spans.
        first: per row, index of the first real token.
        counts: per row, tokens to keep of each span.
    """

    def best(row: int, states: Tensor, own: Tensor, row_spans: Spans) -> ShortSequences:
        return keep_best(states, own, row_spans, counts[row])

    return shorten_rows(hidden, scores, spans, first, best)
