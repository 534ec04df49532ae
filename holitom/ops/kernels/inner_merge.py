"""The merge inside the language model: similarity, nearest kept token and average in a few launches per sequence."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from holitom.ops.kernels import kernel, readable
from holitom.ops.kernels.launching import on_device, packed_rows, precision_of, product
from holitom.ops.kernels.ranking import mark_span, split

_TILE = 32
_SLICE = 64


@triton.jit(do_not_specialize=["begin", "count", "kept_begin", "kept_count", "parts"])
def best_in_block(
    hidden, others, kept, similarity, nearest, begin, count, kept_begin, kept_count, parts, dim, h_row,
    TILE: tl.constexpr, SLICE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Of one block of kept tokens, the most similar one to each of ``TILE`` others, the first of equals."""
    row = tl.program_id(0) * TILE + tl.arange(0, TILE)
    column = tl.program_id(1) * TILE + tl.arange(0, TILE)
    token = tl.load(others + begin + row, mask=row < count, other=0)
    choice = tl.load(kept + kept_begin + column, mask=column < kept_count, other=0)
    dots = tl.zeros([TILE, TILE], tl.float32)
    squares = tl.zeros([TILE], tl.float32)
    for first in range(0, dim, SLICE):
        depth = first + tl.arange(0, SLICE)
        inside = depth < dim
        left_mask = (row[:, None] < count) & inside[None, :]
        right_mask = (column[None, :] < kept_count) & inside[:, None]
        left = tl.load(hidden + token[:, None] * h_row + depth[None, :], mask=left_mask, other=0.0)
        right = tl.load(hidden + choice[None, :] * h_row + depth[:, None], mask=right_mask, other=0.0)
        dots += product(left, right, PRECISION)
        wide = right.to(tl.float32)
        squares += tl.sum(wide * wide, 0)
    # The length of the other token is left out: it changes nothing in which kept token is nearest.
    cosines = dots / tl.maximum(tl.sqrt(squares), 1e-12)[None, :]
    # As in torch, what is not a number is the largest; a row of such values still names a token.
    cosines = tl.where(cosines == cosines, cosines, float("inf"))
    cosines = tl.where((column < kept_count)[None, :], cosines, float("-inf"))
    best = tl.max(cosines, 1)
    at = tl.program_id(1) * TILE + tl.argmax(cosines, 1)
    out = row * parts + tl.program_id(1)
    tl.store(similarity + out, best, mask=row < count)
    tl.store(nearest + out, at, mask=row < count)


@triton.jit(do_not_specialize=["begin", "count", "kept_begin", "parts"])
def settle(similarity, nearest, others, kept, target, source, begin, count, kept_begin, parts, BLOCK: tl.constexpr):
    """Best of all blocks, the first of equals: row of the kept token (``target``) and its position (``source``)."""
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = row < count
    best = tl.load(similarity + row * parts, mask=inside, other=0.0)
    at = tl.load(nearest + row * parts, mask=inside, other=0)
    for part in range(1, parts):
        value = tl.load(similarity + row * parts + part, mask=inside, other=0.0)
        place = tl.load(nearest + row * parts + part, mask=inside, other=0)
        at = tl.where(value > best, place, at)
        best = tl.maximum(value, best)
    chosen = kept_begin + at
    token = tl.load(others + begin + row, mask=inside, other=0)
    tl.store(target + begin + row, chosen, mask=inside)
    tl.store(source + token, tl.load(kept + chosen, mask=inside, other=0), mask=inside)


