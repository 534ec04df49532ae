"""What inner merging knows about a forward call and about a sequence, as plain data without a model."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from holitom.inner_merging import Spans
from llava.errors import InputError


@dataclass(frozen=True)
class SequenceState:
    """Lengths of one sequence right after its prefill, kept as long as its cache lives; decode steps only read it.

    Attributes:
        batch: rows.
        long_seq: tokens in the layers before the merge layer.
        short_seq: tokens in the merge layer and after it.
        real_tokens: (batch, short_seq) bool, False at padding; None if no row has padding after the merge.
    """

    batch: int
    long_seq: int
    short_seq: int
    real_tokens: Tensor | None

    def check(self, batch: int, long_past: int, short_past: int) -> None:
        """Raise unless a cache of these lengths continues this sequence.

        Raises:
            RuntimeError: if rows were selected or repeated, or the cache was cropped into the prompt.
        """
        if batch != self.batch:
            raise RuntimeError(
                f"the cache was filled with {self.batch} rows and is continued with {batch}: rows cannot be selected "
                "or repeated after inner merging; prefill again with the rows you want"
            )
        if long_past < self.long_seq or long_past - self.long_seq != short_past - self.short_seq:
            raise RuntimeError(
                f"the cache holds {long_past} and {short_past} tokens before and after the merge layer, its prefill "
                f"left {self.long_seq} and {self.short_seq}: it was cropped into the prompt; prefill again"
            )


@dataclass
class ForwardCall:
    """One forward call of the decoder, from its pre-hook to its end.

    Attributes:
        padding_mask: the caller's 2D mask, (batch, past + seq), or None.
        spans: per row, the video spans to merge; empty in decode steps.
        first: per row, index of its first real token; empty in decode steps.
        state: lengths of the sequence; None in a prefill until the merge.
        scores: (batch, seq) fp32, set by the layer before the merge layer.
        mask: attention mask of the merge layer and the layers after it.
        position_embeddings: rotary cosines and sines of the same layers; None in decode steps, which keep their own.
    """

    padding_mask: Tensor | None
    spans: tuple[Spans, ...] = ()
    first: tuple[int, ...] = ()
    state: SequenceState | None = None
    scores: Tensor | None = None
    mask: Tensor | None = None
    position_embeddings: tuple[Tensor, Tensor] | None = None

    @property
    def prompt_padding(self) -> Tensor | None:
        """The prompt's 2D mask, or None where it masks nothing: library masks then stay None without a look at it."""
        return self.padding_mask if any(self.first) else None

    def real_tokens(self, incoming: int, long_mask: Tensor | None) -> Tensor | None:
        """2D mask over the cached and the ``incoming`` tokens of the short layers; None if nothing is masked.

        Args:
            incoming: tokens this call adds after the prefill, those in the cache included; 0 in the prefill.
            long_mask: the mask transformers made for the layers before; None says that it found no padding at all.

        Raises:
            InputError: if the caller's mask does not cover the cached and the new tokens.
        """
        state = self.state
        assert state is not None
        if state.real_tokens is None and (incoming == 0 or self.padding_mask is None or long_mask is None):
            return None
        prompt = state.real_tokens
        if prompt is None:
            assert self.padding_mask is not None
            prompt = self.padding_mask.new_ones(state.batch, state.short_seq, dtype=torch.bool)
        if self.padding_mask is None:
            return pad(prompt, (0, incoming), value=True)
        if self.padding_mask.shape[1] != state.long_seq + incoming:
            raise InputError(
                f"attention_mask has {self.padding_mask.shape[1]} columns: it must cover all {state.long_seq} + "
                f"{incoming} tokens of the prompt and after it; extend the mask of the prompt"
            )
        added = self.padding_mask[:, state.long_seq :].to(prompt.device)
        return torch.cat([prompt, added.bool()], dim=1)
