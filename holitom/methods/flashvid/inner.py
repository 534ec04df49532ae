"""FlashVID's pruning inside the LLM (arXiv 2602.08024): FastV's rule, late, with the newline behind a video exempt."""

import math

import torch
from torch import Tensor

from holitom.hooks.decoder.decoder_state import ForwardCall
from holitom.hooks.decoder.inner_record import Counts
from holitom.hooks.decoder.staged import StagedCompression, StageRules
from holitom.hooks.decoder.stages import Stage
from holitom.ops.pruning import prune_batch
from holitom.ops.short_sequences import MergedBatch, Spans


def pruned_length(tokens: int, keep_ratio: float) -> int:
    """Visual tokens left of a video, rounded up.

    >>> [pruned_length(tokens, 0.3) for tokens in (1984, 1568, 1184, 800, 81)]
    [596, 471, 356, 240, 25]
    """
    return math.ceil(keep_ratio * tokens)


class FlashVidInner(StagedCompression):
    """Inner stage of FlashVID on one decoder; see :class:`~holitom.hooks.staged.StagedCompression`.

    The attention of the layer before ``layer`` scores the tokens, ``layer`` receives the best ones, at their positions.
    The one newline token behind a video is not counted and always kept; newline tokens inside a video (after its grid
    rows or frames) are counted and ranked like the others.

    Args:
        layer: index of the first layer that sees fewer tokens.
        keep_ratio: share of a video's tokens that it sees, in (0, 1].
    """

    def __init__(self, layer: int, keep_ratio: float) -> None:
        self.keep_ratio = keep_ratio
        self._outer: object = None
        stage = Stage(layer, self._kept, "prune_layer", keeps_all=keep_ratio == 1)
        super().__init__([stage], StageRules(self._reduce))

    def start_prompt(self, record: object) -> None:
        """See :class:`~holitom.compressor.InnerStage`; the record says how newline tokens stand."""
        super().start_prompt(record)
        self._outer = record

    @property
    def _exempt(self) -> int:
        """Newline tokens behind a video that are outside what is pruned."""
        return int(getattr(self._outer, "newline_mode", "no_token") == "one_token")

    def _kept(self, length: int) -> int:
        """Tokens left of a span."""
        visual = max(0, length - self._exempt)
        return pruned_length(visual, self.keep_ratio) + length - visual

    def _reduce(self, call: ForwardCall, counts: Counts, hidden: Tensor, scores: Tensor) -> MergedBatch:
        """Keep the best tokens of every span, and the newline behind it."""
        if self._exempt:
            scores = _raised(scores, call.spans)
        return prune_batch(hidden, scores, call.spans, call.first, counts)


def _raised(scores: Tensor, spans: tuple[Spans, ...]) -> Tensor:
    """Scores with the last token of every span above all others."""
    ends = [(row, stop - 1) for row, parts in enumerate(spans) for start, stop in parts if stop > start]
    raised = scores.clone()
    for row, place in ends:
        raised[row, place] = torch.inf
    return raised
