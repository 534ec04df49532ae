"""One stage of compression inside a decoder: what it does to a sequence, its positions, its masks and its cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from holitom.hooks.call_names import argument, cache_given, causal_mask
from holitom.hooks.decoder.decoder_layers import rotary_of
from holitom.hooks.decoder.decoder_state import ForwardCall, StageState
from holitom.hooks.decoder.inner_record import StageRecord, shortened_spans
from holitom.hooks.decoder.late_features import reduce_late
from holitom.hooks.decoder.rules import DecoderStage, StageRules
from holitom.hooks.decoder.video_order import in_reading_order, in_video_order, reduced_in_reading_order
from holitom.ops.short_sequences import ShortSequences
from holitom.ops.token_ops import upload

if TYPE_CHECKING:
    from transformers import Cache


def positions_of(kwargs: dict[str, Any], hidden: Tensor) -> Tensor:
    """The decoder's positions of the whole sequence on the device of ``hidden``, (1 or batch, seq) int64."""
    return argument(kwargs, "position_ids").to(hidden.device)


def score(call: ForwardCall, rules: StageRules, attention: Any, hidden: Tensor, rotary: tuple[Tensor, Tensor]) -> None:
    """Note in ``call`` what the method scores the tokens by, which it sees in the order of the videos."""
    cos, sin = (in_video_order(part, call.order) for part in rotary)
    call.scores = rules.score(call, attention, in_video_order(hidden, call.order), (cos, sin))


def shorten(
    call: ForwardCall,
    rules: StageRules,
    stage: DecoderStage,
    decoder: Any,
    layer: Any,
    hidden: Tensor,
    kwargs: dict[str, Any],
) -> Tensor:
    """The next stage of a prefill: score if that is still to do, reduce, and note in ``call`` what was done.

    Args:
        call: the call, as the stage before left it.
        rules: what the method does.
        stage: the stage.
        decoder: for its rotary embedding.
        layer: the stage's.
        hidden: (batch, seq, dim) what enters it.
        kwargs: of the layer, as the decoder called it.

    Returns:
        (batch, short_seq, dim) what is left.
    """
    if stage.scored_by == "own_layer":
        rotary = call.position_embeddings or argument(kwargs, "position_embeddings")
        with torch.no_grad():
            score(call, rules, layer.self_attn, layer.input_layernorm(hidden), rotary)
    assert call.scores is not None
    scores, counts = call.scores.to(hidden.device), call.counts[len(call.records)]
    reduced = rules.reduce(call, counts, in_video_order(hidden, call.order), scores)
    call.scores = in_reading_order(scores, call.order)
    reduced, call.order = reduced_in_reading_order(reduced, call.order)
    reduce_late(call, reduced, rules.again)
    advance(call, stage, reduced, decoder, kwargs)
    if stage.shrinks_cache and (cache := cache_given(kwargs)) is not None:
        shrink_cache(call, cache, stage.layer)
    return reduced.hidden


def advance(
    call: ForwardCall, stage: DecoderStage, reduced: ShortSequences, decoder: Any, kwargs: dict[str, Any]
) -> None:
    """Note one stage of a prefill in ``call``: lengths, spans, kept positions, rotary embeddings and record."""
    assert call.scores is not None
    counts = call.counts[len(call.records)]
    call.kept, call.source = _in_prompt(call, reduced)
    shift = None
    if stage.renumbers:
        positions = positions_of(kwargs, reduced.hidden)
        renumbered = _renumbered(call, reduced, positions)
        shift = positions[:, -1:] - renumbered[:, -1:]
        call.position_embeddings = decoder.rotary_emb(reduced.hidden, renumbered)
    else:
        call.position_embeddings = rotary_of(call.kept, argument(kwargs, "position_embeddings"))
    real_tokens = call.kept >= 0 if reduced.padded else None
    call.state.stages.append(StageState(reduced.hidden.shape[1], real_tokens, shift))
    call.records.append(StageRecord(stage.layer, counts, call.kept, call.source, call.scores))
    call.spans = shortened_spans(call.spans, counts, call.first, reduced.first)
    call.first = reduced.first


