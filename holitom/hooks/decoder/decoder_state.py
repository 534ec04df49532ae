"""What inner compression knows about a forward call and about a sequence, as plain data without a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from holitom.errors import InputError
from holitom.hooks.decoder.inner_record import Counts, StageRecord
from holitom.ops.short_sequences import Spans

if TYPE_CHECKING:
    from llava.model.visual_compressor import LayerPrompt


@dataclass(frozen=True)
class StageState:
    """One stage of one sequence right after its prefill.

    Attributes:
        seq: tokens in the stage's layer and in those after it, up to the next stage.
        real_tokens: (batch, seq) bool, False at padding; None if no row has padding here.
        shift: (batch, 1) int64, how far the positions of later tokens move down; None if they stay.
    """

    seq: int
    real_tokens: Tensor | None
    shift: Tensor | None = None


@dataclass
class SequenceState:
    """Lengths of one sequence right after its prefill, kept as long as its cache lives; decode steps only read it.

    Attributes:
        batch: rows.
        long_seq: tokens of the prompt, which the caller's masks count.
        long_cached: tokens of the prompt in the cache of the layers before the first stage.
        stages: one entry per stage, in the order of the layers.
    """

    batch: int
    long_seq: int
    long_cached: int
    stages: list[StageState] = field(default_factory=list)

    def check(self, batch: int, long_past: int, short_pasts: Sequence[int]) -> None:
        """Raise unless a cache of these lengths continues this sequence.

        Args:
            batch: rows of the call.
            long_past: tokens in the cache before the first stage.
            short_pasts: tokens in the cache of each stage's layer.

        Raises:
            RuntimeError: if rows were selected or repeated, or the cache was cropped into the prompt.
        """
        if batch != self.batch:
            raise RuntimeError(
                f"the cache was filled with {self.batch} rows and is continued with {batch}: rows cannot be selected "
                "or repeated after inner compression; prefill again with the rows you want"
            )
        left = [self.long_cached, *(stage.seq for stage in self.stages)]
        added = [past - length for past, length in zip([long_past, *short_pasts], left, strict=True)]
        if added[0] < 0 or len(set(added)) > 1:
            raise RuntimeError(
                f"the cache holds {[long_past, *short_pasts]} tokens before the first stage and after each stage, its "
                f"prefill left {left}: it was cropped into the prompt; prefill again"
            )

    def layer_prompts(self, starts: Sequence[int], layers: int, shrunk: bool) -> list[LayerPrompt | None]:
        """What each layer of the cache holds right after the prefill.

        Args:
            starts: first layer of each stage.
            layers: of the decoder.
            shrunk: whether the layers before the first stage forgot what it dropped.

        Returns:
            None for layers that hold the whole prompt.
        """
        from llava.model.visual_compressor import LayerPrompt  # noqa: PLC0415  (our runtime alone asks)

        prompts = [LayerPrompt(stage.real_tokens, stage.shift) for stage in self.stages]
        before = LayerPrompt(self.stages[0].real_tokens) if shrunk else None
        reached = [sum(start <= layer for start in starts) for layer in range(layers)]
        return [prompts[count - 1] if count else before for count in reached]


@dataclass
class ForwardCall:
    """One forward call of the decoder, from its pre-hook to its end.

    Attributes:
        padding_mask: the caller's 2D mask, (batch, past + seq), or None.
        state: lengths of the sequence; in a prefill its stages are added one by one.
        decoding: whether the call continues a filled cache.
        prompt_spans: per row, the video spans in the prompt; empty in decode steps, as everything up to ``records``.
        prompt_first: per row, index of its first real token in the prompt.
        counts: per stage and row, tokens each span keeps.
        notes: what the method's rules found out along with the counts.
        spans: per row, where the spans are after the latest stage.
        first: per row, index of its first real token after the latest stage.
        kept: (batch, seq) positions in the prompt of the tokens after the latest stage; None before the first.
        source: (batch, long_seq) int64, see :class:`~holitom.hooks.decoder.inner_record.InnerRecord`; None before.
        records: what the stages did.
        scores: (batch, seq) fp32 scores of the tokens that enter the next stage, or entered the latest.
        mask: attention mask of the latest stage's layers.
        position_embeddings: rotary cosines and sines of the same layers; None where they keep the decoder's.
        order: (batch, seq) int64 after the latest stage; the spans count in this order, see
            :mod:`~holitom.hooks.decoder.video_order`. None where it is the reading order.
        prompt_order: the same before the first stage.
        late: (batch, seq, dim) by layer, features that are added behind layers of the stages, see
            :mod:`~holitom.hooks.decoder.late_features`.
    """

    padding_mask: Tensor | None
    state: SequenceState
    decoding: bool = False
    prompt_spans: tuple[Spans, ...] = ()
    prompt_first: tuple[int, ...] = ()
    counts: Sequence[Counts] = ()
    notes: Any = None
    spans: tuple[Spans, ...] = ()
    first: tuple[int, ...] = ()
    kept: Tensor | None = None
    source: Tensor | None = None
    records: list[StageRecord] = field(default_factory=list)
    scores: Tensor | None = None
    mask: Tensor | None = None
    position_embeddings: tuple[Tensor, Tensor] | None = None
    order: Tensor | None = None
    prompt_order: Tensor | None = None
    late: dict[int, Tensor] = field(default_factory=dict)

    @property
    def current_padding(self) -> Tensor | None:
        """2D mask of a prefill's tokens after the latest stage, or None where it masks nothing.

        Library masks then stay None without a look at it.
        """
        if self.state.stages:
            return self.state.stages[-1].real_tokens
        return self.padding_mask if any(self.first) else None

    def real_tokens(self, stage: int, incoming: int, long_mask: Tensor | None) -> Tensor | None:
        """2D mask over the cached and the ``incoming`` tokens of one stage's layers; None if nothing is masked.

        Args:
            stage: index of the stage.
            incoming: tokens this call adds after the prefill, those in the cache included; 0 in the prefill.
            long_mask: the mask transformers made for the layers before; None says that it found no padding at all.

        Raises:
            InputError: if the caller's mask does not cover the cached and the new tokens.
        """
        state, prompt = self.state, self.state.stages[stage].real_tokens
        if prompt is None and (incoming == 0 or self.padding_mask is None or long_mask is None):
            return None
        if prompt is None:
            assert self.padding_mask is not None
            prompt = self.padding_mask.new_ones(state.batch, state.stages[stage].seq, dtype=torch.bool)
        if self.padding_mask is None or incoming == 0:
            return pad(prompt, (0, incoming), value=True)
        if self.padding_mask.shape[1] != state.long_seq + incoming:
            raise InputError(
                f"attention_mask has {self.padding_mask.shape[1]} columns: it must cover all {state.long_seq} + "
                f"{incoming} tokens of the prompt and after it; extend the mask of the prompt"
            )
        added = self.padding_mask[:, state.long_seq :].to(prompt.device)
        return torch.cat([prompt, added.bool()], dim=1)
