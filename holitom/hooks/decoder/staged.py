"""Compression inside a transformers decoder in stages: forward pre-hooks, all removed by handle.

The decoder's own pre-hook reads the call. Every stage scores the tokens, hands its layer fewer of them, and gives that
layer and those after it a mask and rotary embeddings of their own length. So layers before a stage cache more tokens
than layers after it. A decode step only needs other masks and, where a stage renumbers positions, other rotary
embeddings. HoliTom's merging and FastV's pruning are one stage each, PyramidDrop's pruning is three.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from holitom.errors import InputError
from holitom.hooks.call_names import TESTED, argument, cache_given, cache_in, check_call, returned_cache
from holitom.hooks.compiled import refuse_compiled, refuse_tracing
from holitom.hooks.decoder.call_plans import plan_continuation, plan_prefill, prompt_spans
from holitom.hooks.decoder.decoder_layers import checked_layers
from holitom.hooks.decoder.decoder_state import ForwardCall, SequenceState
from holitom.hooks.decoder.inner_record import InnerRecord, count_tokens, untouched_record
from holitom.hooks.decoder.late_features import FEATURES, add_late, keep_late
from holitom.hooks.decoder.rules import DecoderStage, StageRules
from holitom.hooks.decoder.stages import positions_of, score, short_arguments, short_mask, shorten, shrunk_arguments
from holitom.hooks.hook_set import HookResult, HookSet
from holitom.hooks.per_thread import PerThread

if TYPE_CHECKING:
    from transformers import Cache

    from llava.model.visual_compressor import LayerPrompt


class StagedCompression(HookSet):
    """Stages of compression on one decoder; ``apply`` and ``remove`` are inverse.

    The decoder's forward must be called with ``video_spans``, int64 (batch, max_spans, 2), ``[start, stop)`` of each
    video in the left-padded sequence, (0, 0) where unused. It is taken out of the call before any layer runs. Several
    unfinished ``generate`` calls may take turns: what is known of a sequence hangs on its cache.

    Args:
        stages: what to do where, in the order of the layers.
        rules: what the method does at them.

    Attributes:
        stages: the same.
        rules: the same.
        outer: record of what the outer stage does before the decoder runs, as the compressor hands it over; or None.
        last: what the latest prefill did, None before the first.

    Raises:
        InputError: if the stages' layers do not ascend.
    """

    _call = PerThread[ForwardCall]()  # the forward call that is running
    _passing = PerThread[bool]()  # a prefill is running that has nothing to compress

    def __init__(self, stages: Sequence[DecoderStage], rules: StageRules) -> None:
        super().__init__()
        self.stages = tuple(stages)
        self.rules = rules
        self.outer: Any = None
        layers = [stage.layer for stage in self.stages]
        if layers != sorted(set(layers)):
            raise InputError(
                f"{self.stages[0].setting} = {layers} is out of order: layers must ascend; sort them, name each once"
            )
        self.last: InnerRecord | None = None
        self._decoder: Any = None
        self._layers: Any = ()
        self._parameters: tuple[str, ...] = ()
        self._states: WeakKeyDictionary[Cache, SequenceState | None] = WeakKeyDictionary()  # None: nothing to compress

    def _register(self, decoder: nn.Module) -> None:
        refuse_compiled(decoder)
        if self.rules.place is not None:
            depth = len(getattr(decoder, "layers", None) or ())  # type: ignore[arg-type]
            self.stages = self.rules.place(self.stages, depth)
        for stage in self.stages:
            self._layers = checked_layers(decoder, stage.layer, stage.setting)
        check_call(decoder, "attention_mask", "position_ids", "inputs_embeds")
        check_call(self._layers[0], "attention_mask", "position_ids")
        self._decoder = decoder
        self._parameters = tuple(inspect.signature(decoder.forward).parameters)
        self._handles += [
            decoder.register_forward_pre_hook(self._enter_decoder, with_kwargs=True),
            decoder.register_forward_hook(self._leave_decoder, always_call=True),
        ]
        starts = {stage.layer: number for number, stage in enumerate(self.stages)}
        for stage in self.stages:
            if stage.scored_by == "layer_before":
                scored, hook = self._layers[stage.layer - 1].self_attn, partial(self._enter_scoring, stage)
                self._handles.append(scored.register_forward_pre_hook(hook, with_kwargs=True))
        for index in range(self.stages[0].layer, len(self._layers)):
            layer, enter = self._layers[index], self._enter_later_layer
            if index in starts:
                enter = partial(self._enter_stage_layer, starts[index])
            self._handles.append(layer.register_forward_pre_hook(enter, with_kwargs=True))
            if FEATURES in self._parameters:
                self._handles.append(layer.register_forward_hook(partial(self._leave_layer, index)))

    def _forget(self) -> None:
        self._states.clear()
        self._call = None
        self._decoder = None
        self._layers = ()

    def start_prompt(self, record: Any) -> None:
        """See :class:`~holitom.stages.InnerStage`."""
        self.last, self.outer = None, record

    def align(self, labels: Tensor) -> Tensor:
        """Labels of the tokens that the latest prefill kept, (batch, seq) to (batch, short_seq), padding -100.

        Raises:
            RuntimeError: before the first prefill.
            InputError: if the labels have not the shape of that prefill.
        """
        if self.last is None:
            raise RuntimeError("there was no prefill yet: run the model once before aligning labels")
        return self.last.align(labels)

    def layer_prompts(self, cache: Cache) -> list[LayerPrompt | None] | None:
        """See :class:`~holitom.stages.InnerStage`; None if the prefill of the cache compressed nothing."""
        state = self._states.get(cache)
        if state is None:
            return None
        starts = [stage.layer for stage in self.stages]
        return state.layer_prompts(starts, len(self._layers), self.stages[0].shrinks_cache)

    # Hooks.

    def _enter_decoder(self, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> HookResult:
        """Pre-hook of the decoder: take ``video_spans`` out of the call and decide what this call is."""
        refuse_tracing()
        self._call = self._passing = None
        kwargs = {**dict(zip(self._parameters, args, strict=False)), **kwargs}
        video_spans, order = kwargs.pop("video_spans", None), kwargs.pop("video_order", None)
        inputs = kwargs.get("inputs_embeds")
        inputs = kwargs.get("input_ids") if inputs is None else inputs
        if inputs is None or (video_spans is None and all(stage.keeps_all for stage in self.stages)):
            return (), kwargs
        padding_mask, cache = kwargs.get("attention_mask"), cache_in(kwargs)
        if cache is not None and cache.get_seq_length(len(self._layers) - 1) > 0:
            self._call = self._continued(cache, padding_mask, video_spans, inputs)
            if self._call is not None and self.stages[0].shrinks_cache:
                kwargs = shrunk_arguments(self._call, cache.get_seq_length(0), inputs, kwargs)
        else:
            self._call = self._prefill(cache, padding_mask, video_spans, order, inputs)
            if self._call is not None:
                kwargs = keep_late(self._call, kwargs, self.stages[0].layer)
            if cache is not None and self._call is not None and not any(self._call.prompt_first):
                kwargs["attention_mask"] = None  # nothing is padded: the library would look again, and wait for it
        return (), kwargs

    def _prefill(
        self, cache: Cache | None, padding_mask: Any, video_spans: Tensor | None, order: Tensor | None, inputs: Tensor
    ) -> ForwardCall | None:
        """Plan of a prefill; None if it has nothing to compress and passes through."""
        refuse_compiled(self._decoder)
        spans = prompt_spans(cache, video_spans, inputs)
        if cache is not None:
            self._states.pop(cache, None)
        counts, notes = self.rules.plan(self.stages, spans, self.outer)
        if counts[-1] == count_tokens(spans):
            self._passing = True
            self.last = untouched_record(spans, padding_mask, inputs, order)
            return None
        call = plan_prefill(cache, padding_mask, inputs, spans, counts)
        call.order = call.prompt_order = order
        call.notes = notes
        return call

    def _continued(
        self, cache: Cache, padding_mask: Any, video_spans: Tensor | None, inputs: Tensor
    ) -> ForwardCall | None:
        """Plan of a call on a filled cache; None if its prefill compressed nothing."""
        pasts = [cache.get_seq_length(stage.layer) for stage in self.stages]
        return plan_continuation(self._states, cache, pasts, padding_mask, video_spans, inputs)

    def _leave_decoder(self, decoder: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Forward hook of the decoder, also after an exception: a call leaves nothing behind but its cache's state."""
        call, passing = self._call, self._passing
        self._call = self._passing = None
        if output is None:  # an exception
            return
        cache = returned_cache(output)
        if passing and cache is not None:
            self._states[cache] = None
        if call is not None and not call.decoding and len(call.records) != len(self.stages):
            raise RuntimeError(
                f"{len(call.records)} of {len(self.stages)} stages acted in this prefill: {type(decoder).__name__} did "
                f"not call its layers one after the other; install {TESTED}"
            )

    def _enter_scoring(
        self, stage: DecoderStage, attention: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> HookResult:
        """Pre-hook of the attention in the layer before a stage: score in a prefill under the mask the method wants."""
        call = self._call
        if call is None or call.decoding:
            return None
        hidden = argument(kwargs, "hidden_states")
        score(call, self.rules, attention, hidden, argument(kwargs, "position_embeddings"))
        if self.rules.scoring_mask is None:
            return None
        mask = self.rules.scoring_mask(self._decoder.config, call, hidden)
        return args, {**kwargs, "attention_mask": mask, "is_causal": False}

    def _enter_stage_layer(
        self, number: int, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> HookResult:
        """Pre-hook of a stage's layer: shorten in a prefill; in any call make the mask and rotary embeddings."""
        call = self._call
        if call is None:
            return None
        hidden, cache, incoming, stage = args[0], cache_given(kwargs), 0, self.stages[number]
        if not call.decoding:
            hidden = shorten(call, self.rules, stage, self._decoder, layer, hidden, kwargs)
            self.last = InnerRecord.of(call.prompt_spans, call.records, call.prompt_order)
            if cache is not None and number == len(self.stages) - 1:
                self._states[cache] = call.state
                cache.shortened_by_hooks = True  # type: ignore[attr-defined] # seen by the model once the hooks are gone
        else:
            assert cache is not None
            state = call.state.stages[number]
            incoming = cache.get_seq_length(stage.layer) - state.seq + hidden.shape[1]
            call.position_embeddings = None
            if state.shift is not None:
                positions = positions_of(kwargs, hidden) - state.shift.to(hidden.device)
                call.position_embeddings = self._decoder.rotary_emb(hidden, positions)
        real_tokens = call.real_tokens(number, incoming, argument(kwargs, "attention_mask"))
        call.mask = short_mask(self._decoder.config, stage, hidden, real_tokens, cache)
        return (hidden, *args[1:]), short_arguments(call, hidden, kwargs)

    def _enter_later_layer(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> HookResult:
        """Pre-hook of the layers between stages: hand them what the latest stage's layer got."""
        if self._call is None:
            return None
        return args, short_arguments(self._call, args[0], kwargs)

    def _leave_layer(self, index: int, layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        """Forward hook of the layers behind the first stage: add the visual features that belong there."""
        return add_late(self._call, index, output)
