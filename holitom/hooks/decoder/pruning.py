"""Stages that keep the best tokens of every span and drop the others, as FastV and PyramidDrop do."""

from collections.abc import Sequence

from torch import Tensor

from holitom.hooks.decoder.decoder_state import ForwardCall
from holitom.hooks.decoder.inner_record import Counts
from holitom.hooks.decoder.rules import DecoderStage, StageRules
from holitom.hooks.decoder.staged import StagedCompression
from holitom.ops.pruning import prune_batch
from holitom.ops.short_sequences import ShortSequences


def prune(call: ForwardCall, counts: Counts, hidden: Tensor, scores: Tensor) -> ShortSequences:
    """The sequences with the ``counts`` best tokens of each span."""
    return prune_batch(hidden, scores, call.spans, call.first, counts)


def pruning_stages(stages: Sequence[DecoderStage]) -> StagedCompression:
    """Pruning by the last token's attention, applied to no decoder yet.

    Raises:
        InputError: if the stages' layers do not ascend.
    """
    return StagedCompression(stages, StageRules(prune))
