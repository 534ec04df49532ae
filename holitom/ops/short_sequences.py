"""Sequences that were shortened inside the decoder, and batches of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn.functional import pad

Spans = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class MergedSequence:
    """One sequence after the merge, in reading order.

    Attributes:
        hidden: (short_seq, dim) states of the kept tokens, dtype of the input.
        kept: (short_seq,) int64 positions of the kept tokens in the sequence before, ascending.
        source: (seq,) int64, for every token before the position of the kept token that now stands for it.
    """

    hidden: Shaped[Tensor, "short_seq dim"]
    kept: Int[Tensor, " short_seq"]
    source: Int[Tensor, " seq"]


def kept_length(length: int, merge_ratio: float) -> int:
    """Tokens left of a span of ``length``: ``length * (1 - merge_ratio)``, halves to even, but never less than one.

    The release drops a span whose count rounds to zero without merging it into anything; one token is kept here.

    >>> kept_length(641, 0.5), kept_length(323, 0.5), kept_length(1, 0.5), kept_length(0, 0.5)
    (320, 162, 1, 0)
    """
    return min(length, max(1, round(length * (1 - merge_ratio))))


@dataclass(frozen=True)
class MergedBatch:
    """A batch after the merge, rows compacted to the right.

    Attributes:
        hidden: (batch, short_seq, dim), zero at padding.
        kept: (batch, short_seq) int64 positions before the merge, -1 at padding.
        source: (batch, seq) int64, see :class:`MergedSequence`; -1 at padding.
        first: per row, index of its first real token, known without reading a tensor.
    """

    hidden: Float[Tensor, "batch short_seq dim"]
    kept: Int[Tensor, "batch short_seq"]
    source: Int[Tensor, "batch seq"]
    first: tuple[int, ...]

    @property
    def padded(self) -> bool:
        """Whether any row has padding."""
        return any(self.first)


def pad_rows(rows: Sequence[MergedSequence], first: Sequence[int]) -> MergedBatch:
    """Pad shortened sequences on the left to one length.

    Args:
        rows: one per row, its positions counted from the row's first real token.
        first: per row, index of that token in the padded sequence before.
    """
    if len(rows) == 1 and not first[0]:  # nothing to pad, nothing to copy
        (row,) = rows
        return MergedBatch(row.hidden[None], row.kept[None], row.source[None], (0,))
    lengths = [row.kept.shape[0] for row in rows]
    missing = [max(lengths) - length for length in lengths]
    return MergedBatch(
        hidden=torch.stack([pad(row.hidden, (0, 0, gap, 0)) for row, gap in zip(rows, missing, strict=True)]),
        kept=_stack_positions([row.kept for row in rows], first, missing),
        source=_stack_positions([row.source for row in rows], first, first),
        first=tuple(missing),
    )


def _stack_positions(rows: Sequence[Tensor], shifts: Sequence[int], missing: Sequence[int]) -> Tensor:
    """Stack rows of positions, each shifted to the padded sequence and padded on the left with -1; -1 stays -1."""
    parts = zip(rows, shifts, missing, strict=True)
    return torch.stack([pad(torch.where(row < 0, row, row + shift), (gap, 0), value=-1) for row, shift, gap in parts])
