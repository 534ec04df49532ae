"""Visual features into the text: one embedded, left-padded batch from token ids and features."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.errors import InputError


@dataclass(frozen=True)
class VisualTokens:
    """What stands at one ``<image>`` placeholder.

    Attributes:
        features: (tokens, dim), newline tokens included.
        is_video: whether compression inside the LLM may touch it.
        positions: (tokens,) int64 on any device, place of each token in the uncompressed video, ascending; None for
            0, 1, 2, ...
        extent: how many positions the uncompressed video takes; only used with ``positions``.
    """

    features: Tensor
    is_video: bool
    positions: Tensor | None = None
    extent: int = 0


@dataclass(frozen=True)
class SplicedBatch:
    """A batch ready for the decoder; every row is padded on the left.

    Attributes:
        inputs_embeds: (batch, seq, dim).
        attention_mask: (batch, seq) int64, 0 for padding.
        position_ids: (batch, seq) int64, 0 at padding and at the first token; with gaps where a video asks for them.
        labels: (batch, seq) int64 or None; visual tokens and padding are ``IGNORE_INDEX``.
        video_spans: (batch, spans, 2) int64 on the CPU, [start, stop) of each video; (0, 0) where a row has fewer.
    """

    inputs_embeds: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    labels: Tensor | None
    video_spans: Tensor

    def arguments(self) -> dict[str, Tensor | None]:
        """Of the decoder."""
        return {
            "inputs_embeds": self.inputs_embeds,
            "attention_mask": self.attention_mask,
            "position_ids": self.position_ids,
            "video_spans": self.video_spans,
        }


@dataclass
class _Row:
    embeds: Tensor
    labels: Tensor | None
    positions: Tensor
    spans: list[tuple[int, int]]


def _placeholders(ids: Tensor) -> list[int]:
    return (ids == IMAGE_TOKEN_INDEX).nonzero().flatten().tolist()


def _splice_row(ids: Tensor, labels: Tensor | None, visuals: Sequence[VisualTokens], embed: Callable) -> _Row:
    """One row: text between the placeholders, features in their place."""
    holes = _placeholders(ids)
    text_ids = ids[ids != IMAGE_TOKEN_INDEX]
    bounds = [-1, *holes, ids.shape[0]]
    lengths = [stop - start - 1 for start, stop in itertools.pairwise(bounds)]
    texts = list(embed(text_ids).split(lengths))
    text_labels = list(labels[ids != IMAGE_TOKEN_INDEX].split(lengths)) if labels is not None else None
    parts, label_parts, spans = [texts[0]], [text_labels[0]] if text_labels else [], []
    length = lengths[0]
    position = lengths[0]
    positions = [torch.arange(position, device=ids.device)]
    for number, visual in enumerate(visuals):
        features = visual.features.to(texts[0])
        count = features.shape[0]
        inside = torch.arange(count, device=ids.device) if visual.positions is None else visual.positions.to(ids.device)
        after = position + (count if visual.positions is None else visual.extent)
        positions += [position + inside, torch.arange(after, after + lengths[number + 1], device=ids.device)]
        position = after + lengths[number + 1]
        if visual.is_video:
            spans.append((length, length + count))
        parts += [features, texts[number + 1]]
        if text_labels:
            ignored = ids.new_full((count,), IGNORE_INDEX)
            label_parts += [ignored, text_labels[number + 1]]
        length += count + lengths[number + 1]
    return _Row(torch.cat(parts), torch.cat(label_parts) if text_labels else None, torch.cat(positions), spans)


def _left_pad(rows: Sequence[Tensor], value: int) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value, padding_side="left")


def _check_counts(rows: Sequence[Tensor], visuals: Sequence[VisualTokens]) -> list[int]:
    """Placeholders per row; their sum must be the number of visual inputs."""
    counts = [len(_placeholders(ids)) for ids in rows]
    if sum(counts) != len(visuals):
        raise InputError(
            f"the prompt has {sum(counts)} <image> placeholder(s) for {len(visuals)} image(s) and video(s): "
            "write one <image> for each of them"
        )
    return counts


def _check_ids(input_ids: Tensor, attention_mask: Tensor | None, labels: Tensor | None) -> None:
    shape = tuple(input_ids.shape)
    if input_ids.dim() != 2 or 0 in shape or input_ids.is_floating_point():
        raise InputError(
            f"input_ids of shape {shape} and type {input_ids.dtype}: they must be integers (batch, text); "
            "for one prompt write input_ids[None]"
        )
    for name, other in (("attention_mask", attention_mask), ("labels", labels)):
        if other is not None and tuple(other.shape) != shape:
            raise InputError(f"{name} of shape {tuple(other.shape)} for input_ids of shape {shape}: they must be equal")


def splice(
    input_ids: Tensor,
    attention_mask: Tensor | None,
    labels: Tensor | None,
    visuals: Sequence[VisualTokens],
    embed: Callable[[Tensor], Tensor],
    max_length: int | None,
) -> SplicedBatch:
    """Replace each placeholder by its features, in order over the rows of the batch.

    Args:
        input_ids: (batch, text) int64 with ``IMAGE_TOKEN_INDEX`` at the placeholders.
        attention_mask: (batch, text), falsy where a row is padded (on either side), or None.
        labels: (batch, text) int64 or None.
        visuals: one entry per placeholder of the whole batch.
        embed: token ids to embeddings.
        max_length: longest sequence the LLM was made for, or None.

    Raises:
        InputError: if placeholders and visual inputs differ in number, or a row is longer than ``max_length``.
    """
    _check_ids(input_ids, attention_mask, labels)
    keep = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
    ids = [row[mask] for row, mask in zip(input_ids, keep, strict=True)]
    row_labels = [None] * len(ids) if labels is None else [row[mask] for row, mask in zip(labels, keep, strict=True)]
    left = iter(visuals)
    rows = [
        _splice_row(row_ids, row_label, list(itertools.islice(left, count)), embed)
        for row_ids, row_label, count in zip(ids, row_labels, _check_counts(ids, visuals), strict=True)
    ]
    return _padded(rows, max_length)


def _padded(rows: Sequence[_Row], max_length: int | None) -> SplicedBatch:
    """The rows as one batch."""
    lengths = [row.embeds.shape[0] for row in rows]
    seq = max(lengths)
    if max_length is not None and seq > max_length:
        raise InputError(
            f"the prompt has {seq} tokens, more than the {max_length} this checkpoint was made for: "
            "use fewer frames, or compress to a lower retain_ratio"
        )
    device, padding = rows[0].positions.device, [seq - length for length in lengths]
    real = torch.arange(seq, device=device)[None] >= torch.tensor(padding, device=device)[:, None]
    most = max((len(row.spans) for row in rows), default=0)
    spans = torch.zeros(len(rows), most, 2, dtype=torch.long)
    for number, row in enumerate(rows):
        for place, (start, stop) in enumerate(row.spans):
            spans[number, place] = torch.tensor([start, stop]) + padding[number]
    labels = [row.labels for row in rows if row.labels is not None]
    return SplicedBatch(
        inputs_embeds=_left_pad([row.embeds for row in rows], 0),
        attention_mask=real.long(),
        position_ids=_left_pad([row.positions for row in rows], 0),
        labels=_left_pad(labels, IGNORE_INDEX) if labels else None,
        video_spans=spans,
    )
