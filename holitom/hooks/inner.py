"""Inner-LLM merging on a transformers decoder: four kinds of forward pre-hook, all removed by handle.

The decoder's own pre-hook reads the call, the attention of layer K-1 scores the tokens, layer K receives fewer of them
and every layer from K on gets a mask and rotary embeddings of its own length. Layers before K cache the whole prompt,
the others the kept tokens, which hold their original positions; so a decode step only needs another mask.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import Cache
from transformers.masking_utils import create_causal_mask

from holitom.config import InnerConfig
from holitom.hooks.decoder_layers import (
    both_ways_mask,
    check_supported,
    checked_layers,
    left_padding,
    rotary_of,
    score_tokens,
)
from holitom.hooks.decoder_state import ForwardCall, SequenceState
from holitom.hooks.inner_record import InnerRecord, count_kept, count_tokens, read_spans, untouched_record
from holitom.inner_merging import merge_batch
from llava.errors import InputError

HookResult = tuple[tuple[Any, ...], dict[str, Any]] | None


class InnerMerging:
    """Inner stage of HoliTom (Sec. 3.3) on one decoder; ``apply`` and ``remove`` are inverse.

    The decoder's forward must be called with ``video_spans``, int64 (batch, max_spans, 2), ``[start, stop)`` of each
    video in the left-padded sequence, (0, 0) where unused. It is taken out of the call before any layer runs. Several
    unfinished ``generate`` calls may take turns: what is known of a sequence hangs on its cache.

    Attributes:
        config: the settings.
        last: what the latest prefill did, None before the first.
    """

    def __init__(self, config: InnerConfig) -> None:
        self.config = config
        self.last: InnerRecord | None = None
        self._decoder: Any = None
        self._handles: list[RemovableHandle] = []
        self._parameters: tuple[str, ...] = ()
        self._call: ForwardCall | None = None
        self._states: WeakKeyDictionary[Cache, SequenceState] = WeakKeyDictionary()

    def apply(self, decoder: nn.Module) -> "InnerMerging":
        """Register the hooks.

        Args:
            decoder: a ``Qwen2Model`` or a decoder built alike: ``layers[i].self_attn`` with ``q_proj`` and ``k_proj``.

        Raises:
            InputError: if the decoder has no such layers, or not enough of them.
            NotImplementedError: if some of its layers attend to a sliding window.
            RuntimeError: if this object is applied already.
        """
        if self._handles:
            raise RuntimeError("InnerMerging is applied already; call remove() first, or use a second object")
        layers = checked_layers(decoder, self.config.merge_layer)
        merge_layer = self.config.merge_layer
        self._decoder = decoder
        self._parameters = tuple(inspect.signature(decoder.forward).parameters)
        self._handles = [
            decoder.register_forward_pre_hook(self._enter_decoder, with_kwargs=True),
            decoder.register_forward_hook(self._leave_decoder, always_call=True),
            layers[merge_layer - 1].self_attn.register_forward_pre_hook(self._enter_scoring, with_kwargs=True),
            layers[merge_layer].register_forward_pre_hook(self._enter_merge_layer, with_kwargs=True),
        ]
        for layer in layers[merge_layer + 1 :]:
            self._handles.append(layer.register_forward_pre_hook(self._enter_later_layer, with_kwargs=True))
        return self

    def remove(self) -> None:
        """Remove the hooks; the decoder is what it was. Nothing happens if they are not applied."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._states.clear()
        self._decoder = self._call = None

    @contextmanager
    def applied(self, decoder: nn.Module) -> Iterator["InnerMerging"]:
        """Hooks on ``decoder`` for the length of a ``with`` block."""
        self.apply(decoder)
        try:
            yield self
        finally:
            self.remove()

    def align(self, labels: Tensor) -> Tensor:
        """Labels of the tokens that the latest prefill kept, (batch, seq) to (batch, short_seq), padding -100.

        Raises:
            RuntimeError: before the first prefill.
            InputError: if the labels have not the shape of that prefill.
        """
        if self.last is None:
            raise RuntimeError("there was no prefill yet: run the model once before aligning labels")
        return self.last.align(labels)

    def _enter_decoder(self, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> HookResult:
        """Pre-hook of the decoder: take ``video_spans`` out of the call and decide what this call is."""
        self._call = None
        kwargs = {**dict(zip(self._parameters, args, strict=False)), **kwargs}
        video_spans = kwargs.pop("video_spans", None)
        inputs = kwargs.get("inputs_embeds")
        inputs = kwargs.get("input_ids") if inputs is None else inputs
        if inputs is None or (self.config.merge_ratio == 0 and video_spans is None):
            return (), kwargs
        padding_mask, cache = kwargs.get("attention_mask"), kwargs.get("past_key_values")
        if cache is not None and cache.get_seq_length(self.config.merge_layer) > 0:
            self._call = self._continued(cache, padding_mask, video_spans, inputs)
        else:
            self._call = self._prefill(cache, padding_mask, video_spans, inputs)
        return (), kwargs

    def _prefill(
        self, cache: Cache | None, padding_mask: Any, video_spans: Tensor | None, inputs: Tensor
    ) -> ForwardCall | None:
        """Plan of a prefill; None if it has nothing to merge and passes through."""
        if cache is not None and cache.get_seq_length(0) > 0:
            raise RuntimeError("the cache is filled in its first layers only: a prefill was broken off; use a new one")
        if video_spans is None:
            raise RuntimeError(
                "inner merging is applied but the decoder was called without video_spans, so nothing would be merged; "
                "pass video_spans (shape (batch, 0, 2) for a prompt without video) or call remove()"
            )
        batch, seq = inputs.shape[:2]
        if video_spans.shape[0] != batch:
            raise InputError(f"video_spans has {video_spans.shape[0]} rows: it must have one per sequence, {batch}")
        if cache is not None:
            self._states.pop(cache, None)
        spans = read_spans(video_spans, seq)
        if count_kept(spans, self.config.merge_ratio) == count_tokens(spans):
            self.last = untouched_record(spans, padding_mask, inputs)
            return None
        check_supported(padding_mask, cache)
        if padding_mask is not None and padding_mask.shape[1] != seq:
            raise NotImplementedError(
                f"attention_mask has {padding_mask.shape[1]} columns for {seq} tokens: prefixes that are not in the "
                "cache are not supported by inner merging"
            )
        first = (0,) * batch if padding_mask is None else left_padding(padding_mask)
        if any(row and row[0][0] < begin for row, begin in zip(spans, first, strict=True)):
            raise InputError(f"video_spans {spans} start in the padding: rows begin at {first}; count from the left")
        return ForwardCall(padding_mask, spans, first)

    def _continued(
        self, cache: Cache, padding_mask: Any, video_spans: Tensor | None, inputs: Tensor
    ) -> ForwardCall | None:
        """Plan of a call on a filled cache; None if its prefill merged nothing."""
        if inputs.shape[1] > 1 and video_spans is not None and video_spans.any():
            raise NotImplementedError("a video in a later turn cannot be merged: only the prefill of a cache merges")
        long_past, short_past = cache.get_seq_length(0), cache.get_seq_length(self.config.merge_layer)
        state = self._states.get(cache)
        if state is not None:
            check_supported(padding_mask, cache)
            state.check(inputs.shape[0], long_past, short_past)
            return ForwardCall(padding_mask, state=state)
        if long_past != short_past:
            raise RuntimeError(
                "the cache was filled with inner merging but is not known here: it is a copy, or the hooks were "
                "removed in between; prefill again"
            )
        return None

    def _leave_decoder(self, *_: Any) -> None:
        """Forward hook of the decoder, also after an exception: a call leaves nothing behind but its cache's state."""
        self._call = None

    def _enter_scoring(self, attention: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> HookResult:
        """Pre-hook of layer K-1's attention: score the tokens in a prefill; undo its causal mask if asked to."""
        call = self._call
        if call is None or call.state is not None:
            return None
        hidden = kwargs["hidden_states"]
        call.scores = score_tokens(attention, hidden, kwargs["position_embeddings"], call.prompt_padding)
        if not self.config.causal:
            mask = both_ways_mask(self._decoder.config, hidden, call.prompt_padding, [bool(row) for row in call.spans])
            kwargs = {**kwargs, "attention_mask": mask, "is_causal": False}
        return args, kwargs

    def _enter_merge_layer(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> HookResult:
        """Pre-hook of layer K: merge in a prefill; in both cases make the mask of the short layers."""
        call = self._call
        if call is None:
            return None
        hidden, cache, incoming = args[0], kwargs.get("past_key_values"), 0
        if call.state is None:
            hidden, call.state = self._merge(call, hidden, kwargs["position_embeddings"])
            if cache is not None:
                self._states[cache] = call.state
        else:
            assert cache is not None
            short_past = cache.get_seq_length(self.config.merge_layer)
            incoming = short_past - call.state.short_seq + hidden.shape[1]
        real_tokens = call.real_tokens(incoming, kwargs.get("attention_mask"))
        call.mask = self._short_mask(hidden, real_tokens, cache)
        return (hidden, *args[1:]), _short_arguments(call, hidden, kwargs)

    def _enter_later_layer(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> HookResult:
        """Pre-hook of the layers after K: hand them what layer K got instead of the long mask and positions."""
        if self._call is None:
            return None
        return args, _short_arguments(self._call, args[0], kwargs)

    def _merge(
        self, call: ForwardCall, hidden: Tensor, position_embeddings: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, SequenceState]:
        """Merge the states that enter layer K; note what was done and return them with the new lengths."""
        assert call.scores is not None
        ratio, scores = self.config.merge_ratio, call.scores.to(hidden.device)
        merged = merge_batch(hidden, scores, call.spans, call.first, ratio, self.config.merge_rule)
        real_tokens = merged.kept >= 0 if merged.padded else None
        call.position_embeddings = rotary_of(merged.kept, position_embeddings)
        counts = count_tokens(call.spans), count_kept(call.spans, ratio)
        self.last = InnerRecord(call.spans, *counts, merged.kept, merged.source, scores)
        batch, seq, _ = hidden.shape
        return merged.hidden, SequenceState(batch, seq, merged.hidden.shape[1], real_tokens)

    def _short_mask(self, hidden: Tensor, real_tokens: Tensor | None, cache: Cache | None) -> Tensor | None:
        """Causal mask of the short layers, sized by layer K of the cache.

        No positions are passed: those of kept tokens have gaps, which transformers takes for packed sequences. Where
        there is padding the mask is made without asking whether it could be left out, which would wait for the device.
        """
        return create_causal_mask(
            config=self._decoder.config,
            inputs_embeds=hidden,
            attention_mask=real_tokens,
            past_key_values=cache,
            layer_idx=self.config.merge_layer,
            allow_is_causal_skip=real_tokens is None,
        )


def _short_arguments(call: ForwardCall, hidden: Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments of a layer from K on: its own mask, its own rotary embeddings, no positions."""
    replaced = {**kwargs, "attention_mask": _on(call.mask, hidden.device), "position_ids": None}
    if call.position_embeddings is not None:
        cos, sin = call.position_embeddings
        replaced["position_embeddings"] = (cos.to(hidden.device), sin.to(hidden.device))
    return replaced


def _on(tensor: Tensor | None, device: torch.device) -> Tensor | None:
    return None if tensor is None else tensor.to(device)
