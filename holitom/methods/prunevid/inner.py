"""PruneVid's question-guided pruning inside the LLM, of the prompt and of the caches of all layers."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.functional import pad

from holitom.checks import require_integer, require_within
from holitom.hooks.decoder.decoder_layers import heads_of
from holitom.hooks.decoder.decoder_state import ForwardCall
from holitom.hooks.decoder.inner_record import Counts, places_in_span
from holitom.hooks.decoder.rules import DecoderStage, StageRules
from holitom.hooks.decoder.staged import StagedCompression
from holitom.hooks.decoder.tensor_parallel import over_all_heads
from holitom.ops.pruning import best_of_groups, keep_chosen, truncated_length
from holitom.ops.short_sequences import ShortSequences, Spans, shorten_rows


@dataclass(frozen=True)
class _SpanGroups:
    """Groups of one span: each token's group, (span,), and the tokens to keep of each group."""

    group: Tensor
    quotas: list[int]


def question_pruning(layer: int = 10, keep_ratio: float = 0.4) -> StagedCompression:
    """Inner stage of PruneVid (ACL 2025 Findings, Sec. 3.3), applied to no decoder yet.

    Once layer ``layer`` has run, the visual tokens are ranked by the largest attention that any head of it pays them
    from any text token after their video (from the last token if there is none), without rotary embedding and causal
    mask, normalised over the whole sequence. Of each group of the outer stage (a window's static tokens, a frame's
    dynamic tokens) the best ones are kept, in the later layers and in the caches of all layers, at their original
    positions. The compressor hands over the outer stage's groups; without them a video is one group. Newline tokens are
    kept. A video keeps at least one token besides them, since truncation may leave nothing of small groups.

    Args:
        layer: index of the layer that scores; the one after it is the first to see fewer tokens.
        keep_ratio: share of each group that is kept, in (0, 1], cut to an integer.

    Raises:
        InputError: for settings out of range.
    """
    require_integer("layer", layer, 0, "the paper uses 10")
    require_within("keep_ratio", keep_ratio, "(0, 1]", "the paper uses 0.4")
    setting = "layer + 1 of PruneVid's inner stage"
    stage = DecoderStage(layer + 1, lambda length: length, setting, keeps_all=keep_ratio == 1, shrinks_cache=True)
    return StagedCompression([stage], StageRules(reduce, score, partial(plan, keep_ratio=keep_ratio)))


def plan(
    stages: Sequence[DecoderStage], spans: tuple[Spans, ...], outer: Any, keep_ratio: float
) -> tuple[list[Counts], list[list[_SpanGroups]]]:
    """Tokens left of every span, and the groups of every span of every row, found with one transfer per video.

    Raises:
        RuntimeError: if the outer stage saw other videos than the prompt has.
    """
    videos = list(outer.videos) if outer is not None else []
    total = sum(len(row) for row in spans)
    repeats = total // len(videos) if videos else 1  # beams repeat every row
    if videos and (repeats * len(videos) != total or sum(len(row) for row in spans[::repeats]) != len(videos)):
        raise RuntimeError(f"the outer stage compressed {len(videos)} videos, the prompt has {total}: encode anew")
    rows, done = [], 0
    for row_spans in spans[::repeats]:
        lengths = [stop - start for start, stop in row_spans]
        own = videos[done : done + len(lengths)] if videos else [None] * len(lengths)
        row = [_span_groups(length, video, outer, keep_ratio) for length, video in zip(lengths, own, strict=True)]
        rows += [row] * repeats
        done += len(lengths)
    return [tuple(tuple(sum(span.quotas) for span in row) for row in rows)], rows


def _span_groups(length: int, video: Any, outer: Any, keep_ratio: float) -> _SpanGroups:
    """Groups of one span; the last one is that of its newline tokens."""
    places = numbers = torch.zeros(length, dtype=torch.long)
    if video is None:
        places = torch.arange(length)
    else:
        places = places_in_span(video, outer.newline_mode)
        numbers = getattr(video.details, "group", torch.zeros_like(places))
        places, numbers = torch.stack([places, numbers]).cpu()
        if len(places) > length or int(places[-1]) >= length:
            raise RuntimeError(f"the outer stage kept {len(places)} tokens, the span has {length}: encode anew")
    newlines = int(numbers.max()) + 1
    group = torch.full((length,), newlines).index_copy_(0, places, numbers)
    *sizes, ends = torch.bincount(group, minlength=newlines + 1).tolist()
    quotas = [int(size * keep_ratio) for size in sizes]
    if any(quotas):
        return _SpanGroups(group, [*quotas, ends])
    return _SpanGroups((group == newlines).long(), [truncated_length(sum(sizes), keep_ratio), ends])


@torch.no_grad()
def score(call: ForwardCall, attention: Any, hidden: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """(batch, seq) fp32: the largest attention of a text token after the video; 0 outside the videos."""
    scores = torch.zeros(hidden.shape[:2], dtype=torch.float32, device=hidden.device)
    for row, (spans, begin) in enumerate(zip(call.spans, call.first, strict=True)):
        if not spans:
            continue
        states = hidden[row : row + 1, begin:]
        text = text_after(spans, hidden.shape[1])
        asking = text if len(text) and text[-1] >= spans[-1][1] else pad(text, (0, 1), value=hidden.shape[1] - 1)
        key = heads_of(attention, "k", states)[0].float()
        query = heads_of(attention, "q", hidden[row : row + 1, asking.to(hidden.device)])[0].float()
        key = key.repeat_interleave(query.shape[0] // key.shape[0], dim=0)
        largest = ((query * attention.scaling) @ key.transpose(-1, -2)).softmax(dim=-1).amax(dim=0)
        for start, stop in spans:
            earlier = int((text < stop).sum())
            rows = largest[earlier : len(text)] if earlier < len(text) else largest[-1:]
            scores[row, start:stop] = rows[:, start - begin : stop - begin].amax(dim=0)
    return over_all_heads(attention, scores, "max")


def reduce(call: ForwardCall, counts: Counts, hidden: Tensor, scores: Tensor) -> ShortSequences:
    """Keep the best tokens of every group."""

    def best(row: int, states: Tensor, own: Tensor, spans: Spans) -> ShortSequences:
        chosen = [
            best_of_groups(own[start:stop], groups.group.to(states.device), groups.quotas)
            for (start, stop), groups in zip(spans, call.notes[row], strict=True)
        ]
        return keep_chosen(states, spans, chosen)

    return shorten_rows(hidden, scores, call.spans, call.first, best)


def text_after(spans: Spans, seq: int) -> Int[Tensor, " text"]:
    """Places after the first span that are in no span, ascending, on the CPU."""
    outside = torch.arange(seq) >= spans[0][1]
    for start, stop in spans:
        outside[start:stop] = False
    return outside.nonzero().flatten()
