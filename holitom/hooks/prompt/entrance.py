"""The way of a foreign model's prompts to a compressor: forward hooks only, all removed by handle.

transformers' multimodal classes hold a prompt with one placeholder token per visual token, encode the videos, put the
features in the placeholders' place and call their decoder. The class checks that both are equally many, so nothing may
change before. The decoder's pre-hook then compresses the features it finds in each video's place and hands the decoder
a shorter sequence; in later calls, whose masks and positions count the long prompt, it corrects these. The hooks of an
inner stage come after it and see what they see in this project's own runtime.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from holitom.errors import InputError
from holitom.hooks.aligned_loss import AlignedLoss
from holitom.hooks.call_names import cache_in, check_call, returned_cache
from holitom.hooks.compiled import refuse_compiled, refuse_tracing
from holitom.hooks.decoder.decoder_layers import check_supported, left_padding
from holitom.hooks.generation_door import GenerationDoor
from holitom.hooks.hook_set import HookResult, HookSet
from holitom.hooks.per_thread import PerThread
from holitom.hooks.prompt.contraction import ContractedSequence, contract, contracted_positions
from holitom.hooks.prompt.deep_features import contracted_deep_features
from holitom.hooks.prompt.prompt_layout import (
    PlacedVideo,
    PromptLayout,
    TowerCall,
    VideoGrid,
    brings_video,
    place_videos,
)
from holitom.hooks.prompt.tower_calls import TowerCalls
from holitom.hooks.tower.video_calls import VideoCalls
from holitom.tokens import CompressedTokens

if TYPE_CHECKING:
    from transformers import Cache


class PromptEntrance(HookSet):
    """Hooks that compress the prompts of one model; ``apply(model)`` and ``remove()`` are inverse.

    Args:
        layout: how the family's prompts are laid out.
        compressor: what compresses the videos.
        videos: where the compressor merges frames inside the tower, what tells videos from images there.
    """

    _prompt = PerThread[dict[str, Any]]()  # arguments of the body in a prefill that is running
    _fresh = PerThread[bool]()  # the decoder is filling a new cache
    _sequence = PerThread[ContractedSequence]()  # the prompt whose cache the decoder is filling

    def __init__(self, layout: PromptLayout, compressor: Any, videos: VideoCalls | None = None) -> None:
        super().__init__()
        self._layout = layout
        self._compressor = compressor
        self._loss = AlignedLoss(compressor)
        self._door = GenerationDoor(compressor)
        self._videos = videos
        self._tower = TowerCalls(compressor, videos)
        self._known: WeakKeyDictionary[Cache, ContractedSequence | None] = WeakKeyDictionary()

    def _register(self, model: nn.Module) -> None:
        refuse_compiled(model)
        layout = self._layout
        check_call(layout.body, "input_ids", layout.pixels, "attention_mask", "position_ids")
        check_call(layout.decoder, "inputs_embeds", "attention_mask", "position_ids")
        self._names = {
            module: tuple(inspect.signature(module.forward).parameters)
            for module in (model, layout.body, layout.decoder)
        }
        self._tower.apply(layout.tower)
        self._loss.apply(model)
        self._door.apply(model)
        if self._videos is not None:
            self._videos.apply(layout.body)
        self._handles += [
            model.register_forward_pre_hook(self._enter_model, with_kwargs=True),
            layout.body.register_forward_pre_hook(self._enter_body, with_kwargs=True),
            layout.body.register_forward_hook(self._leave_body, always_call=True),
            layout.decoder.register_forward_pre_hook(self._enter_decoder, with_kwargs=True),
            layout.decoder.register_forward_hook(self._leave_decoder, with_kwargs=True, always_call=True),
        ]

    def _forget(self) -> None:
        self._tower.remove()
        self._loss.remove()
        self._door.remove()
        if self._videos is not None:
            self._videos.remove()
        self._known.clear()
        self._prompt = self._sequence = None

    def _named(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """All arguments of a call by name."""
        return {**dict(zip(self._names[module], args, strict=False)), **kwargs}

    def _enter_model(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> HookResult:
        """Pre-hook of the model: refuse what counts the tokens of the long prompt after the decoder has run."""
        refuse_tracing()
        named = self._named(model, args, kwargs)
        if isinstance(named.get("logits_to_keep"), Tensor) and brings_video(self._layout.view(named)):
            raise InputError("logits_to_keep must be a number while videos are compressed: indices count all tokens")
        return None

    def _enter_body(self, body: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> HookResult:
        """Pre-hook of the body: note a new prompt; give a later call the positions that the long prompt asks for."""
        refuse_tracing()
        self._prompt = None
        self._loss.forget()
        named = self._named(body, args, kwargs)
        cache, view = cache_in(named), self._layout.view(named)
        if cache is None or cache.get_seq_length(0) == 0:
            if named.get("input_ids") is None and brings_video(view):
                raise InputError("videos were given without input_ids: pass the ids that the processor wrote")
            self._compressor.start_prompt()
            if named.get("input_ids") is None:
                return None
            self._prompt = view
            return None
        if brings_video(view):
            raise NotImplementedError("a video in a later turn cannot be compressed: only the prefill of a cache is")
        sequence, ids = self._known.get(cache), named.get("input_ids")
        if sequence is None or ids is None or any(named.get(n) is not None for n in ("attention_mask", "position_ids")):
            return None
        past = sequence.seq + sequence.incoming(cache.get_seq_length(0), 0)
        return (), {**named, "position_ids": self._layout.continued_positions(past, ids.shape[1])}

    def _leave_body(self, *_: Any) -> None:
        """Forward hook of the body, also after an exception."""
        self._prompt = None

    def _enter_decoder(self, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> HookResult:
        """Pre-hook of the decoder: shorten a prompt, or continue one."""
        refuse_tracing()
        self._sequence = None
        named, prompt = self._named(decoder, args, kwargs), self._prompt
        cache, embeds = cache_in(named), named.get("inputs_embeds")
        self._fresh = cache is None or cache.get_seq_length(0) == 0
        if prompt is not None and embeds is not None:
            return (), self._prefill(prompt, embeds, named)
        inputs = named.get("input_ids") if embeds is None else embeds
        if cache is None or inputs is None or cache.get_seq_length(0) == 0:
            return None
        if cache not in self._known:
            _refuse_unknown(cache)
        sequence = self._known[cache]
        if sequence is None:
            return None
        incoming = sequence.incoming(cache.get_seq_length(0), inputs.shape[1])
        return (), sequence.arguments(incoming, inputs, named)

    def _leave_decoder(self, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Forward hook of the decoder, also after an exception: what is known of a prompt hangs on its cache."""
        sequence, fresh = self._sequence, self._fresh
        self._sequence = self._fresh = None
        if output is None:
            return
        cache = cache_in(kwargs)
        if cache is None:
            cache = returned_cache(output)
        if cache is None:
            return
        if sequence is not None:
            sequence.cached = cache.get_seq_length(0)
            self._known[cache] = sequence
        elif fresh:
            self._known[cache] = None  # nothing of this prompt was removed

    def _prefill(self, prompt: dict[str, Any], embeds: Tensor, named: dict[str, Any]) -> dict[str, Any]:
        """Keyword arguments of the decoder for a new prompt, with its videos compressed."""
        if self._compressor.inner is not None:
            named = {**named, "video_spans": torch.zeros(embeds.shape[0], 0, 2, dtype=torch.long)}
        if not brings_video(prompt):
            holes = int((prompt["input_ids"] == self._layout.video_token_id).sum())
            if holes:
                raise InputError(
                    f"the prompt has {holes} video placeholder(s) but no video: pass {self._layout.pixels}"
                )
            return named
        mask, seq = named.get("attention_mask"), embeds.shape[1]
        check_supported(mask, cache_in(named), "compression")
        call = self._tower_call(prompt)
        grids = self._layout.grids(prompt, call)
        placed = place_videos(prompt["input_ids"], self._layout.video_token_id, grids)
        first = (0,) * embeds.shape[0] if mask is None else left_padding(mask)
        if any(row and row[0].start < begin for row, begin in zip(placed, first, strict=True)):
            raise InputError("attention_mask hides video placeholders: it must be 1 for every token of the prompt")
        if any(row and len(row[-1].pieces) > 1 and row[-1].stop == seq for row in placed):
            raise InputError("a prompt ends within its video: let the model's processor write it, which closes frames")
        signals = {name: self._cut(signal, call, grids) for name, signal in call.signals.items()}
        videos = [self._compressed(states, row, signals, call) for states, row in zip(embeds, placed, strict=True)]
        batch = contract(embeds, first, videos)
        self._loss.note(batch.kept, prompt["input_ids"] == self._layout.video_token_id)
        renumber = not self._compressor.keeps_positions
        positions, shift = contracted_positions(named.get("position_ids"), batch, first, seq, renumber)
        real = batch.kept >= 0 if any(batch.first) else None
        short_seq = batch.kept.shape[1]
        tail = seq - max(row[-1].stop for row in placed if row)
        self._sequence = ContractedSequence(seq, first, real, short_seq, shift, tail)
        short: dict[str, Any] = {"inputs_embeds": batch.embeds, "position_ids": positions, "attention_mask": real}
        if mask is not None and real is None:
            short["attention_mask"] = mask.new_ones(embeds.shape[0], short_seq)
        if self._compressor.inner is not None:
            short |= {"video_spans": batch.spans, "video_order": batch.order}
        return {**named, **short, **contracted_deep_features(named, batch, first, videos)}

    def _tower_call(self, prompt: dict[str, Any]) -> TowerCall:
        """The call of the tower that encoded the prompt's videos.

        Raises:
            RuntimeError: if it was before the compressor was applied.
        """
        encoded = (prompt.get("mm_encoder_outputs") or {}).get("video")
        call = self._tower.of(encoded) if prompt.get("pixel_values_videos") is None else self._tower.latest
        self._tower.latest = None
        if call is None:
            raise RuntimeError("the videos were not encoded under this compressor: encode them again")
        return call

    def _cut(self, signal: Tensor, call: TowerCall, grids: Sequence[VideoGrid]) -> list[Tensor]:
        """A signal of a whole call, one part per video; of merged frames the tower has that many."""
        if call.merges:
            return list(signal.split([merges.merged_frames for merges in call.merges]))
        return self._layout.cut(signal, call, grids)

    def _compressed(
        self, states: Tensor, row: list[PlacedVideo], signals: dict[str, list[Tensor]], call: TowerCall
    ) -> list[tuple[PlacedVideo, CompressedTokens]]:
        """What is left of each video of one row, (seq, dim)."""
        pairs = []
        for placed in row:
            grid, own = placed.grid, {name: parts[placed.number] for name, parts in signals.items()}
            features = placed.visual(states)
            pool = partial(self._layout.pool, grid=grid)
            merges = call.merges[placed.number] if call.merges else None
            if merges is not None:
                features = features[: merges.merged_frames]  # zeros stand for the others
            kept = self._compressor.compress_features(features, own, pool, self._layout.newline_mode, merges)
            pairs.append((placed, kept))
        return pairs


def _refuse_unknown(cache: Cache) -> None:
    raise RuntimeError(
        f"the cache holds {cache.get_seq_length(0)} tokens of a prompt that was not compressed here: it is a copy, "
        "or was filled before compression was applied or after it was removed; prefill again"
    )
