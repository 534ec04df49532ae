"""A prompt whose videos lost tokens: its embeddings, mask and positions, in the prefill and in later calls."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from holitom.errors import InputError
from holitom.hooks.prompt.prompt_layout import PlacedVideo
from holitom.ops.token_ops import upload
from holitom.tokens import CompressedTokens


@dataclass(frozen=True)
class ContractedBatch:
    """A left-padded batch without the tokens that compression removed.

    Attributes:
        embeds: (batch, short_seq, dim), zero at padding.
        kept: (batch, short_seq) int64, place of every token in the prompt before, a merged one at that of its
            representative; -1 at padding.
        spans: (batch, most, 2) int64 on the CPU, [start, stop) of each video; (0, 0) where a row has fewer.
        first: per row, index of its first real token.
        order: (batch, short_seq) int64 where other tokens stand between those of a video: ``spans`` then count in the
            order of the videos, what stands between the tokens of a video first, and this is the place in reading
            order of each token in that one; None where both are the same.
    """

    embeds: Float[Tensor, "batch short_seq dim"]
    kept: Int[Tensor, "batch short_seq"]
    spans: Int[Tensor, "batch most 2"]
    first: tuple[int, ...]
    order: Int[Tensor, "batch short_seq"] | None = None


def contract(
    embeds: Float[Tensor, "batch seq dim"],
    first: Sequence[int],
    videos: Sequence[Sequence[tuple[PlacedVideo, CompressedTokens]]],
) -> ContractedBatch:
    """Put the kept tokens of every video in the place of all its tokens.

    Args:
        embeds: the prompt with all visual tokens, left-padded.
        first: per row, index of its first real token.
        videos: per row, its videos in reading order with what is left of each.
    """
    rows = [_contract_row(*row) for row in zip(embeds, first, videos, strict=True)]
    short = max(len(row.states) for row in rows)
    gaps = tuple(short - len(row.states) for row in rows)
    table = torch.zeros(len(rows), max(len(row.spans) for row in rows), 2, dtype=torch.long)
    for number, (row, gap) in enumerate(zip(rows, gaps, strict=True)):
        for place, (start, stop) in enumerate(row.spans):
            table[number, place] = torch.tensor([start + gap, stop + gap])
    scattered = any(row.order is not None for row in rows)
    return ContractedBatch(
        torch.stack([pad(row.states, (0, 0, gap, 0)) for row, gap in zip(rows, gaps, strict=True)]),
        torch.stack([pad(row.kept, (gap, 0), value=-1) for row, gap in zip(rows, gaps, strict=True)]),
        table,
        gaps,
        torch.stack([_padded_order(row, gap) for row, gap in zip(rows, gaps, strict=True)]) if scattered else None,
    )


@dataclass(frozen=True)
class _Row:
    """One row without padding; see :class:`ContractedBatch`."""

    states: Tensor
    kept: Tensor
    spans: list[tuple[int, int]]
    order: Tensor | None


def _contract_row(states: Tensor, end: int, row: Sequence[tuple[PlacedVideo, CompressedTokens]]) -> _Row:
    """One row, whose first real token is ``end``.

    It is put together in the order of its videos: what stands between the pieces of a video, then all its tokens. Where
    there is anything between, a stable sort by the places of pieces and text gives the reading order.
    """
    numbers = torch.arange(states.shape[0], device=states.device)
    parts, kept, keys, length = [], [], [], 0
    spans: list[tuple[int, int]] = []
    scattered = False
    for placed, tokens in row:
        before, newline = slice(end, placed.start), slice(placed.stop - placed.grid.newlines, placed.stop)
        between = placed.between(numbers)
        at, piece = placed.places(tokens.index.to(numbers))
        start = length + placed.start - end + len(between)
        length = start + len(at) + placed.grid.newlines
        spans.append((start, length))
        parts += [states[before], placed.between(states), tokens.features.to(states), states[newline]]
        kept += [numbers[before], between, at, numbers[newline]]
        keys += [numbers[before], between, piece, numbers[newline]]
        scattered |= len(between) > 0
        end = placed.stop
    whole, places = torch.cat([*parts, states[end:]]), torch.cat([*kept, numbers[end:]])
    if not scattered:
        return _Row(whole, places, spans, None)
    order = torch.cat([*keys, numbers[end:]]).argsort(stable=True)
    return _Row(whole.index_select(0, order), places.index_select(0, order), spans, order.argsort())


def _padded_order(row: _Row, gap: int) -> Tensor:
    """``order`` of a row with ``gap`` tokens of padding before it."""
    numbers = torch.arange(gap + len(row.kept), device=row.kept.device)
    return numbers if row.order is None else torch.cat([numbers[:gap], row.order + gap])


def contracted_positions(
    position_ids: Tensor | None, batch: ContractedBatch, first: Sequence[int], seq: int, renumber: bool
) -> tuple[Tensor, Tensor]:
    """Positions of the tokens that are left, and how far those of later tokens move down.

    Args:
        position_ids: of the prompt before: (1 or batch, seq); with one plane per axis (3, batch, seq); those after one
            of plain positions (4, batch, seq); None for 0, 1, 2, ... from each row's first real token on.
        batch: what is left.
        first: per row, index of its first real token before.
        seq: tokens of the prompt before.
        renumber: number the tokens without gaps; planes per axis always stay, the plane before them never does.

    Returns:
        Positions shaped like those before, and (batch, 1) int64.
    """
    kept, rows = batch.kept, batch.kept.shape[0]
    begins, gaps = upload(kept.device, tuple(first), batch.first)
    if position_ids is None:
        position_ids = (torch.arange(seq, device=kept.device) - begins[:, None]).clamp(min=0)
    planes = position_ids.to(kept.device).view(-1, *position_ids.shape[-2:]).expand(-1, rows, -1)
    real = kept.clamp(min=0).expand(planes.shape[0], -1, -1)
    short = planes.gather(2, real).masked_fill(kept < 0, 0)
    shift = torch.zeros_like(begins)[:, None]
    if planes.shape[0] == 4 or (planes.shape[0] == 1 and renumber):
        start = planes[0].gather(1, begins[:, None])
        counted = (torch.arange(kept.shape[1], device=kept.device) - gaps[:, None]).clamp(min=0) + start
        shift = planes[0, :, -1:] - counted[:, -1:]
        short = torch.cat([counted.masked_fill(kept < 0, 0)[None], short[1:]])
    return (short[0] if position_ids.dim() == 2 else short), shift


@dataclass
class ContractedSequence:
    """What later calls must know of a contracted prompt.

    Attributes:
        seq: tokens of the prompt before, which the caller's masks and positions count.
        first: per row, index of its first real token in it.
        real_tokens: (batch, short_seq) bool, False at padding; None if no row has any.
        short_seq: tokens of the prompt that are left.
        shift: (batch, 1) int64, how far the plain positions of later tokens move down.
        tail: tokens of the prompt after its last video, which may be cropped from the cache again, as assisted decoding
            does with candidates that it prefilled along with the prompt.
        cached: tokens of the prompt in the first layer of the cache.
    """

    seq: int
    first: tuple[int, ...]
    real_tokens: Tensor | None
    short_seq: int
    shift: Tensor
    tail: int = 0
    cached: int = 0

    def incoming(self, past: int, new: int) -> int:
        """Tokens after the prompt once ``new`` are added to a cache of ``past``; below 0 if its end was cropped.

        Raises:
            RuntimeError: if the cache was cropped into the videos.
        """
        if past < self.cached - self.tail:
            raise RuntimeError(
                f"the cache holds {past} tokens, its prompt left {self.cached}: it was cropped into the prompt's "
                "videos; prefill again"
            )
        return past - self.cached + new

    def arguments(self, incoming: int, inputs: Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Keyword arguments of the decoder for a call with ``inputs`` that ends ``incoming`` tokens after the prompt.

        Raises:
            RuntimeError: if the call repeats tokens that are in the cache, or has other rows than the prompt.
            InputError: if the mask does not cover the prompt and what came after it.
        """
        rows, new = inputs.shape[:2]
        if rows != self.shift.shape[0]:
            raise RuntimeError(
                f"the cache was filled with {self.shift.shape[0]} rows and is continued with {rows}: rows cannot be "
                "selected or repeated after compression; prefill again with the rows you want"
            )
        return {
            **kwargs,
            "attention_mask": self._mask(incoming, kwargs.get("attention_mask")),
            "position_ids": self._positions(incoming, new, kwargs.get("position_ids"), inputs.device),
        }

    def _mask(self, incoming: int, mask: Tensor | None) -> Tensor | None:
        """2D mask of the tokens that are left and of those after the prompt; None if nothing is masked."""
        real = self.real_tokens
        if mask is None:
            return None if real is None else pad(real, (0, incoming), value=True)
        if mask.dim() != 2 or mask.shape[1] != self.seq + incoming:
            raise InputError(
                f"attention_mask of shape {tuple(mask.shape)}: it must be 2D and cover all {self.seq} + {incoming} "
                "tokens of the prompt and after it; extend the mask of the prompt, and continue a cache with new "
                "tokens only"
            )
        if real is None:
            real = mask.new_ones(mask.shape[0], self.short_seq, dtype=torch.bool)
        real = real[:, : self.short_seq + min(incoming, 0)]
        return torch.cat([real.to(mask.device), mask[:, self.seq :].bool()], dim=1)

    def _positions(self, incoming: int, new: int, given: Tensor | None, device: torch.device) -> Tensor:
        """Positions of the ``new`` tokens, shaped like those given."""
        shift = self.shift.to(device)
        end = self.seq + incoming
        counted = torch.arange(end - new, end, device=device) - upload(device, self.first)[0][:, None]
        if given is None:
            return counted - shift
        given = given.to(device)
        planes = given.view(-1, *given.shape[-2:])
        plain = planes.shape[0] in (1, 4)
        if new > 1 and plain and not bool((planes[0] == counted).all()):  # single tokens would wait for the device
            raise RuntimeError(
                f"a cache of a compressed prompt is continued at position {int(planes[0].min())}, not "
                f"{int(counted.min())}: pass the new tokens only, or the whole conversation without past_key_values"
            )
        if not plain:
            return given
        planes = torch.cat([(planes[:1] - shift).expand(1, shift.shape[0], -1), planes[1:]])
        return planes[0] if given.dim() == 2 else planes
