"""Videos whose tokens have others between them, as timestamps, seen as if each were in one piece.

Stages and methods speak of a video as ``[start, stop)``. Where timestamps stand between a video's frames these numbers
count in the order of the videos: what stands between the tokens of a video comes before all of them. The decoder knows
nothing of it; values are brought into that order for a method and back.
"""

from dataclasses import replace

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from holitom.ops.short_sequences import ShortSequences

Order = Int[Tensor, "batch seq"]  # for each token in the order of the videos its place in reading order


def in_video_order(values: Shaped[Tensor, "rows seq ..."], order: Order | None) -> Shaped[Tensor, "batch seq ..."]:
    """Values of the tokens in the order of the videos; ``rows`` is 1 or the batch."""
    if order is None:
        return values
    rows = values.expand(order.shape[0], *values.shape[1:])
    order = order.to(values.device)
    return rows.gather(1, order.view(*order.shape, *(1,) * (values.dim() - 2)).expand_as(rows))


def in_reading_order(values: Shaped[Tensor, "batch seq"], order: Order | None) -> Shaped[Tensor, "batch seq"]:
    """The inverse."""
    return values if order is None else torch.empty_like(values).scatter_(1, order.to(values.device), values)


def reduced_in_reading_order(reduced: ShortSequences, order: Order | None) -> tuple[ShortSequences, Order | None]:
    """What a stage made of a batch in the order of the videos, in reading order, and the order of what is left."""
    if order is None:
        return reduced, None
    order = order.to(reduced.kept.device)
    kept = order.gather(1, reduced.kept.clamp(min=0)).masked_fill(reduced.kept < 0, -1)
    by_place = kept.argsort(stable=True)  # padding, -1, stays first
    source = order.gather(1, reduced.source.clamp(min=0)).masked_fill(reduced.source < 0, -1)
    sorted_batch = replace(
        reduced,
        hidden=in_video_order(reduced.hidden, by_place),
        kept=kept.gather(1, by_place),
        source=in_reading_order(source, order),
    )
    return sorted_batch, by_place.argsort()