def _in_prompt(call: ForwardCall, reduced: ShortSequences) -> tuple[Tensor, Tensor]:
    """``kept`` and ``source`` of a stage, which count from the sequence before it, as positions in the prompt."""
    if call.kept is None or call.source is None:
        return reduced.kept, reduced.source
    device, long_seq = reduced.kept.device, call.state.long_seq
    # An extra last entry serves -1, of padding and dropped tokens: the remainder by the width is its index.
    before = pad(call.kept.to(device), (0, 1), value=-1)
    width = before.shape[1]
    target = before.gather(1, pad(reduced.source, (0, 1), value=-1) % width)
    table = before.new_full((before.shape[0], long_seq + 1), -1).scatter_(1, before % (long_seq + 1), target)
    return before.gather(1, reduced.kept % width), table.gather(1, call.source.to(device) % (long_seq + 1))


def _renumbered(call: ForwardCall, reduced: ShortSequences, position_ids: Tensor) -> Tensor:
    """Positions without gaps from each row's first real token on, (batch, short_seq) int64; 0 at padding."""
    begins, gaps = upload(position_ids.device, call.prompt_first, reduced.first)
    start = position_ids.expand(call.state.batch, -1).gather(1, begins[:, None])
    places = torch.arange(reduced.hidden.shape[1], device=position_ids.device)
    return (places - gaps[:, None]).clamp(min=0) + start


def short_mask(
    config: Any, stage: DecoderStage, hidden: Tensor, real_tokens: Tensor | None, cache: Cache | None
) -> Tensor | None:
    """Causal mask of a stage's layers, sized by its layer of the cache.

    No positions are passed: those of kept tokens have gaps, which transformers takes for packed sequences. Where there
    is padding the mask is made without asking whether it could be left out, which would wait for the device.
    """
    return causal_mask(
        cache,
        config=config,
        inputs_embeds=hidden,
        attention_mask=real_tokens,
        layer_idx=stage.layer,
        allow_is_causal_skip=real_tokens is None,
    )


def short_arguments(call: ForwardCall, hidden: Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments of a layer after a stage: its own mask, its own rotary embeddings, no positions."""
    for name in ("attention_mask", "position_ids", "position_embeddings"):
        argument(kwargs, name)
    mask = None if call.mask is None else call.mask.to(hidden.device)
    replaced = {**kwargs, "attention_mask": mask, "position_ids": None}
    if call.position_embeddings is not None:
        cos, sin = call.position_embeddings
        replaced["position_embeddings"] = (cos.to(hidden.device), sin.to(hidden.device))
    return replaced


def shrink_cache(call: ForwardCall, cache: Cache, layers: int) -> None:
    """Leave the kept tokens alone in the first ``layers`` layers of a cache that the prompt has just filled.

    Entries at padding are those of some token; the masks hide them.
    """
    assert call.kept is not None
    for layer in cache.layers[:layers]:
        kept = call.kept.clamp(min=0).to(layer.keys.device)[:, None, :, None]
        index = kept.expand(-1, layer.keys.shape[1], -1, layer.keys.shape[3])
        layer.keys, layer.values = layer.keys.gather(2, index), layer.values.gather(2, index)
    call.state.long_cached = call.kept.shape[1]


def shrunk_arguments(call: ForwardCall, past: int, inputs: Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments of the decoder for a call on a cache that was shrunk in all its layers.

    Its mask covers the kept tokens; its positions go on after the whole prompt.
    """
    incoming = past - call.state.long_cached + inputs.shape[1]
    mask, positions = call.real_tokens(0, incoming, call.padding_mask), kwargs.get("position_ids")
    if positions is None:
        end = call.state.long_seq + incoming
        positions = torch.arange(end - inputs.shape[1], end, device=inputs.device)[None]
    return {**kwargs, "attention_mask": mask, "position_ids": positions}
