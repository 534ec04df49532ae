"""Newline tokens: the learned vector that ends a video, a frame or a grid row."""

import math

import torch
from torch import Tensor

from llava.errors import InputError

MODES = ("one_token", "grid", "frame", "no_token")


def count_newlines(frames: int, mode: str, tokens_per_frame: int) -> int:
    """Newline tokens of an uncompressed video; see :func:`insert_newlines`.

    Raises:
        InputError: for an unknown mode.
    """
    counts = {"one_token": 1, "grid": frames * math.isqrt(tokens_per_frame), "frame": frames, "no_token": 0}
    if mode not in counts:
        raise InputError(f"mm_newline_position = {mode!r} is not supported: use one of {', '.join(MODES)}")
    return counts[mode]


def newlines_before(index: Tensor, mode: str, tokens_per_frame: int, every_row: bool = False) -> Tensor:
    """How many newline tokens stand in front of each token of a video, (kept,) int64; see :func:`insert_newlines`."""
    if mode not in ("grid", "frame"):
        return torch.zeros_like(index)
    group = index // (math.isqrt(tokens_per_frame) if mode == "grid" else tokens_per_frame)
    if every_row and mode == "grid":
        return group
    before = torch.zeros_like(index)
    before[1:] = (group[1:] != group[:-1]).cumsum(0)
    return before


def insert_newlines(
    features: Tensor, index: Tensor, newline: Tensor, mode: str, tokens_per_frame: int, every_row_of: int | None = None
) -> Tensor:
    """Put newline tokens into the tokens of one video, of which some may have been compressed away.

    Args:
        features: (kept, dim), in reading order.
        index: (kept,) int64, frame * tokens_per_frame + position in the frame of each token; ascending in the modes
            ``grid`` and ``frame``.
        newline: (dim,).
        mode: ``one_token`` (one at the end), ``grid`` (after every grid row that holds a token), ``frame`` (after
            every frame that holds a token) or ``no_token``.
        tokens_per_frame: a square number in mode ``grid``.
        every_row_of: frames of the video if in mode ``grid`` a newline follows every row, also one that holds no token.

    Returns:
        (kept + newlines, dim).

    Raises:
        InputError: for an unknown mode.
    """
    newline = newline.to(features)
    if mode == "no_token":
        return features
    if mode == "one_token":
        return torch.cat([features, newline[None]])
    if mode not in ("grid", "frame"):
        raise InputError(f"mm_newline_position = {mode!r} is not supported: use one of {', '.join(MODES)}")
    kept = features.shape[0]
    before = newlines_before(index, mode, tokens_per_frame, every_row_of is not None)
    if every_row_of is not None and mode == "grid":
        newlines = count_newlines(every_row_of, mode, tokens_per_frame)
    elif kept:
        newlines = int(before[-1]) + 1
    else:
        return features  # no row holds a token
    out = newline.expand(kept + newlines, -1).clone()
    out[torch.arange(kept, device=features.device) + before] = features
    return out
