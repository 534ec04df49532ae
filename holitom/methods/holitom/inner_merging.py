"""Merging visual tokens inside the language model: keep the best-scored ones, average the others into them."""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag, pad

from holitom.errors import InputError
from holitom.methods.holitom.config import MergeRule
from holitom.ops.kernels.dispatch import on_one_gpu, use_kernels
from holitom.ops.nearest import most_similar
from holitom.ops.short_sequences import MergedBatch, MergedSequence, Spans, kept_length, pad_rows


def merge_into_nearest(
    hidden: Float[Tensor, "seq dim"],
    scores: Float[Tensor, " seq"],
    spans: Iterable[tuple[int, int]],
    merge_ratio: float,
    rule: MergeRule = "sequential",
) -> MergedSequence:
    """Shorten every span of one sequence by ``merge_ratio``; tokens outside the spans stay as they are.

    HoliTom, Sec. 3.3. Each span keeps its :func:`kept_length` best scores (of equal scores the earlier token). Every
    other token of the span goes to the kept token of the same span with the largest cosine similarity (the first of
    equals), all similarities taken from the states before any merge, in fp32. No value is read back from the device.

    Args:
        hidden: states, (seq, dim).
        scores: finite score per token, (seq,); only those inside the spans are used.
        spans: ``[start, stop)`` of each span, ascending and disjoint; empty ones are ignored.
        merge_ratio: share of a span that is merged away, in [0, 1).
        rule: ``"sequential"``: in ascending order ``kept = (kept + token) / 2``, so that later tokens weigh more (what
            the released code does); ``"mean"``: mean of the kept token and all its tokens (what the paper says).

    Returns:
        The shortened sequence, where its tokens come from and where the others went.

    Raises:
        InputError: if the spans overlap, are out of order or leave the sequence.
    """
    spans = _checked(spans, hidden.shape[0])
    if use_kernels(hidden) and scores.dtype == torch.float32 and on_one_gpu(hidden, scores):
        from holitom.ops.kernels import inner_merge  # noqa: PLC0415

        counts = [kept_length(stop - start, merge_ratio) for start, stop in spans]
        return MergedSequence(*inner_merge.merge_spans(hidden, scores, spans, counts, rule == "sequential"))
    positions = torch.arange(hidden.shape[0], device=hidden.device)
    states, kept, source = [], [], positions.clone()
    end = 0
    for start, stop in spans:
        merged, chosen, target = _merge_span(hidden[start:stop], scores[start:stop], merge_ratio, rule)
        states += [hidden[end:start], merged]
        kept += [positions[end:start], chosen + start]
        source[start:stop] = target + start
        end = stop
    return MergedSequence(torch.cat([*states, hidden[end:]]), torch.cat([*kept, positions[end:]]), source)


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


def _merge_span(tokens: Tensor, scores: Tensor, merge_ratio: float, rule: MergeRule) -> tuple[Tensor, Tensor, Tensor]:
    """Merge one span; returns its kept states, their indices and every token's kept token, all within the span."""
    length = tokens.shape[0]
    n_keep = kept_length(length, merge_ratio)
    target = torch.arange(length, device=tokens.device)
    if n_keep == length:
        return tokens, target, target
    ranked = scores.argsort(descending=True, stable=True)
    kept, others = ranked[:n_keep].sort().values, ranked[n_keep:].sort().values
    states = tokens.float()
    narrow = tokens.dtype == torch.bfloat16
    nearest = most_similar(states.index_select(0, others), states.index_select(0, kept), narrow)
    target[others] = kept[nearest]
    return _average(states, kept, others, nearest, rule).to(tokens.dtype), kept, target


def _average(
    states: Float[Tensor, "seq dim"],
    kept: Int[Tensor, " kept"],
    others: Int[Tensor, " others"],
    nearest: Int[Tensor, " others"],
    rule: MergeRule,
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


def merge_batch(
    hidden: Float[Tensor, "batch seq dim"],
    scores: Float[Tensor, "batch seq"],
    spans: Sequence[Spans],
    first: Sequence[int],
    merge_ratio: float,
    rule: MergeRule,
) -> MergedBatch:
    """Merge every row on its own (:func:`merge_into_nearest`) and pad the results on the left to one length.

    Args:
        hidden: states, (batch, seq, dim), left-padded.
        scores: fp32 score of every token, (batch, seq).
        spans: per row, its video spans.
        first: per row, index of the first real token.
        merge_ratio: share of a span that is merged away.
        rule: see :func:`merge_into_nearest`.
    """
    merged = []
    for row, (row_spans, begin) in enumerate(zip(spans, first, strict=True)):
        shifted = [(start - begin, stop - begin) for start, stop in row_spans]
        merged.append(merge_into_nearest(hidden[row, begin:], scores[row, begin:], shifted, merge_ratio, rule))
    return pad_rows(merged, first)


def merge_batch_again(
    values: Float[Tensor, "batch seq dim"], merged: MergedBatch, first: Sequence[int], rule: MergeRule
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
        rows.append(pad(_average(values[row, begin:].float(), kept, others, nearest, rule), (0, 0, gap, 0)))
    return torch.stack(rows).to(values.dtype)
