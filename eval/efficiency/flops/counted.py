"""Real FLOPs counted: the runtime's own model of the real size runs on the meta device under torch's counter.

No weight and no activation has a value there, so nothing is downloaded and nothing computed; every operator that a real
run would start is started. What cannot run without values is replaced, and only that:

* how many frames a stage inside the tower merges depends on it too: it merges most, whatever the states. What it reads
  there is part of what the tower counts;
* how many tokens an outer stage keeps depends on what the video shows: a stand-in keeps the paper's count of them.
  HoliTom's own outer stage runs for real beside it, on a made-up scene of the same size, to count its matrix products;
* newline tokens are counted by the runtime's function on token places instead of being found on the device.

Recorders in the tower, splicing, decoder, inner stages, cache and decode step are the runtime's own. What a method adds
inside the tower is what the tower counts with its recorders on above what it counts without them; what it adds inside
the language model is what is counted outside of attention, feed-forward, angles and logits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache

from eval.efficiency.flops.plans import Plan, spread_index
from eval.efficiency.flops.sizes import DTYPE, ModelSizes, hollow_model
from eval.efficiency.flops.stand_ins import NominalOuter, nominal_scene, with_newlines
from eval.efficiency.flops.tracing import FusedAttention, LiveBytes, ModuleFlops
from holitom.compressor import Compressor
from holitom.encoded_video import EncodedVideo, FrameMerges
from holitom.methods.holitom import HolitomOuter
from holitom.tokens import CompressedTokens
from llava.constants import IMAGE_TOKEN_INDEX
from llava.model.language_model.llava_qwen import LlavaQwenConfig, LlavaQwenForCausalLM
from llava.model.splicing import SplicedBatch, VisualTokens, splice
from llava.model.visual_inputs import VisualEncoder


@dataclass(frozen=True)
class MethodFlops:
    """What a method adds.

    Attributes:
        signals: reading side signals in the tower.
        outer: the stage before the language model.
        inner: the stages inside it.
    """

    signals: int
    outer: int
    inner: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.signals + self.outer + self.inner


@dataclass(frozen=True)
class Counted:
    """What one run counted; FLOPs of the language model with the lower triangle of causal attention.

    Attributes:
        tower: FLOPs of the tower without what a method adds.
        projector: FLOPs of the projector.
        llm: FLOPs of the language model's prefill without what a method adds.
        llm_square: the same as torch's counter has it, with the full square of causal attention.
        method: what the method adds.
        decode: FLOPs of the first decode step.
        kv_cache_bytes: keys and values after the prefill.
        cached: tokens in the cache of each layer.
        peak_bytes: most bytes alive at one time.
    """

    tower: int
    projector: int
    llm: int
    llm_square: int
    method: MethodFlops
    decode: int
    kv_cache_bytes: int
    cached: tuple[int, ...]
    peak_bytes: int


@dataclass(frozen=True)
class _Decoded:
    """What prefill and one decode step of a prompt cost: ``products`` are the language model's own of ``prefill``."""

    prefill: int
    products: int
    masked: int
    decode: int
    cached: tuple[tuple[int, int], ...]
    peak: int


@dataclass(frozen=True)
class _Encoded:
    """Features and signals of a video without values, and what they cost."""

    features: Tensor
    signals: dict[str, Tensor]
    tower: int
    projector: int
    peak: int
    merges: FrameMerges | None = None


