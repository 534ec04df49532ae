"""Inner-LLM merging of HoliTom: one stage that averages tokens instead of dropping them."""

from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from holitom.hooks.decoder.decoder_layers import HookResult, both_ways_mask
from holitom.hooks.decoder.decoder_state import ForwardCall
from holitom.hooks.decoder.inner_record import Counts, InnerRecord
from holitom.hooks.decoder.staged import StagedCompression
from holitom.hooks.decoder.stages import Stage
from holitom.methods.holitom.config import PAPER_LAYERS, InnerConfig
from holitom.methods.holitom.inner_merging import merge_batch
from holitom.ops.short_sequences import MergedBatch, kept_length

__all__ = ["InnerMerging", "InnerRecord"]


class InnerMerging(StagedCompression):
    """Inner stage of HoliTom (Sec. 3.3) on one decoder; see :class:`~holitom.hooks.decoder.staged.StagedCompression`.

    The attention of layer K-1 scores the tokens, layer K receives fewer of them, which hold their original positions.

    Attributes:
        config: the settings.
        last: what the latest prefill did, None before the first.
    """

    def __init__(self, config: InnerConfig) -> None:
        self.config = config
        kept = partial(kept_length, merge_ratio=config.merge_ratio)
        layer = config.layer_in(PAPER_LAYERS)  # until a decoder tells its depth
        super().__init__([Stage(layer, kept, "merge_layer", keeps_all=config.merge_ratio == 0)])

    def _register(self, decoder: nn.Module) -> None:
        layers: Any = getattr(decoder, "layers", None) or ()
        self.stages = (replace(self.stages[0], layer=self.config.layer_in(len(layers))),)
        super()._register(decoder)

    def _reduce(self, call: ForwardCall, counts: Counts, hidden: Tensor, scores: Tensor) -> MergedBatch:
        """Average the tokens that are not kept into their nearest kept one."""
        ratio, rule = self.config.merge_ratio, self.config.merge_rule
        return merge_batch(hidden, scores, call.spans, call.first, ratio, rule)

    def _enter_scoring(
        self, stage: Stage, attention: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> HookResult:
        """Pre-hook of layer K-1's attention: score the tokens in a prefill; undo its causal mask if asked to."""
        super()._enter_scoring(stage, attention, args, kwargs)
        call = self._call
        if call is None or call.decoding or self.config.causal:
            return None
        with_video = [bool(row) for row in call.spans]
        mask = both_ways_mask(self._decoder.config, kwargs["hidden_states"], call.current_padding, with_video)
        return args, {**kwargs, "attention_mask": mask, "is_causal": False}
