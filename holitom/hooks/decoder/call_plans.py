"""What a forward call of the decoder is going to do, decided and checked before any layer runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from holitom.errors import InputError
from holitom.hooks.decoder.decoder_layers import check_supported, left_padding
from holitom.hooks.decoder.decoder_state import ForwardCall, SequenceState
from holitom.hooks.decoder.inner_record import Counts, read_spans
from holitom.ops.short_sequences import Spans

if TYPE_CHECKING:
    from transformers import Cache


def prompt_spans(cache: Cache | None, video_spans: Tensor | None, inputs: Tensor) -> tuple[Spans, ...]:
    """The video spans of a prefill, (batch, max_spans, 2), as one tuple per row.

    Raises:
        RuntimeError: if the cache is half filled or there are no spans.
        InputError: if the spans do not fit the batch or the sequence.
    """
    if cache is not None and cache.get_seq_length(0) > 0:
        raise RuntimeError("the cache is filled in its first layers only: a prefill was broken off; use a new one")
    if video_spans is None:
        raise RuntimeError(
            "inner compression is applied but the decoder was called without video_spans, so nothing would be "
            "compressed; pass video_spans (shape (batch, 0, 2) for a prompt without video) or call remove()"
        )
    batch, seq = inputs.shape[:2]
    if video_spans.shape[0] != batch:
        raise InputError(f"video_spans has {video_spans.shape[0]} rows: it must have one per sequence, {batch}")
    return read_spans(video_spans, seq)


def plan_prefill(
    cache: Cache | None, padding_mask: Any, inputs: Tensor, spans: tuple[Spans, ...], counts: Sequence[Counts]
) -> ForwardCall:
    """A prefill that shortens ``spans`` to ``counts``, one entry per stage.

    Raises:
        NotImplementedError: for masks, padding or caches that cannot be shortened.
        InputError: if a span starts in the padding.
    """
    batch, seq = inputs.shape[:2]
    check_supported(padding_mask, cache)
    if padding_mask is not None and padding_mask.shape[1] != seq:
        raise NotImplementedError(
            f"attention_mask has {padding_mask.shape[1]} columns for {seq} tokens: prefixes that are not in the "
            "cache are not supported by inner compression"
        )
    first = (0,) * batch if padding_mask is None else left_padding(padding_mask)
    if any(row and row[0][0] < begin for row, begin in zip(spans, first, strict=True)):
        raise InputError(f"video_spans {spans} start in the padding: rows begin at {first}; count from the left")
    state = SequenceState(batch, long_seq=seq, long_cached=seq)
    call = ForwardCall(padding_mask, state, prompt_spans=spans, prompt_first=first, counts=counts)
    call.spans, call.first = spans, first
    return call


def plan_continuation(
    states: Mapping[Cache, SequenceState | None],
    cache: Cache,
    pasts: Sequence[int],
    padding_mask: Any,
    video_spans: Tensor | None,
    inputs: Tensor,
) -> ForwardCall | None:
    """A call on a filled cache; None if its prefill compressed nothing.

    Args:
        states: what is known of the sequences of caches; None of one whose prefill compressed nothing.
        cache: the cache.
        pasts: tokens in the cache of each stage's layer.
        padding_mask: the caller's mask.
        video_spans: the caller's spans.
        inputs: (batch, seq) or (batch, seq, dim).

    Raises:
        NotImplementedError: for a video in a later turn, and for masks that do not fit shortened sequences.
        RuntimeError: if the cache does not continue its prefill.
    """
    if inputs.shape[1] > 1 and video_spans is not None and video_spans.any():
        raise NotImplementedError("a video in a later turn cannot be compressed: only the prefill of a cache is")
    long_past, state = cache.get_seq_length(0), states.get(cache)
    if state is not None:
        check_supported(padding_mask, cache)
        state.check(inputs.shape[0], long_past, pasts)
        return ForwardCall(padding_mask, state, decoding=True)
    if any(past != long_past for past in pasts):
        raise RuntimeError(
            "the cache was filled with inner compression but is not known here: it is a copy, or the hooks were "
            "removed in between; prefill again"
        )
    if cache not in states:
        raise RuntimeError(
            f"the cache holds {long_past} tokens of a prompt that was not compressed here: it is a copy, or was filled "
            "before the stage was applied; prefill again"
        )
    return None
