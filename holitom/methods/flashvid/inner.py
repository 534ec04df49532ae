"""FlashVID's pruning inside the LLM (arXiv 2602.08024): FastV's rule, late, with the newline behind a video exempt."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from holitom.hooks.decoder.decoder_state import ForwardCall
from holitom.hooks.decoder.inner_record import Counts
from holitom.hooks.decoder.rules import DecoderStage, StageRules, stage_counts
from holitom.hooks.decoder.staged import StagedCompression
from holitom.ops.pruning import prune_batch
from holitom.ops.short_sequences import ShortSequences, Spans


def pruned_length(tokens: int, keep_ratio: float) -> int:
    """Visual tokens left of a video, rounded up.

    >>> [pruned_length(tokens, 0.3) for tokens in (1984, 1568, 1184, 800, 81)]
    [596, 471, 356, 240, 25]
    """
    return math.ceil(keep_ratio * tokens)


def late_pruning(layer: int, keep_ratio: float) -> StagedCompression:
    """Inner stage of FlashVID, applied to no decoder yet.

    The attention of the layer before ``layer`` scores the tokens, ``layer`` receives the best ones, at their positions.
    The one newline token behind a video is not counted and always kept; newline tokens inside a video (after its grid
    rows or frames) are counted and ranked like the others.

    Args:
        layer: index of the first layer that sees fewer tokens.
        keep_ratio: share of a video's tokens that it sees, in (0, 1].
    """
    kept = partial(pruned_length, keep_ratio=keep_ratio)
    stage = DecoderStage(layer, kept, "prune_layer", keeps_all=keep_ratio == 1)
    return StagedCompression([stage], StageRules(reduce, plan=partial(plan, keep_ratio=keep_ratio)))


def plan(
    stages: Sequence[DecoderStage], spans: tuple[Spans, ...], outer: Any, keep_ratio: float
) -> tuple[list[Counts], bool]:
    """Tokens left of every span, and whether each ends in a newline that is outside what is pruned."""
    exempt = getattr(outer, "newline_mode", "no_token") == "one_token"
    kept = partial(kept_with_newline, keep_ratio=keep_ratio, exempt=exempt)
    return stage_counts([replace(stage, kept=kept) for stage in stages], spans), exempt


def kept_with_newline(length: int, keep_ratio: float, exempt: bool) -> int:
    """Tokens left of a span, whose last token does not count if it is ``exempt``."""
    visual = max(0, length - exempt)
    return pruned_length(visual, keep_ratio) + length - visual


def reduce(call: ForwardCall, counts: Counts, hidden: Tensor, scores: Tensor) -> ShortSequences:
    """Keep the best tokens of every span, and the newline behind it."""
    if call.notes:
        scores = _raised(scores, call.spans)
    return prune_batch(hidden, scores, call.spans, call.first, counts)


def _raised(scores: Tensor, spans: tuple[Spans, ...]) -> Tensor:
    """Scores with the last token of every span above all others."""
    ends = [(row, stop - 1) for row, parts in enumerate(spans) for start, stop in parts if stop > start]
    raised = scores.clone()
    for row, place in ends:
        raised[row, place] = torch.inf
    return raised
