"""LLaVA on Qwen2: LLaVA-OneVision and LLaVA-Video.

Decoder and tower are transformers' own classes; this file joins them. It knows nothing of compression but one slot,
``visual_compressor``, that may shorten the tokens of a video before they are spliced into the text.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen2Model
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import InputError
from llava.model.call_names import CALL_CACHE, OUTPUT_CACHE, cache_in, cache_of
from llava.model.decode_loop import decoding_arguments
from llava.model.finite_logits import LogitsWatch
from llava.model.generation_modes import refuse_modes
from llava.model.placement import compute_device
from llava.model.projector import build_projector
from llava.model.splicing import SplicedBatch, splice
from llava.model.static_decoding import IdleDecoder
from llava.model.vision_tower import SiglipVisionTower
from llava.model.visual_compressor import VisualCompressor
from llava.model.visual_inputs import VisualEncoder

_NO_IDS = "images were given without input_ids: pass the prompt's ids"


class LlavaQwenConfig(Qwen2Config):
    """Qwen2's configuration with LLaVA's ``mm_*`` keys, as published (flat)."""

    model_type = "llava_qwen"


class LlavaQwenModel(Qwen2Model):
    """Qwen2's decoder with the tower, the projector and the newline vector beside it."""

    config_class = LlavaQwenConfig

    def __init__(self, config: LlavaQwenConfig) -> None:
        super().__init__(config)
        self.vision_tower = SiglipVisionTower(config)
        self.mm_projector = build_projector(config)
        self.image_newline = nn.Parameter(torch.randn(config.hidden_size) * config.hidden_size**-0.5)

    def forward(self, *args: Any, video_spans: Tensor | None = None, **kwargs: Any) -> BaseModelOutputWithPast:
        """Qwen2's forward. ``video_spans`` is for hooks on this module and is dropped here.

        Raises:
            RuntimeError: if the cache was filled under hooks that are gone.
        """
        cache = cache_in(kwargs)
        if cache is not None and getattr(cache, "shortened_by_hooks", False) and not self._forward_pre_hooks:
            if cache.get_seq_length() > 0:
                raise RuntimeError(
                    "the cache was filled with inner compression, whose hooks were removed in between: prefill again"
                )
            cache.shortened_by_hooks = False
        return super().forward(*args, **kwargs)


