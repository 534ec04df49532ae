"""Which spans a prefill compresses, and the record of what it did."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from holitom.errors import InputError
from holitom.ops.short_sequences import Spans
from holitom.tokens import CompressedTokens

NO_LABEL = -100
Counts = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class StageRecord:
    """What one stage did in the latest prefill.

    Attributes:
        layer: first decoder layer that sees the shorter sequence.
        tokens_after: per row, tokens of each span from this layer on.
        kept: (batch, short_seq) int64 positions of the kept tokens in the sequence before the first stage; -1 for
            padding.
        source: (batch, seq) int64, for every token before the first stage the position of the kept token that stands
            for it from this layer on; -1 for padding and for tokens that were dropped.
        scores: (batch, seq) fp32 scores of the tokens that entered the stage.
    """

    layer: int
    tokens_after: Counts
    kept: Tensor
    source: Tensor
    scores: Tensor


@dataclass(frozen=True)
class InnerRecord:
    """What the latest prefill did. The tensors stay on their device until a ``cpu_*`` view is asked for.

    Attributes:
        spans: per row, ``[start, stop)`` of its video spans in the sequence before, in reading order.
        tokens_before: per row, tokens of each span before.
        tokens_after: per row, tokens of each span after the last stage.
        kept: (batch, short_seq) int64 positions of the tokens that the last stage keeps; -1 for padding.
        source: (batch, seq) int64, for every token the position of the kept token it went to; -1 for padding and for
            tokens that were dropped.
        scores: (batch, seq) fp32 scores of the first stage; None if nothing was compressed.
        stages: what each stage did, in the order of the layers; empty if nothing was compressed.
        order: (batch, seq) int64, the place in the sequence of each token in the order that ``spans`` count in; None
            where a video's tokens are in one piece, so that they count places.
    """

    spans: tuple[Spans, ...]
    tokens_before: Counts
    tokens_after: Counts
    kept: Tensor
    source: Tensor
    scores: Tensor | None
    stages: tuple[StageRecord, ...] = ()
    order: Tensor | None = None

    @classmethod
    def of(cls, spans: tuple[Spans, ...], stages: Sequence[StageRecord], order: Tensor | None) -> Self:
        """From what the stages did."""
        last, before = stages[-1], count_tokens(spans)
        found = (before, last.tokens_after, last.kept, last.source, stages[0].scores)
        return cls(spans, *found, tuple(stages), order)

    def tokens_per_layer(self, layers: int) -> list[list[int]]:
        """Tokens that each layer computes in the prefill: per video span in prompt order, ``layers`` counts.

        The rows of a batch follow one another. A newline token inside a span counts as one of its tokens.

        Args:
            layers: number of decoder layers.
        """
        table = []
        for row, spans in enumerate(self.spans):
            for span in range(len(spans)):
                counts = [self.tokens_before[row][span]] * layers
                for stage in self.stages:
                    counts[stage.layer :] = [stage.tokens_after[row][span]] * (layers - stage.layer)
                table.append(counts)
        return table

    @cached_property
    def cpu_kept(self) -> Tensor:
        """``kept`` on the CPU; transferred once."""
        return self.kept.cpu()

    @cached_property
    def cpu_source(self) -> Tensor:
        """``source`` on the CPU; transferred once."""
        return self.source.cpu()

    @cached_property
    def cpu_scores(self) -> Tensor | None:
        """``scores`` on the CPU; transferred once."""
        return None if self.scores is None else self.scores.cpu()

    def align(self, labels: Shaped[Tensor, "batch seq"]) -> Shaped[Tensor, "batch short_seq"]:
        """Labels of the kept tokens; padding becomes -100, which every loss of transformers ignores.

        Raises:
            InputError: if ``labels`` has not the shape of the sequence before the merge.
        """
        if labels.shape != self.source.shape:
            raise InputError(
                f"labels of shape {tuple(labels.shape)} do not fit: the latest prefill had (batch, seq) = "
                f"{tuple(self.source.shape)}; give the labels of that prefill"
            )
        kept = self.kept.to(labels.device)
        return labels.gather(1, kept.clamp(min=0)).masked_fill(kept < 0, NO_LABEL)


def read_spans(video_spans: Int[Tensor, "batch max_spans 2"], seq: int) -> tuple[Spans, ...]:
    """Non-empty ``[start, stop)`` spans of every row, in reading order.

    Raises:
        InputError: if a span leaves the sequence or overlaps another.
    """
    rows = []
    for row in video_spans.tolist():
        spans = tuple(sorted((start, stop) for start, stop in row if start != stop))
        bounds = [0, *(bound for span in spans for bound in span), seq]
        if bounds != sorted(bounds):
            raise InputError(
                f"video_spans {list(spans)} are out of range: spans must be disjoint and lie in [0, {seq}]; "
                "give [start, stop) of each video in the padded sequence"
            )
        rows.append(spans)
    return tuple(rows)


def count_tokens(spans: Sequence[Spans]) -> Counts:
    """Tokens of every span of every row."""
    return tuple(tuple(stop - start for start, stop in row) for row in spans)


def shortened_spans(
    spans: Sequence[Spans], counts: Counts, first: Sequence[int], first_after: Sequence[int]
) -> tuple[Spans, ...]:
    """Where the spans lie once each of them has ``counts`` tokens.

    Args:
        spans: per row, the spans before.
        counts: per row, tokens of each span after.
        first: per row, index of its first real token before.
        first_after: the same after.
    """
    rows = []
    for row, row_counts, begin, begin_after in zip(spans, counts, first, first_after, strict=True):
        moved, shift = [], begin_after - begin
        for (start, stop), count in zip(row, row_counts, strict=True):
            moved.append((start + shift, start + shift + count))
            shift -= stop - start - count
        rows.append(tuple(moved))
    return tuple(rows)


def untouched_record(
    spans: tuple[Spans, ...], padding_mask: object, inputs: Tensor, order: Tensor | None = None
) -> InnerRecord:
    """Record of a prefill that passes through; ``inputs`` is (batch, seq) or (batch, seq, dim)."""
    positions = torch.arange(inputs.shape[1], device=inputs.device).expand(inputs.shape[:2])
    if isinstance(padding_mask, Tensor) and padding_mask.ndim == 2:
        real = padding_mask[:, -inputs.shape[1] :].to(inputs.device) != 0
        positions = torch.where(real, positions, -1)
    counts = count_tokens(spans)
    return InnerRecord(spans, counts, counts, positions, positions, None, order=order)


def places_in_span(video: CompressedTokens, newline_mode: str) -> Int[Tensor, " kept"]:
    """Where the tokens of a video stand in its span, with the newlines of rows or frames between them.

    Only videos of our runtime have such newlines, whose module others need not import.
    """
    rows = torch.arange(len(video.index), device=video.index.device)
    if newline_mode not in ("grid", "frame"):
        return rows
    from llava.model.newlines import newlines_before  # noqa: PLC0415

    return rows + newlines_before(video.index, newline_mode, video.details.tokens_per_frame, video.every_row)
