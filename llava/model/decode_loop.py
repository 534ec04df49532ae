"""transformers' ``generate`` with the static decode step: its settings, processors and stopping rules, another loop."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.generation import (
    GenerateDecoderOnlyOutput,
    GenerationConfig,
    GenerationMode,
    LogitsProcessorList,
    MaxLengthCriteria,
    StoppingCriteriaList,
)

from llava.errors import InputError
from llava.model.call_names import CACHE_NAMES, CALL_CACHE, OUTPUT_CACHE, cache_in, cache_of
from llava.model.growing_cache import GrowingCache
from llava.model.static_cache import PromptCache
from llava.model.static_checks import check_graphs, check_static
from llava.model.static_decoding import StaticDecoder
from llava.model.visual_compressor import LayerPrompt

DECODINGS = ("eager", "preallocated", "static", "graphs")
CHECK_EVERY = 8  # tokens between two looks at the stopping rules on a GPU, each of which waits for it
_ROOM = 256  # tokens a preallocated cache holds beyond the prompt before it moves; 15 MB for a 7B decoder


def decoding_arguments(decoding: str, layers: int, kwargs: dict[str, Any]) -> dict[str, Any]:
    """What transformers' ``generate`` is told for a way of decoding.

    Args:
        decoding: one of :data:`DECODINGS`.
        layers: of the decoder.
        kwargs: what ``generate`` is told by the caller.

    Raises:
        InputError: for an unknown way, or beside arguments it excludes.
    """
    if decoding not in DECODINGS:
        raise InputError(f"decoding = {decoding!r} is unknown: it must be one of {', '.join(DECODINGS)}")
    if decoding == "eager":
        return {}
    static = decoding != "preallocated"
    excluded = ("custom_generate", "streamer", "assistant_model") if static else CACHE_NAMES
    given = [name for name in excluded if kwargs.get(name) is not None]
    if given:
        raise InputError(f"decoding = {decoding!r} does not go with {', '.join(given)}: use decoding = 'eager'")
    if static:
        return {"custom_generate": StaticLoop(graphs=decoding == "graphs")}
    return {CALL_CACHE: GrowingCache(layers, room=_ROOM)}


class StaticLoop:
    """The ``custom_generate`` of one call: prefill as always, then static steps.

    Args:
        graphs: replay the step as a CUDA graph.
        check_every: tokens between two looks at the stopping rules; what was decoded beyond the end is dropped. None
            for :data:`CHECK_EVERY` on a GPU and 1 elsewhere.
    """

    def __init__(self, graphs: bool, check_every: int | None = None) -> None:
        self.graphs = graphs
        self.check_every = check_every

    def __call__(
        self,
        model: Any,
        input_ids: Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        synced_gpus: bool = False,
        **model_kwargs: Any,
    ) -> Any:
        """Called by ``generate``; returns what transformers' own loop would."""
        _check_request(model, generation_config, synced_gpus, model_kwargs)
        check_static(model)
        if self.graphs:
            check_graphs(model.device)
        new_tokens = generation_config.max_length - input_ids.shape[1]
        inputs = model.prepare_inputs_for_generation(input_ids, is_first_iteration=True, **model_kwargs)
        outputs = model(**inputs, return_dict=True)
        cache = cache_of(outputs)
        prompt = _prompt(model, cache, model_kwargs, new_tokens)
        decoder = model.idle_decoder.take(model, prompt)
        decoder.start(prompt, outputs.logits[:, -1])
        del outputs, inputs, prompt
        returned = generation_config.return_dict_in_generate
        if not returned:
            _release(cache)
        every = self.check_every or (CHECK_EVERY if decoder.token.device.type == "cuda" else 1)
        loop = _Loop(decoder, input_ids, logits_processor, stopping_criteria, generation_config, every, self.graphs)
        sequences = loop.run(new_tokens)
        if model_kwargs.get("logits_watch") is not None:
            model_kwargs["logits_watch"].add(decoder.sound.clone())
        if returned:
            _restore(cache, decoder, sequences.shape[1] - input_ids.shape[1] - 1)
        model.idle_decoder.give_back(decoder)
        return loop.output(sequences, cache) if returned else sequences


