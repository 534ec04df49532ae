"""Sequences that were shortened inside the decoder, and batches of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn.functional import pad

Spans = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class ShortSequences:
    """One sequence that was shortened, or a batch of them compacted to the right; in reading order.

    Attributes:
        hidden: (short_seq, dim) or (batch, short_seq, dim) states of the kept tokens, dtype of the input; zero at
            padding.
        kept: (short_seq,) or (batch, short_seq) int64 positions of the kept tokens in the sequence before, ascending;
            -1 at padding.
        source: (seq,) or (batch, seq) int64, for every token before the position of the kept token that now stands for
            it; -1 at padding and for tokens that were dropped.
        first: per row, index of its first real token, known without reading a tensor.
    """

    hidden: Shaped[Tensor, "*batch short_seq dim"]
    kept: Int[Tensor, "*batch short_seq"]
    source: Int[Tensor, "*batch seq"]
    first: tuple[int, ...] = (0,)

    @property
    def padded(self) -> bool:
        """Whether any row has padding."""
        return any(self.first)


def kept_length(length: int, merge_ratio: float) -> int:
    """Tokens left of a span of ``length``: ``length * (1 - merge_ratio)``, halves to even, but never less than one.

    The release drops a span whose count rounds to zero without merging it into anything; one token is kept here.

    >>> kept_length(641, 0.5), kept_length(323, 0.5), kept_length(1, 0.5), kept_length(0, 0.5)
    (320, 162, 1, 0)
    """
    return min(length, max(1, round(length * (1 - merge_ratio))))


def shorten_rows(
    hidden: Float[Tensor, "batch seq dim"],
    scores: Float[Tensor, "batch seq"],
    spans: Sequence[Spans],
    first: Sequence[int],
    shorten: Callable[[int, Tensor, Tensor, Spans], ShortSequences],
) -> ShortSequences:
    """Shorten every row on its own and pad the results on the left to one length.

    Args:
        hidden: states, (batch, seq, dim), left-padded.
        scores: fp32 score of every token, (batch, seq).
        spans: per row, its video spans.
        first: per row, index of the first real token.
        shorten: makes a row shorter, given its number, and its states, scores and spans without padding.
    """
    rows = []
    for row, (row_spans, begin) in enumerate(zip(spans, first, strict=True)):
        shifted = tuple((start - begin, stop - begin) for start, stop in row_spans)
        rows.append(shorten(row, hidden[row, begin:], scores[row, begin:], shifted))
    return pad_rows(rows, first)


def pad_rows(rows: Sequence[ShortSequences], first: Sequence[int]) -> ShortSequences:
    """Pad shortened sequences on the left to one length.

    Args:
        rows: one sequence per row, its positions counted from the row's first real token.
        first: per row, index of that token in the padded sequence before.
    """
    if len(rows) == 1 and not first[0]:  # nothing to pad, nothing to copy
        (row,) = rows
        return ShortSequences(row.hidden[None], row.kept[None], row.source[None], (0,))
    lengths = [row.kept.shape[0] for row in rows]
    missing = [max(lengths) - length for length in lengths]
    return ShortSequences(
        hidden=torch.stack([pad(row.hidden, (0, 0, gap, 0)) for row, gap in zip(rows, missing, strict=True)]),
        kept=_stack_positions([row.kept for row in rows], first, missing),
        source=_stack_positions([row.source for row in rows], first, first),
        first=tuple(missing),
    )


def _stack_positions(rows: Sequence[Tensor], shifts: Sequence[int], missing: Sequence[int]) -> Tensor:
    """Stack rows of positions, each shifted to the padded sequence and padded on the left with -1; -1 stays -1."""
    parts = zip(rows, shifts, missing, strict=True)
    return torch.stack([pad(torch.where(row < 0, row, row + shift), (gap, 0), value=-1) for row, shift, gap in parts])
