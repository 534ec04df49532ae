"""The inner merge (HoliTom, Sec. 3.3) of one sequence and of a batch, by a kernel where there is one."""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from holitom.errors import InputError
from holitom.methods.holitom.config import MergeRule
from holitom.methods.holitom.inner_merging import average_into_kept, merge_into_nearest
from holitom.ops.kernels import kernel_for
from holitom.ops.short_sequences import ShortSequences, Spans, kept_length, shorten_rows


def merge_sequence(
    hidden: Float[Tensor, "seq dim"],
    scores: Float[Tensor, " seq"],
    spans: Iterable[tuple[int, int]],
    merge_ratio: float,
    rule: MergeRule = "sequential",
) -> ShortSequences:
    """:func:`~holitom.methods.holitom.inner_merging.merge_into_nearest` of spans that may come from anywhere.

    Args:
        hidden: states, (seq, dim).
        scores: finite score per token, (seq,).
        spans: ``[start, stop)`` of each span, ascending and disjoint; empty ones are ignored.
        merge_ratio: share of a span that is merged away, in [0, 1).
        rule: ``"sequential"`` or ``"mean"``.

    Raises:
        InputError: if the spans overlap, are out of order or leave the sequence.
    """
    spans = _checked(spans, hidden.shape[0])
    if kernel := kernel_for("merge_spans", hidden, scores):
        counts = [kept_length(stop - start, merge_ratio) for start, stop in spans]
        return ShortSequences(*kernel(hidden, scores, spans, counts, rule == "sequential"))
    return merge_into_nearest(hidden, scores, spans, merge_ratio, rule)


def _checked(spans: Iterable[tuple[int, int]], seq: int) -> list[tuple[int, int]]:
    """The spans that are not empty; :class:`InputError` if they overlap, are out of order or leave the sequence."""
    found, end = [], 0
    for start, stop in spans:
        if start == stop:
            continue
        if not end <= start < stop <= seq:
            raise InputError(
                f"span [{start}, {stop}) is out of range: it must be ascending and lie in [{end}, {seq}]; "
                "give the spans of a row in reading order and without overlap"
            )
        found.append((start, stop))
        end = stop
    return found


def merge_batch(
    hidden: Float[Tensor, "batch seq dim"],
    scores: Float[Tensor, "batch seq"],
    spans: Sequence[Spans],
    first: Sequence[int],
    merge_ratio: float,
    rule: MergeRule,
) -> ShortSequences:
    """Merge every row on its own (:func:`merge_sequence`) and pad the results on the left to one length.

    Args:
        hidden: states, (batch, seq, dim), left-padded.
        scores: fp32 score of every token, (batch, seq).
        spans: per row, its video spans.
        first: per row, index of the first real token.
        merge_ratio: share of a span that is merged away.
        rule: see :func:`merge_sequence`.
    """

    def merged(_: int, states: Tensor, own: Tensor, row_spans: Spans) -> ShortSequences:
        return merge_sequence(states, own, row_spans, merge_ratio, rule)

    return shorten_rows(hidden, scores, spans, first, merged)


def merge_batch_again(
    values: Float[Tensor, "batch seq dim"], merged: ShortSequences, first: Sequence[int], rule: MergeRule
) -> Float[Tensor, "batch short_seq dim"]:
    """Other values of the tokens of a batch, averaged as :func:`merge_batch` averaged their states; zero at padding.

    Args:
        values: (batch, seq, dim).
        merged: what became of the states.
        first: per row, index of its first real token before.
        rule: the rule they were merged by.
    """
    rows = []
    for row, (begin, gap) in enumerate(zip(first, merged.first, strict=True)):
        kept, source = merged.kept[row, gap:] - begin, merged.source[row, begin:] - begin
        away = torch.ones_like(source).index_fill_(0, kept, 0)
        others = away.argsort(descending=True, stable=True)[: len(source) - len(kept)]
        nearest = torch.searchsorted(kept, source.index_select(0, others))
        averages = average_into_kept(values[row, begin:].float(), kept, others, nearest, rule)
        rows.append(pad(averages, (0, 0, gap, 0)))
    return torch.stack(rows).to(values.dtype)