@triton.jit(do_not_specialize=["count"])
def fold(
    hidden, kept, others, target, out, count, dim, h_row,
    SEQUENTIAL: tl.constexpr, CHUNK: tl.constexpr, SLICE: tl.constexpr,
):  # fmt: skip
    """One kept token with its members folded in, in ascending order; tokens without members are copied."""
    row = tl.program_id(0)
    depth = tl.program_id(1) * SLICE + tl.arange(0, SLICE)
    inside = depth < dim
    token = tl.load(kept + row)
    state = tl.load(hidden + token * h_row + depth, mask=inside, other=0.0).to(tl.float32)
    members = 0
    for first in range(0, count, CHUNK):
        at = first + tl.arange(0, CHUNK)
        mine = tl.load(target + at, mask=at < count, other=-1) == row
        left = tl.sum(mine.to(tl.int32), 0)
        members += left
        while left > 0:
            earliest = tl.min(tl.where(mine, at, count), 0)
            member = tl.load(others + earliest)
            value = tl.load(hidden + member * h_row + depth, mask=inside, other=0.0).to(tl.float32)
            state += value
            if SEQUENTIAL:
                state *= 0.5
            mine = mine & (at != earliest)
            left -= 1
    if not SEQUENTIAL:
        state = state / (1 + members)
    tl.store(out + row.to(tl.int64) * dim + depth, state.to(out.dtype.element_ty), mask=inside)


@kernel(lambda hidden, scores: readable(hidden) and scores.dtype == torch.float32)
def merge_spans(
    hidden: Tensor, scores: Tensor, spans: Sequence[tuple[int, int]], counts: Sequence[int], sequential: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`holitom.methods.holitom.inner_merging.merge_into_nearest` in three launches and three per span.

    Args:
        hidden: (seq, dim) in float32, float16 or bfloat16.
        scores: (seq,) float32.
        spans: ``[start, stop)`` of each span, checked, none empty.
        counts: tokens to keep of each span, between 1 and its length.
        sequential: pairwise averages in order; otherwise the mean of the group.

    Returns:
        The merged states (short_seq, dim), the positions of the kept tokens and the source of every token.
    """
    seq, dim = hidden.shape
    hidden, scores = packed_rows(hidden), packed_rows(scores)
    h_row = hidden.stride(0)
    marks = torch.ones(seq, dtype=torch.bool, device=hidden.device)
    for (start, stop), count in zip(spans, counts, strict=True):
        mark_span(scores, marks, start, stop - start, count)
    merged_away = [stop - start - count for (start, stop), count in zip(spans, counts, strict=True)]
    kept, others, source = split(marks, seq - sum(merged_away))
    target = torch.empty_like(others)
    begin, gone = 0, 0  # tokens merged away in the spans before
    with on_device(hidden):
        for (start, _), count, away in zip(spans, counts, merged_away, strict=True):
            if away:
                nearest_kept(hidden, others, kept, target, source, begin, away, start - gone, count)
            begin, gone = begin + away, gone + away
        merged = hidden.new_empty(len(kept), dim)
        fold[(len(kept), triton.cdiv(dim, 1024))](
            hidden, kept, others, target, merged, len(others), dim, h_row, SEQUENTIAL=sequential, CHUNK=128, SLICE=1024
        )
    return merged, kept, source


def nearest_kept(
    hidden: Tensor, others: Tensor, kept: Tensor, target: Tensor, source: Tensor,
    begin: int, count: int, kept_begin: int, kept_count: int,
) -> None:  # fmt: skip
    """Fill ``target`` and ``source`` of ``count`` others of one span, two launches.

    Args:
        hidden: (seq, dim).
        others: positions of the tokens that are merged away; those of the span start at entry ``begin``.
        kept: positions of the kept tokens; those of the span are ``kept_count`` from entry ``kept_begin`` on.
        target: row of the kept token for each other one, written.
        source: position of the kept token for each token, written.
        begin: see ``others``.
        count: others of the span.
        kept_begin: see ``kept``.
        kept_count: see ``kept``.
    """
    parts = triton.cdiv(kept_count, _TILE)
    similarity = hidden.new_empty(count, parts, dtype=torch.float32)
    nearest = hidden.new_empty(count, parts, dtype=torch.int32)
    best_in_block[(triton.cdiv(count, _TILE), parts)](
        hidden, others, kept, similarity, nearest, begin, count, kept_begin, kept_count, parts,
        hidden.shape[1], hidden.stride(0), TILE=_TILE, SLICE=_SLICE, PRECISION=precision_of(hidden),
    )  # fmt: skip
    settle[(triton.cdiv(count, 64),)](
        similarity, nearest, others, kept, target, source, begin, count, kept_begin, parts, BLOCK=64
    )
