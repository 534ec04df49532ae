"""DyCoke's pruning of the KV cache while decoding: a selection per step, nothing is deleted."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from holitom.checks import require_integer, require_within
from holitom.errors import InputError
from holitom.hooks.call_names import argument, cache_given, cache_in, causal_mask, check_call
from holitom.hooks.compiled import refuse_compiled, refuse_tracing
from holitom.hooks.decoder.call_plans import prompt_spans
from holitom.hooks.decoder.decoder_layers import ask_keys, check_supported, checked_layers, left_padding
from holitom.hooks.decoder.inner_record import InnerRecord, untouched_record
from holitom.hooks.decoder.video_order import in_reading_order, in_video_order
from holitom.hooks.hook_set import HookResult, HookSet
from holitom.hooks.per_thread import PerThread
from holitom.ops.pruning import truncated_length
from holitom.ops.short_sequences import Spans

if TYPE_CHECKING:
    from transformers import Cache


@dataclass
class _Sequence:
    """What is known of one sequence as long as its cache lives."""

    batch: int
    prompt_seq: int
    spans: tuple[Spans, ...]
    attention: Tensor | None = None  # (batch, prompt_seq) of the previous decode step
    order: Tensor | None = None  # (batch, prompt_seq), which the spans count in; see holitom.hooks.decoder.video_order


@dataclass
class _Call:
    """One forward call."""

    sequence: _Sequence
    padding_mask: Tensor | None
    step: bool
    masked: bool = False  # whether ``mask`` was made; flash attention has none where nothing is left out
    mask: Tensor | None = None


def attended_entries(
    attention: Float[Tensor, "batch seq"],
    previous: Float[Tensor, "batch long_seq"] | None,
    spans: tuple[Spans, ...],
    prune_ratio: float,
    similarity_threshold: float,
) -> Bool[Tensor, "batch seq"]:
    """Cache entries that the later layers attend to in one decode step.

    DyCoke, Sec. 3.3. Of a video whose attention changed since the previous step (cosine similarity below the threshold;
    always in the first step) the best-scored entries are attended to, of equal scores the earlier one; otherwise all
    of them are. Every entry outside the videos is.

    Args:
        attention: attention of the current token to the cache, averaged over the heads.
        previous: the same in the step before, or None in the first.
        spans: per row, the videos.
        prune_ratio: share of a video's entries that is left out; the rest is cut to an integer, at least one.
        similarity_threshold: similarity from which on nothing is left out.
    """
    attended = torch.ones_like(attention, dtype=torch.bool)
    for row, row_spans in enumerate(spans):
        for start, stop in row_spans:
            now = attention[row, start:stop]
            count = truncated_length(stop - start, 1 - prune_ratio)
            best = now.argsort(descending=True, stable=True)[:count]
            chosen = torch.zeros_like(attended[row, start:stop]).index_fill_(0, best, True)
            if previous is not None:
                similarity = cosine_similarity(now, previous[row, start:stop], dim=0)
                chosen = chosen | (similarity >= similarity_threshold)
            attended[row, start:stop] = chosen
    return attended


class DycokeDecodePruning(HookSet):
    """Inner stage of DyCoke (CVPR 2025, Sec. 3.3) on one decoder; ``apply`` and ``remove`` are inverse.

    In each decode step layer ``layer`` and those after it attend to a part of every video's cache entries, chosen by
    the attention of the layer before. The prefill, and so the first token and the FLOPs of the prompt, is the plain
    model's; so are later turns of several tokens and decoding without a cache. The decoder is called with
    ``video_spans`` as :class:`~holitom.hooks.decoder.staged.StagedCompression` describes; a video's newline tokens
    belong to it. (The released code takes a span that begins at entry 14, whatever the prompt, and is one entry shorter
    than what pruning left.) Works with every attention that takes a mask from transformers. With beam search a beam is
    compared with the beam that stood in its row a step before.

    Args:
        layer: first decoder layer that attends to fewer entries; at least 1.
        prune_ratio: share of a video's entries that is left out, in [0, 1); the rest is cut to an integer, at least
            one.
        similarity_threshold: a step whose attention to a video is at least this similar to that of the step before
            attends to the whole video, as the released code does.

    Attributes:
        last: record of the latest prefill, which drops nothing.
        attended: (batch, seq) bool, cache entries that the latest decode step attended to; None before the first.

    Raises:
        InputError: for settings out of range.
    """

    _call = PerThread[_Call]()  # the forward call that is running

    def __init__(self, layer: int = 3, prune_ratio: float = 0.7, similarity_threshold: float = 0.9) -> None:
        super().__init__()
        require_integer("layer", layer, 1, "the paper uses 3")
        require_within("prune_ratio", prune_ratio, "[0, 1)", "the paper uses 0.7")
        require_within("similarity_threshold", similarity_threshold, "[-1, 1]", "the release uses 0.9")
        self.layer, self.prune_ratio, self.similarity_threshold = layer, prune_ratio, similarity_threshold
        self.last: InnerRecord | None = None
        self.attended: Tensor | None = None
        self._decoder: Any = None
        self._parameters: tuple[str, ...] = ()
        self._sequences: WeakKeyDictionary[Cache, _Sequence] = WeakKeyDictionary()

    def _register(self, decoder: nn.Module) -> None:
        refuse_compiled(decoder)
        layers = checked_layers(decoder, self.layer, "decode.layer")
        check_call(decoder, "attention_mask", "position_ids", "inputs_embeds")
        check_call(layers[self.layer], "attention_mask")
        self._decoder = decoder
        self._parameters = tuple(inspect.signature(decoder.forward).parameters)
        self._handles += [
            decoder.register_forward_pre_hook(self._enter_decoder, with_kwargs=True),
            decoder.register_forward_hook(self._leave_decoder, always_call=True),
            layers[self.layer - 1].self_attn.register_forward_hook(self._leave_scoring, with_kwargs=True),
            *(layer.register_forward_pre_hook(self._enter_layer, with_kwargs=True) for layer in layers[self.layer :]),
        ]

    def _forget(self) -> None:
        self._sequences.clear()
        self._call = None
        self._decoder = None

    def start_prompt(self, record: Any) -> None:
        """See :class:`~holitom.stages.InnerStage`."""
        self.last = None

    def align(self, labels: Tensor) -> Tensor:
        """Labels stay what they are: a prefill keeps every token."""
        return labels

    def layer_prompts(self, cache: Cache) -> None:
        """See :class:`~holitom.stages.InnerStage`: only a prompt whose steps attend to everything may pass."""
        sequence = self._sequences.get(cache)
        if self.prune_ratio > 0 and (sequence is None or any(sequence.spans)):
            raise InputError(
                "DyCoke's pruning chooses cache entries anew in every decode step, which static decoding would pass "
                "by: use decoding='preallocated' or 'eager', or the method without its pruning"
            )

    def _enter_decoder(self, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> HookResult:
        """Pre-hook of the decoder: take ``video_spans`` out of the call and decide what this call is."""
        refuse_tracing()
        self._call = None
        kwargs = {**dict(zip(self._parameters, args, strict=False)), **kwargs}
        video_spans, order = kwargs.pop("video_spans", None), kwargs.pop("video_order", None)
        inputs = kwargs.get("inputs_embeds")
        inputs = kwargs.get("input_ids") if inputs is None else inputs
        if inputs is None or (video_spans is None and self.prune_ratio == 0):
            return (), kwargs
        cache, padding_mask = cache_in(kwargs), kwargs.get("attention_mask")
        if cache is not None and cache.get_seq_length(self.layer) > 0:
            self._call = self._continued(cache, padding_mask, inputs)
        else:
            refuse_compiled(decoder)
            spans = prompt_spans(cache, video_spans, inputs)
            if any(spans) and self.prune_ratio > 0:
                check_supported(padding_mask, cache)
                first = left_padding(padding_mask) if padding_mask is not None else (0,) * len(spans)
                if any(row and row[0][0] < begin for row, begin in zip(spans, first, strict=True)):
                    raise InputError(f"video_spans {spans} start in the padding: rows begin at {first}")
            self.last, self.attended = untouched_record(spans, padding_mask, inputs, order), None
            sequence = _Sequence(inputs.shape[0], inputs.shape[1], spans, order=order)
            self._call = _Call(sequence, padding_mask, step=False)
        return (), kwargs

    def _continued(self, cache: Cache, padding_mask: Any, inputs: Tensor) -> _Call | None:
        """Plan of a call on a filled cache; None if it attends to everything."""
        sequence, past = self._sequences.get(cache), cache.get_seq_length(self.layer)
        if sequence is None:
            raise RuntimeError(
                "the cache was not filled under decode pruning, or is a copy: its videos are unknown; prefill again"
            )
        if inputs.shape[0] != sequence.batch or past < sequence.prompt_seq:
            raise RuntimeError(
                f"the cache was filled with {sequence.batch} rows of {sequence.prompt_seq} tokens and is continued "
                f"with {inputs.shape[0]} rows after {past} tokens: it no longer holds its prompt; prefill again"
            )
        if not any(sequence.spans) or self.prune_ratio == 0:
            return None
        if inputs.shape[1] > 1:
            sequence.attention = None
            return None
        check_supported(padding_mask, cache)
        if padding_mask is not None and padding_mask.shape[1] != past + 1:
            raise InputError(
                f"attention_mask has {padding_mask.shape[1]} columns: it must cover all {past} + 1 tokens of the "
                "prompt and after it; extend the mask of the prompt"
            )
        return _Call(sequence, padding_mask, step=True)

    def _leave_decoder(self, *_: Any) -> None:
        """Forward hook of the decoder, also after an exception."""
        self._call = None

    def _leave_scoring(self, attention: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Forward hook of the attention before ``layer``, whose cache holds the current token now: choose entries."""
        call = self._call
        if call is None or not call.step:
            return
        hidden, cache, sequence = argument(kwargs, "hidden_states"), cache_given(kwargs), call.sequence
        key, padding_mask = cache.layers[attention.layer_idx].keys, call.padding_mask
        scores = ask_keys(attention, hidden, argument(kwargs, "position_embeddings"), key, padding_mask)
        previous = None if sequence.attention is None else sequence.attention.to(scores.device)
        ratios, seq = (self.prune_ratio, self.similarity_threshold), sequence.prompt_seq
        sequence.attention = in_video_order(scores[:, :seq], sequence.order)
        attended = attended_entries(
            torch.cat([sequence.attention, scores[:, seq:]], 1), previous, sequence.spans, *ratios
        )
        attended = torch.cat([in_reading_order(attended[:, :seq], sequence.order), attended[:, seq:]], 1)
        if padding_mask is not None:
            attended &= padding_mask.to(attended.device).bool()
        self.attended = attended

    def _enter_layer(self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> HookResult:
        """Pre-hook of ``layer`` and those after it: note the prompt's cache, or hand over the step's mask."""
        call = self._call
        if call is None:
            return None
        cache = cache_given(kwargs)
        if not call.step:
            if cache is not None:
                self._sequences[cache] = call.sequence
            return None
        if not call.masked:
            assert self.attended is not None
            call.masked = True
            # Made without asking whether it could be left out, which would wait for the device.
            call.mask = causal_mask(
                cache,
                config=self._decoder.config,
                inputs_embeds=args[0],
                attention_mask=self.attended.to(args[0].device),
                layer_idx=self.layer,
                allow_is_causal_skip=False,
            )
        argument(kwargs, "attention_mask")
        mask = None if call.mask is None else call.mask.to(args[0].device)
        return args, {**kwargs, "attention_mask": mask}
