"""Spatial pooling of video frames, 27 x 27 to 14 x 14 tokens."""

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from llava.errors import InputError

MODES = ("bilinear", "average", "max")


def pool_frames(features: Tensor, stride: int, mode: str) -> Tensor:
    """Pool the square token grid of every frame.

    ``bilinear`` resizes to ceil(side / stride) with half-pixel centres (LLaVA-OneVision); ``average`` and ``max``
    pool without overlap (LLaVA-Video: 27 to 13). Any per-patch signal can be pooled the same way as a channel.

    Args:
        features: (frames, side * side, dim).
        stride: factor per axis.
        mode: one of :data:`MODES`.

    Returns:
        (frames, pooled side * pooled side, dim).

    Raises:
        InputError: for an unknown mode, a stride below 1, or a number of tokens that is no square.
    """
    frames, tokens, dim = features.shape
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise InputError(
            f"{tokens} tokens per frame are not a square grid; pass the tower's patches without a class token"
        )
    if not 1 <= stride <= side:
        raise InputError(f"mm_spatial_pool_stride = {stride} is out of range: it must lie between 1 and {side}; use 2")
    grid = features.view(frames, side, side, dim).permute(0, 3, 1, 2)
    if mode == "bilinear":
        pooled = F.interpolate(grid, size=[math.ceil(side / stride)] * 2, mode="bilinear")
    elif mode == "average":
        pooled = F.avg_pool2d(grid, stride)
    elif mode == "max":
        pooled = F.max_pool2d(grid, stride)
    else:
        raise InputError(f"mm_spatial_pool_mode = {mode!r} is not supported: use one of {', '.join(MODES)}")
    return pooled.flatten(2).transpose(1, 2)


@cache
def pooled_tokens(tokens: int, stride: int, mode: str) -> int:
    """Tokens that :func:`pool_frames` makes of ``tokens``; kept, since finding out takes milliseconds."""
    with torch.device("meta"):
        return pool_frames(torch.empty(1, tokens, 1), stride, mode).shape[1]