class _Loop:
    """State of the loop of one call."""

    def __init__(
        self,
        decoder: StaticDecoder,
        input_ids: Tensor,
        processors: LogitsProcessorList,
        criteria: StoppingCriteriaList,
        config: GenerationConfig,
        every: int,
        graphs: bool,
    ) -> None:
        self.decoder, self.processors, self.criteria, self.config = decoder, processors, criteria, config
        self.graphs, self.every = graphs, every
        self.given = input_ids.shape[1]
        self.ids = torch.cat([input_ids.to(decoder.ids.device), decoder.ids[:, :0]], dim=1)
        self.unfinished = torch.ones(input_ids.shape[0], dtype=torch.long, device=self.ids.device)
        self.stops_early = any(not isinstance(rule, MaxLengthCriteria) for rule in criteria)
        self.pads = any(hasattr(rule, "eos_token_id") for rule in criteria)
        self.keeps = config.return_dict_in_generate and (config.output_logits or config.output_scores)
        self.greedy = not processors and not config.do_sample and not self.keeps
        self.logits: list[Tensor] = []
        self.scores: list[Tensor] = []

    def run(self, new_tokens: int) -> Tensor:
        """Decode until every row has ended; returns (batch, given + new)."""
        checked = 0
        if self.greedy:
            self.decoder.choose()
        else:
            self._choose(0)
        for done in range(1, new_tokens + 1):
            if done == new_tokens or (self.stops_early and done - checked >= self.every):
                end = self._end(checked, done)
                checked = done
                if end is not None or done == new_tokens:
                    break
            self.decoder.step(self.greedy, self.graphs)
            if not self.greedy:
                self._choose(done)
        return self.ids

    def _choose(self, done: int) -> None:
        """Choose a token after ``done`` new ones from processed scores, as transformers' loop does."""
        logits = self.decoder.logits.clone()
        ids = torch.cat([self.ids[:, : self.given], self.decoder.ids[:, :done]], dim=1)
        scores = self.processors(ids, logits.clone())
        if self.keeps:
            self.logits.append(logits)
            self.scores.append(scores)
        if self.config.do_sample:
            self.decoder.put(torch.multinomial(scores.softmax(dim=-1), num_samples=1).squeeze(1))
        else:
            self.decoder.put(scores.argmax(dim=-1))

    def _end(self, checked: int, done: int) -> int | None:
        """Apply the stopping rules to the tokens since the latest look; the length at which all rows had ended.

        :attr:`ids` grows by them, cut at that length. One transfer to the host, beside those of the rules themselves.
        """
        new, flags = self.decoder.ids, []
        if not self.stops_early:
            self.ids = torch.cat([self.ids, new[:, checked:done]], dim=1)
            return None
        pad = self.config._pad_token_tensor
        for length in range(checked, done):
            token = new[:, length]
            if self.pads:
                token = token * self.unfinished + pad.to(token.device) * (1 - self.unfinished)
            self.ids = torch.cat([self.ids, token[:, None]], dim=1)
            self.unfinished = self.unfinished & ~self.criteria(self.ids, None)
            flags.append(self.unfinished.max() == 0)
        ended = torch.stack(flags).tolist()
        if True not in ended:
            return None
        end = checked + ended.index(True) + 1
        self.ids = self.ids[:, : self.given + end]
        return end

    def output(self, sequences: Tensor, cache: Any) -> GenerateDecoderOnlyOutput:
        """What ``return_dict_in_generate`` asks for."""
        count = sequences.shape[1] - self.given
        return GenerateDecoderOnlyOutput(
            sequences=sequences,
            scores=tuple(self.scores[:count]) if self.config.output_scores else None,
            logits=tuple(self.logits[:count]) if self.config.output_logits else None,
            **{OUTPUT_CACHE: cache},
        )


def _check_request(model: Any, config: GenerationConfig, synced_gpus: bool, kwargs: dict[str, Any]) -> None:
    """Raise for what the static loop does not do.

    Raises:
        InputError: for beams, assistants, caches of another kind or already filled, and outputs it does not collect.
    """
    remedy = "use decoding='eager'"
    if config.get_generation_mode() not in (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE):
        mode = config.get_generation_mode().value.replace("_", " ")
        raise InputError(f"static decoding does greedy search and sampling, not {mode}: {remedy}")
    if config.output_attentions or config.output_hidden_states:
        raise InputError(f"static decoding returns no attentions and hidden states: leave them out, or {remedy}")
    if synced_gpus or config.prefill_chunk_size is not None:
        raise InputError(f"static decoding does neither synced_gpus nor prefill_chunk_size: {remedy}")
    cache = cache_in(kwargs)
    if not isinstance(cache, DynamicCache) or cache.is_compileable or cache.get_seq_length() > 0:
        raise InputError(f"static decoding starts from a prompt with a new cache of the default kind: {remedy}")


def _prompt(model: Any, cache: DynamicCache, kwargs: dict[str, Any], new_tokens: int) -> PromptCache:
    """What the prefill left in the cache, and what the compressor knows of it."""
    mask, positions = kwargs.get("attention_mask"), kwargs.get("position_ids")
    padded = mask is not None and not bool(mask.all())
    whole = LayerPrompt(mask.bool() if padded and mask is not None else None)
    layers: Sequence[LayerPrompt | None] | None = None
    if model.visual_compressor is not None:
        layers = model.visual_compressor.layer_prompts(cache)
    layers = [None] * len(cache.layers) if layers is None else layers
    assert positions is not None  # generate makes them where the caller gave none
    return PromptCache(
        [layer.keys for layer in cache.layers],
        [layer.values for layer in cache.layers],
        [whole if layer is None else layer for layer in layers],
        positions[:, -1:] + 1,
        new_tokens,
    )


def _release(cache: DynamicCache) -> None:
    """Free the prefill's tensors; ``generate`` holds the cache until the answer is complete."""
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys.new_empty(0), layer.values.new_empty(0)


def _restore(cache: DynamicCache, decoder: StaticDecoder, new_tokens: int) -> None:
    """Put prompt and answer but its last token into the cache, as transformers' loop leaves it."""
    for group in decoder.groups:
        for number in group.layers:
            layer = cache.layers[number]
            layer.keys, layer.values = decoder.entries(number, group.prompt + new_tokens)
