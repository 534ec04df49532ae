"""Choosing the highest scores by counting: no sort, ties to the lower index, a fixed number of launches.

What is not a number counts as the highest, as in torch: exactly as many entries are marked as were asked for, whatever
the scores are, and the lists that follow have room for them.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from holitom.ops.kernels import kernel
from holitom.ops.kernels.launching import as_bytes, on_device, packed_rows

LARGEST_RANKED = 8192  # entries of a row; all pairs are compared
RANKED = (torch.float32, torch.float64, torch.float16)
_BLOCK = 64


@triton.jit(do_not_specialize=["scores", "eligible", "counts", "start", "width", "count", "s_row", "e_row", "m_row"])
def mark_highest(
    scores, eligible, counts, marks, start, width, count, s_row, e_row, m_row,
    MASKED: tl.constexpr, PER_ROW: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Mark entries of one row that fewer than ``count`` others precede; ``start`` skips columns of scores and marks."""
    row = tl.program_id(0).to(tl.int64)
    own = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    scores += row * s_row + start
    wanted = count
    if PER_ROW:
        wanted = tl.load(counts + row)
    mine = tl.load(scores + own, mask=own < width, other=float("-inf"))
    before = tl.zeros([BLOCK], tl.int32)
    for first in range(0, width, BLOCK):
        other = first + tl.arange(0, BLOCK)
        valid = other < width
        theirs = tl.load(scores + other, mask=valid, other=float("-inf"))
        if MASKED:
            valid = valid & (tl.load(eligible + row * e_row + other, mask=valid, other=0) != 0)
        broken, own_broken = (theirs != theirs)[None, :], (mine != mine)[:, None]
        higher = (theirs[None, :] > mine[:, None]) | (broken & ~own_broken)
        equal = (theirs[None, :] == mine[:, None]) | (broken & own_broken)
        ahead = (higher | (equal & (other[None, :] < own[:, None]))) & valid[None, :]
        before += tl.sum(ahead.to(tl.int32), 1)
    mark = before < wanted
    if MASKED:
        mark = mark & (tl.load(eligible + row * e_row + own, mask=own < width, other=0) != 0)
    tl.store(marks + row * m_row + start + own, mark.to(tl.uint8), mask=own < width)


@kernel(lambda scores, eligible, counts: scores.dtype in RANKED and 0 < scores.shape[1] <= LARGEST_RANKED)
def highest(scores: Tensor, eligible: Tensor, counts: Tensor) -> Tensor:
    """:func:`holitom.ops.token_ops.highest` in one launch; for rows of some thousand entries, as its work is quadratic.

    Args:
        scores: (rows, width) in any floating dtype but bfloat16.
        eligible: (rows, width) bool.
        counts: (rows,) integers.

    Returns:
        (rows, width) bool.
    """
    rows, width = scores.shape
    scores, eligible, counts = packed_rows(scores), packed_rows(eligible), counts.contiguous()
    marks = torch.empty(rows, width, dtype=torch.bool, device=scores.device)
    grid = (rows, triton.cdiv(width, _BLOCK))
    sizes = (0, width, 0, scores.stride(0), eligible.stride(0), width)
    with on_device(scores):
        mark_highest[grid](
            scores, as_bytes(eligible), counts, as_bytes(marks), *sizes, MASKED=True, PER_ROW=True, BLOCK=_BLOCK
        )
    return marks


def mark_span(scores: Tensor, marks: Tensor, start: int, length: int, count: int) -> None:
    """Mark the ``count`` highest of ``scores[start : start + length]`` in ``marks``, one launch.

    Args:
        scores: (seq,) float32.
        marks: (seq,) bool, of which the span is overwritten.
        start: first entry of the span.
        length: entries of the span.
        count: how many to mark.
    """
    with on_device(scores):
        mark_highest[(1, triton.cdiv(length, _BLOCK))](
            scores, scores, scores, as_bytes(marks), start, length, count, 0, 0, 0,
            MASKED=False, PER_ROW=False, BLOCK=_BLOCK,
        )  # fmt: skip


@triton.jit(do_not_specialize=["width"])
def split_marked(marks, marked, others, source, width, BLOCK: tl.constexpr, CHUNK: tl.constexpr):
    """Columns of the marked entries and of the others, both ascending; ``source`` of a marked entry is itself."""
    block = tl.program_id(0) * BLOCK
    ahead = tl.zeros([CHUNK], tl.int32)
    for first in range(0, block, CHUNK):
        column = first + tl.arange(0, CHUNK)
        ahead += tl.load(marks + column, mask=column < block, other=0).to(tl.int32)
    own = block + tl.arange(0, BLOCK)
    mark = tl.load(marks + own, mask=own < width, other=0).to(tl.int32)
    place = tl.sum(ahead, 0) + tl.cumsum(mark, 0) - mark
    column = own.to(tl.int64)
    chosen = (own < width) & (mark != 0)
    tl.store(marked + place, column, mask=chosen)
    tl.store(source + own, column, mask=chosen)
    tl.store(others + own - place, column, mask=(own < width) & (mark == 0))


def split(marks: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Columns of the ``count`` marked entries of a row, columns of the others, and a table of sources.

    Args:
        marks: (width,) bool with exactly ``count`` True entries.
        count: known on the host.

    Returns:
        (count,) and (width - count,) int64, ascending; (width,) int64 that holds each marked entry's own column and is
        not written elsewhere.
    """
    width = marks.shape[0]
    marked, others, source = (marks.new_empty(size, dtype=torch.int64) for size in (count, width - count, width))
    with on_device(marks):
        split_marked[(triton.cdiv(width, 256),)](as_bytes(marks), marked, others, source, width, BLOCK=256, CHUNK=1024)
    return marked, others, source


@triton.jit(do_not_specialize=["width", "most", "m_row"])
def list_marked(mask, columns, width, most, m_row, BLOCK: tl.constexpr):
    """Columns of one row's marked entries, ascending, then zeros."""
    row = tl.program_id(0).to(tl.int64)
    mask += row * m_row
    columns += row * most
    found = 0
    for first in range(0, width, BLOCK):
        column = first + tl.arange(0, BLOCK)
        mark = tl.load(mask + column, mask=column < width, other=0).to(tl.int32)
        place = found + tl.cumsum(mark, 0) - mark
        tl.store(columns + place, column.to(tl.int64), mask=(mark != 0) & (place < most))
        found += tl.sum(mark, 0)
    for first in range(0, most, BLOCK):
        slot = first + tl.arange(0, BLOCK)
        tl.store(columns + slot, tl.zeros([BLOCK], tl.int64), mask=(slot >= found) & (slot < most))


@kernel(lambda mask: mask.numel() > 0)
def packed_positions(mask: Tensor, most: int) -> Tensor:
    """:func:`holitom.ops.token_ops.packed_positions` in one launch.

    Args:
        mask: (rows, width) bool, at least one row.
        most: no row has more True entries.

    Returns:
        (rows, most) int64.
    """
    mask = packed_rows(mask)
    rows, width = mask.shape
    columns = torch.empty(rows, most, dtype=torch.int64, device=mask.device)
    with on_device(mask):
        list_marked[(rows,)](as_bytes(mask), columns, width, most, mask.stride(0), BLOCK=1024)
    return columns