class MetaRuns:
    """Runs of one checkpoint without values; what several configurations share is run once.

    Args:
        config: of the checkpoint.
        sizes: of the same.
    """

    def __init__(self, config: LlavaQwenConfig, sizes: ModelSizes) -> None:
        self.model: LlavaQwenForCausalLM = hollow_model(config)
        self.sizes = sizes
        self._encoder = VisualEncoder(self.model.get_model(), config, None)
        self._encoded: dict[tuple[Any, ...], _Encoded] = {}
        self._outer: dict[Any, tuple[int, int]] = {}
        self._decoded: dict[Any, _Decoded] = {}

    @torch.no_grad()
    def count(self, plan: Plan) -> Counted:
        """Run one configuration: encode, compress, prefill and one decode step."""
        stand_in = None if plan.compressor is None else self._stand_in(plan)
        plain = self._encode(None)
        if stand_in is None:
            return self._language(plan, plain, MethodFlops(0, 0, 0), self._all_tokens(plain))
        stand_in.apply(self.model)
        try:
            encoded = self._encode(stand_in)
            kept = self._all_tokens(plain)
            if stand_in.outer is not None:
                mode = self._encoder.newline_mode
                parts = encoded.features, encoded.signals, self._encoder.pool, mode, encoded.merges
                kept = stand_in.compress_features(*parts)
            outer, outer_peak = self._real_outer(plan)
            held = encoded.features.nbytes + self.sizes.frames * 3 * self.sizes.side**2 * DTYPE.itemsize
            encoded = replace(encoded, peak=max(encoded.peak, held + outer_peak))
            if stand_in.tower is not None:
                return self._language(plan, encoded, MethodFlops(0, outer, 0), kept)
            added = MethodFlops(encoded.tower - plain.tower, outer, 0)
            return self._language(plan, replace(encoded, tower=plain.tower), added, kept)
        finally:
            stand_in.remove()

    @staticmethod
    def _stand_in(plan: Plan) -> Compressor:
        """The configuration's compressor with its own inner stage and a stand-in for the outer one."""
        real = plan.config.build()
        assert real is not None
        if real.outer is None:
            return real
        tower = None if real.tower is None else real.tower.nominal()
        return Compressor(NominalOuter(real.outer.signals, spread_index(plan.sizes, plan.visual)), real.inner, tower)

    def _encode(self, compressor: Compressor | None) -> _Encoded:
        """Tower, projector and pooling, with the recorders of an applied compressor."""
        names: tuple[Any, ...] = () if compressor is None or compressor.outer is None else compressor.outer.signals
        if compressor is not None and compressor.tower is not None:
            names = (*names, *compressor.tower.nominal_frames(self.sizes.frames, self.sizes.tower_layers))
        if names in self._encoded:
            return self._encoded[names]
        shape, model = (self.sizes.frames, 3, self.sizes.side, self.sizes.side), self.model.get_model()
        with LiveBytes() as alive, FusedAttention(), FlopCounterMode(display=False) as counter:
            pixels = torch.empty(shape, dtype=DTYPE, device="meta")
            tower = ModuleFlops(counter).watch([model.vision_tower])
            projector = ModuleFlops(counter).watch([model.mm_projector])
            if compressor is None:
                features, signals, merges = self._encoder.encode_frames(pixels), {}, None
            else:
                with compressor.recording():
                    features = self._encoder.encode_frames(pixels)
                signals, merges = compressor.take_signals(), next(iter(compressor.take_merges()), None)
        self._encoded[names] = _Encoded(features, signals, tower.stop(), projector.stop(), alive.peak, merges)
        return self._encoded[names]

    def _all_tokens(self, encoded: _Encoded) -> CompressedTokens:
        index = torch.arange(self.sizes.frames * self.sizes.tokens_per_frame)
        return CompressedTokens(encoded.features.flatten(0, 1), index, details=None)

    def _real_outer(self, plan: Plan) -> tuple[int, int]:
        """FLOPs and peak bytes of HoliTom's own outer stage on the nominal scene, values and all."""
        outer = plan.compressor.outer if plan.compressor is not None else None
        if not isinstance(outer, HolitomOuter):
            return 0, 0
        settings = plan.config.compressor.outer
        if settings not in self._outer:
            features = nominal_scene(self.sizes)
            attention = torch.rand(features.shape[:2], generator=torch.Generator().manual_seed(1))
            with LiveBytes() as alive, FlopCounterMode(display=False) as counter:
                outer(EncodedVideo(features, {"received_attention": attention}))
            self._outer[settings] = counter.get_total_flops(), alive.peak
        return self._outer[settings]

    def _prompt(self, plan: Plan, kept: CompressedTokens) -> SplicedBatch:
        """The runtime's own splice of text and the tokens of the video with their newlines."""
        frames = self.sizes.frames if kept.every_row else None
        length = with_newlines(kept.index, self._encoder.newline_mode, self.sizes.tokens_per_frame, frames)
        features = torch.empty(length, self.sizes.dim, dtype=DTYPE, device="meta")
        before, behind = plan.text
        ids = torch.tensor([[0] * before + [IMAGE_TOKEN_INDEX] + [0] * behind])
        embed = self.model.get_model().embed_tokens
        return splice(ids, None, None, [VisualTokens(features, True)], lambda text: embed(text.to("meta")), None)

    def _language(self, plan: Plan, encoded: _Encoded, added: MethodFlops, kept: CompressedTokens) -> Counted:
        """Prefill and one decode step, once for all configurations whose language model sees the same prompt."""
        settings = plan.config.compressor if plan.stages else None
        key = plan.text, plan.spans, str(settings)
        if key not in self._decoded:
            self._decoded[key] = self._decode(plan, kept)
        found = self._decoded[key]
        return Counted(
            tower=encoded.tower,
            projector=encoded.projector,
            llm=found.products - found.masked,
            llm_square=found.products,
            method=replace(added, inner=found.prefill - found.products),
            decode=found.decode,
            kv_cache_bytes=sum(size for _, size in found.cached),
            cached=tuple(length for length, _ in found.cached),
            peak_bytes=max(encoded.peak, found.peak),
        )

    def _decode(self, plan: Plan, kept: CompressedTokens) -> _Decoded:
        with LiveBytes() as alive, FusedAttention() as attention, FlopCounterMode(display=False) as counter:
            modules = ModuleFlops(counter).watch(self._products())
            angles = ModuleFlops(counter).watch([self.model.get_model().rotary_emb])  # a product in some releases
            prompt, cache = self._prompt(plan, kept), DynamicCache(config=self.model.config)
            self.model(
                inputs_embeds=prompt.inputs_embeds,
                position_ids=prompt.position_ids.to("meta"),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
                video_spans=prompt.video_spans,
            )
            prefill, products = counter.get_total_flops() - angles.total, modules.total
            masked, sizes = attention.masked, tuple(_cache_sizes(cache))
            peak = alive.peak + self.sizes.frames * 3 * self.sizes.side**2 * DTYPE.itemsize
            token = torch.zeros(1, 1, dtype=torch.long, device="meta")
            self.model(input_ids=token, past_key_values=cache, use_cache=True, logits_to_keep=1)
            modules.stop()
            decode = counter.get_total_flops() - angles.stop() - prefill
        return _Decoded(prefill, products, masked, decode, sizes, peak)

    def _products(self) -> Iterator[torch.nn.Module]:
        """The modules of the language model in which its own matrix products are."""
        decoder = self.model.get_model()
        for layer in decoder.layers:
            yield from (layer.self_attn, layer.mlp)
        yield self.model.lm_head


def _cache_sizes(cache: DynamicCache) -> Iterator[tuple[int, int]]:
    """Tokens and bytes of each layer's cache."""
    for layer in cache.layers:
        yield layer.keys.shape[-2], layer.keys.nbytes + layer.values.nbytes
