"""Tokens of the merged frames that reach the LLM, for EarlyTom (arXiv 2605.30010; decoupled selection)."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from holitom.ops.token_ops import highest, packed_positions, upload


def ratio_after_merging(retain_ratio: float, frames: int, merged_frames: int) -> float:
    """Share to keep of the tokens of the merged frames, so that ``retain_ratio`` of all tokens is left; at most 1."""
    return min(1.0, retain_ratio * (frames / merged_frames))


def edge_count(tokens: int, ratio: float) -> int:
    """Tokens of the first and last frame of a segment.

    >>> edge_count(196, 0.4)
    79
    """
    return math.ceil(tokens * ratio)


def middle_count(tokens: int, ratio: float) -> int:
    """Tokens of a frame between them, halves to even, at least one.

    >>> middle_count(14, 0.25), middle_count(10, 0.25)
    (4, 2)
    """
    return max(1, round(tokens * ratio))


def windows(tokens: int, count: int) -> list[int]:
    """Lengths of ``count`` consecutive windows over a frame, the first ones longer by one.

    >>> windows(14, 4)
    [4, 4, 3, 3]
    """
    return [tokens // count + (number < tokens % count) for number in range(count)]


def edge_frames(groups: list[tuple[int, int]]) -> list[bool]:
    """Which frames are the first or last of their group."""
    return [frame in (first, last) for first, last in groups for frame in range(first, last + 1)]


def select_tokens(
    received_attention: Float[Tensor, "frames tokens"], groups: list[tuple[int, int]], ratio: float
) -> Int[Tensor, " kept"]:
    """Choose tokens by the attention they receive: the best of an edge frame, the best of every window of another.

    Args:
        received_attention: finite, pooled like the features.
        groups: first and last frame of every group of similar frames, inclusive.
        ratio: share to keep, from :func:`ratio_after_merging`.

    Returns:
        frame * tokens + position of the kept tokens, frame by frame in raster order; ties go to the lower position.
    """
    frames, tokens = received_attention.shape
    device = received_attention.device
    edge = edge_frames(groups)
    at_edge, between = [f for f in range(frames) if edge[f]], [f for f in range(frames) if not edge[f]]
    many, some = edge_count(tokens, ratio), middle_count(tokens, ratio)
    lengths = windows(tokens, some)
    places = [place for window, length in enumerate(lengths) for place in range(length)]
    in_window = [window for window, length in enumerate(lengths) for _ in range(length)]
    edge_at, middle_at, window, place = upload(device, at_edge, between, in_window, places)
    chosen = torch.zeros(frames, tokens, dtype=torch.bool, device=device)
    scores = received_attention.index_select(0, edge_at)
    counts = torch.full((len(at_edge),), many, device=device)
    chosen.index_copy_(0, edge_at, highest(scores, torch.ones_like(scores, dtype=torch.bool), counts))
    table = received_attention.new_full((len(between), some, max(lengths)), -torch.inf)
    table[:, window, place] = received_attention.index_select(0, middle_at)
    starts = torch.arange(tokens, device=device)[place == 0]
    best = table.argmax(-1) + starts
    chosen.index_copy_(0, middle_at, torch.zeros_like(chosen[: len(between)]).scatter_(1, best, True))
    return packed_positions(chosen.view(1, -1), len(at_edge) * many + len(between) * some)[0]
