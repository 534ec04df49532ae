"""Inner-LLM merging of HoliTom: one stage that averages tokens instead of dropping them."""

from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from holitom.hooks.decoder.decoder_layers import both_ways_mask
from holitom.hooks.decoder.decoder_state import ForwardCall
from holitom.hooks.decoder.inner_record import Counts, InnerRecord
from holitom.hooks.decoder.staged import StagedCompression, StageRules
from holitom.hooks.decoder.stages import Stage
from holitom.methods.holitom.config import PAPER_LAYERS, InnerConfig
from holitom.methods.holitom.inner_merging import merge_batch, merge_batch_again
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
        stage = Stage(layer, kept, "merge_layer", keeps_all=config.merge_ratio == 0)
        super().__init__([stage], merging_rules(config))


def merging_rules(config: InnerConfig) -> StageRules:
    """Average the tokens that are not kept into their nearest kept one; undo the causal mask of layer K-1 if asked."""

    def reduce(call: ForwardCall, counts: Counts, hidden: Tensor, scores: Tensor) -> MergedBatch:
        return merge_batch(hidden, scores, call.spans, call.first, config.merge_ratio, config.merge_rule)

    def both_ways(decoder_config: Any, call: ForwardCall, hidden: Tensor) -> Any:
        return both_ways_mask(decoder_config, hidden, call.current_padding, [bool(row) for row in call.spans])

    def place(stages: tuple[Stage, ...], depth: int) -> tuple[Stage, ...]:
        return tuple(replace(stage, layer=config.layer_in(depth)) for stage in stages)

    again = partial(merge_batch_again, rule=config.merge_rule)
    return StageRules(reduce, scoring_mask=None if config.causal else both_ways, place=place, again=again)
