"""Inner-LLM merging of HoliTom: one stage that averages tokens instead of dropping them."""

from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from holitom.hooks.decoder.decoder_layers import both_ways_mask
from holitom.hooks.decoder.decoder_state import ForwardCall
from holitom.hooks.decoder.inner_record import Counts
from holitom.hooks.decoder.rules import DecoderStage, StageRules
from holitom.hooks.decoder.staged import StagedCompression
from holitom.methods.holitom.batch_merging import merge_batch, merge_batch_again
from holitom.methods.holitom.config import PAPER_LAYERS, InnerConfig
from holitom.ops.short_sequences import ShortSequences, kept_length


def merging_stage(config: InnerConfig) -> StagedCompression:
    """Inner stage of HoliTom (Sec. 3.3), applied to no decoder yet.

    The attention of layer K-1 scores the tokens, layer K receives fewer of them, which hold their original positions:
    the tokens that are not kept are averaged into their nearest kept one. Layer K-1 loses its causal mask if asked to.
    """

    def reduce(call: ForwardCall, counts: Counts, hidden: Tensor, scores: Tensor) -> ShortSequences:
        return merge_batch(hidden, scores, call.spans, call.first, config.merge_ratio, config.merge_rule)

    def both_ways(decoder_config: Any, call: ForwardCall, hidden: Tensor) -> Any:
        return both_ways_mask(decoder_config, hidden, call.current_padding, [bool(row) for row in call.spans])

    def place(stages: tuple[DecoderStage, ...], depth: int) -> tuple[DecoderStage, ...]:
        return tuple(replace(stage, layer=config.layer_in(depth)) for stage in stages)

    kept = partial(kept_length, merge_ratio=config.merge_ratio)
    layer = config.layer_in(PAPER_LAYERS)  # until a decoder tells its depth
    stage = DecoderStage(layer, kept, "merge_layer", keeps_all=config.merge_ratio == 0)
    mask, again = None if config.causal else both_ways, partial(merge_batch_again, rule=config.merge_rule)
    return StagedCompression([stage], StageRules(reduce, scoring_mask=mask, place=place, merges=True, again=again))
