"""What a method of compression inside the LLM says: where its stages are, and what it does at them.

The machinery (:class:`~holitom.hooks.decoder.staged.StagedCompression`) is given both as values and knows no method.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from holitom.hooks.decoder.decoder_layers import score_tokens
from holitom.hooks.decoder.decoder_state import ForwardCall
from holitom.hooks.decoder.inner_record import Counts, count_tokens
from holitom.hooks.decoder.late_features import Again
from holitom.ops.short_sequences import ShortSequences, Spans


@dataclass(frozen=True)
class DecoderStage:
    """Where to shorten the sequence, and how far.

    Attributes:
        layer: index of the first decoder layer that sees fewer tokens; at least 1.
        kept: tokens left of a span, from its tokens in the prompt; a span never grows.
        setting: what the user calls ``layer``, for messages.
        scored_by: whose queries and keys score the tokens: the attention before the stage as it runs, or the stage's
            own layer, asked ahead of time.
        renumbers: kept tokens are numbered without gaps and later tokens move down; otherwise all keep their positions.
        keeps_all: no span is shortened whatever its length, so that the decoder may be called without spans.
        shrinks_cache: the layers before the stage forget the dropped tokens too once they have run.
    """

    layer: int
    kept: Callable[[int], int]
    setting: str = "layer"
    scored_by: Literal["layer_before", "own_layer"] = "layer_before"
    renumbers: bool = False
    keeps_all: bool = False
    shrinks_cache: bool = False


def stage_counts(stages: Sequence[DecoderStage], spans: tuple[Spans, ...]) -> list[Counts]:
    """Tokens that each stage leaves of every span of every row."""
    counts: list[Counts] = []
    current = original = count_tokens(spans)
    for stage in stages:
        pairs = [zip(*rows, strict=True) for rows in zip(original, current, strict=True)]
        current = tuple(tuple(min(now, stage.kept(length)) for length, now in row) for row in pairs)
        counts.append(current)
    return counts


def last_token_scores(call: ForwardCall, attention: Any, hidden: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """(batch, seq) fp32: the attention that the last token pays, from the layer-normed input of an attention module."""
    return score_tokens(attention, hidden, rotary, call.current_padding)


def planned_counts(stages: Sequence[DecoderStage], spans: tuple[Spans, ...], outer: Any) -> tuple[list[Counts], None]:
    """What the stages' own ``kept`` leave of every span of every row."""
    return stage_counts(stages, spans), None


@dataclass(frozen=True)
class StageRules:
    """What one method does at its stages where another does something else.

    Attributes:
        reduce: the sequences, given the running call, the tokens to leave of each span, the hidden states
            (batch, seq, dim) and the scores (batch, seq).
        score: (batch, seq) fp32 scores, given the call, an attention module, its layer-normed input and the rotary
            embeddings.
        plan: tokens that each stage leaves of every span of every row, and what ``reduce`` finds in ``call.notes``;
            given the stages, the spans and the record of what the outer stage did (None where it is unknown).
        scoring_mask: the mask under which the attention that scores runs, given the decoder's configuration, the call
            and the hidden states; None leaves the decoder's own.
        place: the stages of a decoder of so many layers, given the stages and that number; None takes them as they are.
        merges: ``reduce`` averages what goes into its most similar kept token, which costs a product of the two.
        again: other values of the tokens (batch, seq, dim), reduced as the states were, given what ``reduce`` returned
            and each row's first real token before; None gathers those of the kept tokens.

    All of them see the tokens in the order of the videos, see :mod:`~holitom.hooks.decoder.video_order`; ``again`` in
    reading order.
    """

    reduce: Callable[[ForwardCall, Counts, Tensor, Tensor], ShortSequences]
    score: Callable[[ForwardCall, Any, Tensor, tuple[Tensor, Tensor]], Tensor] = last_token_scores
    plan: Callable[[Sequence[DecoderStage], tuple[Spans, ...], Any], tuple[list[Counts], Any]] = planned_counts
    scoring_mask: Callable[[Any, ForwardCall, Tensor], Any] | None = None
    place: Callable[[tuple[DecoderStage, ...], int], tuple[DecoderStage, ...]] | None = None
    merges: bool = False
    again: Again | None = None