class LlavaQwenForCausalLM(Qwen2ForCausalLM):
    """LLaVA-OneVision / LLaVA-Video: text, images and videos in, text out.

    Attributes:
        visual_compressor: None, or what shortens every video before the LLM sees it.
        idle_decoder: tensors and graphs of the latest static decodings; ``idle_decoder.clear()`` frees them.
    """

    config_class = LlavaQwenConfig
    visual_compressor: VisualCompressor | None = None

    def __init__(self, config: LlavaQwenConfig) -> None:
        super(Qwen2ForCausalLM, self).__init__(config)
        self.model = LlavaQwenModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.idle_decoder = IdleDecoder()
        self.post_init()

    def get_model(self) -> LlavaQwenModel:
        """The decoder, as LLaVA-NeXT's users ask for it."""
        return self.model

    def get_vision_tower(self) -> SiglipVisionTower:
        """The vision tower, as LLaVA-NeXT's users ask for it."""
        return self.model.vision_tower

    def splice_visuals(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        labels: Tensor | None,
        images: Tensor | Sequence[Tensor],
        image_sizes: Sequence[tuple[int, int]] | None,
        modalities: str | Sequence[str] | None,
    ) -> SplicedBatch:
        """Encode every image and video and put its tokens in place of its ``<image>``.

        Args:
            input_ids: (batch, text) int64 with -200 at the placeholders.
            attention_mask: (batch, text) or None.
            labels: (batch, text) or None.
            images: one tensor per placeholder: (frames, 3, side, side) for a video, (tiles, 3, side, side) or
                (3, side, side) for an image; a tensor of five axes counts as a list. A tensor of four axes is a stack
                of plain images, which get no newline token (as in LLaVA-NeXT). A video may also be given as decoded,
                (frames, height, width, 3) uint8 RGB: pixel values are then made of a few frames at a time.
            image_sizes: (width, height) of each original image; videos may have any entry.
            modalities: ``"video"`` or ``"image"`` per placeholder, or one word for all; ``"image"`` by default.
        """
        encoder = VisualEncoder(self.model, self.config, self.visual_compressor)
        device = compute_device(self.model.embed_tokens)
        return splice(
            input_ids.to(device),
            None if attention_mask is None else attention_mask.to(device),
            None if labels is None else labels.to(device),
            encoder.encode(images, image_sizes, modalities),
            self.model.embed_tokens,
            getattr(self.config, "tokenizer_model_max_length", None),
        )

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        images: Tensor | Sequence[Tensor] | None = None,
        image_sizes: Sequence[tuple[int, int]] | None = None,
        modalities: str | Sequence[str] | None = None,
        video_spans: Tensor | None = None,
        logits_watch: LogitsWatch | None = None,
        cache: Any = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """One pass. Logits and labels are those of the spliced sequence (padded on the left).

        ``labels`` belong to ``input_ids``; visual tokens do not count. While tokens are merged inside the LLM, logits
        cover the kept tokens only and labels follow them. ``logits_watch`` is given by :meth:`generate`.

        Raises:
            InputError: if placeholders and visual inputs differ in number.
        """
        if cache is not None and past_key_values is not None:
            raise InputError("cache and past_key_values are one argument under two names: pass one")
        cache = past_key_values if cache is None else cache  # the name differs between releases of transformers
        prompt = {"attention_mask": attention_mask, "position_ids": position_ids, "inputs_embeds": inputs_embeds}
        if images is not None and inputs_embeds is None:
            if input_ids is None:
                raise InputError(_NO_IDS)
            spliced = self.splice_visuals(input_ids, attention_mask, labels, images, image_sizes, modalities)
            prompt, labels = spliced.arguments(), spliced.labels
        else:
            spans = video_spans if input_ids is None else _text_spans(input_ids, cache)
            prompt |= {"input_ids": input_ids, "video_spans": spans}
        outputs = self.model(**prompt, **{CALL_CACHE: cache}, use_cache=use_cache, **kwargs)
        hidden = outputs.last_hidden_state
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(hidden[:, kept, :])
        if logits_watch is not None:
            logits_watch.see(logits)
        return CausalLMOutputWithPast(
            loss=None if labels is None else self._loss(logits, labels, hidden.shape[1], **kwargs),
            logits=logits,
            **{OUTPUT_CACHE: cache_of(outputs)},
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _loss(self, logits: Tensor, labels: Tensor, seq: int, **kwargs: Any) -> Tensor:
        """Language modelling loss of ``seq`` positions; labels follow the tokens that a compressor kept."""
        if logits.shape[1] != seq:
            raise InputError(f"logits_to_keep leaves {logits.shape[1]} of {seq} positions, and labels need all: use 0")
        if self.visual_compressor is not None:
            labels = self.visual_compressor.align_labels(labels, seq)
        return self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)

    @torch.no_grad()
    def generate(
        self,
        inputs: Tensor | None = None,
        images: Tensor | Sequence[Tensor] | None = None,
        image_sizes: Sequence[tuple[int, int]] | None = None,
        modalities: str | Sequence[str] | None = None,
        decoding: str = "eager",
        **kwargs: Any,
    ) -> Any:
        """Generate from a prompt with images and videos; everything else goes to transformers' ``generate``.

        The ways of decoding give the same tokens up to rounding. All but the first keep the cache in place instead of
        copying it for every token. ``preallocated`` serves every method and option. ``static`` and ``graphs`` do greedy
        search and sampling on one device; they refuse what they cannot do.

        Args:
            inputs: (batch, text) int64 with -200 at the placeholders (also accepted as ``input_ids``).
            images: see :meth:`splice_visuals`; None for text only.
            image_sizes: see :meth:`splice_visuals`.
            modalities: see :meth:`splice_visuals`.
            decoding: ``eager`` (transformers' own), ``preallocated`` (the same with a
                :class:`~llava.model.growing_cache.GrowingCache`), ``static`` (one step over tensors that never move)
                or ``graphs`` (that step as a CUDA graph, captured in the first call and kept for later ones).
            **kwargs: ``attention_mask`` (batch, text) of any type, ``max_new_tokens``, ``stopping_criteria``, ...

        Returns:
            What transformers returns; sequences hold new tokens only.

        Raises:
            InputError: for arguments that do not go together, and if logits are not finite.
        """
        refuse_modes(self, kwargs)
        watch = kwargs["logits_watch"] = LogitsWatch()
        kwargs |= decoding_arguments(decoding, self.config.num_hidden_layers, kwargs)
        inputs, prompt = kwargs.pop("input_ids", None) if inputs is None else inputs, {}
        if inputs is not None:
            if images is None:
                _require_text(inputs)
            mask = kwargs.pop("attention_mask", None)
            spliced = self.splice_visuals(inputs, mask, None, [] if images is None else images, image_sizes, modalities)
            prompt = spliced.arguments()
            kwargs.pop("position_ids", None)
        elif images is not None:
            raise InputError(_NO_IDS)
        found = super().generate(**prompt, **kwargs)
        watch.check()
        return found


def _text_spans(input_ids: Tensor, cache: Any) -> Tensor | None:
    """Spans of a prompt without video, (batch, 0, 2); None for a later step, which continues what the cache holds."""
    first = cache is None or cache.get_seq_length() == 0
    if first or input_ids.shape[1] > 1:  # asking single tokens would make every decode step wait for the device
        _require_text(input_ids)
    return torch.zeros(input_ids.shape[0], 0, 2, dtype=torch.long) if first else None


def _require_text(input_ids: Tensor) -> None:
    """Placeholders without visual inputs would index the embedding table with -200."""
    holes = int((input_ids == IMAGE_TOKEN_INDEX).sum())
    if holes:
        raise InputError(f"the prompt has {holes} <image> placeholder(s) but no image or video: pass images=[...]")


AutoConfig.register("llava_qwen", LlavaQwenConfig, exist_ok=True)
AutoModelForCausalLM.register(LlavaQwenConfig, LlavaQwenForCausalLM, exist_ok=True)
