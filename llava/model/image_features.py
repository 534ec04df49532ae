"""Packing the tiles of an any-resolution image: unpad, shrink, end every row with a newline."""

import math
import re

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.models.llava_onevision.modeling_llava_onevision import get_anyres_image_grid_shape, unpad_image

from llava.errors import InputError

_SHRINK_ABOVE = 1.1  # how far over the tile limit the side lengths may be before the tiles are shrunk


def _shrink(grid: Tensor, tiles: int, side: int) -> Tensor:
    """Resize (dim, height, width) to about ``tiles`` tiles if it holds clearly more."""
    _, height, width = grid.shape
    ratio = math.sqrt(height * width / (tiles * side**2))
    if ratio <= _SHRINK_ABOVE:
        return grid
    return F.interpolate(grid[None], [int(height // ratio), int(width // ratio)], mode="bilinear")[0]


def pack_image(
    features: Tensor,
    image_size: tuple[int, int] | None,
    newline: Tensor | None,
    aspect_rule: str,
    pinpoints: list[tuple[int, int]],
    tower_side: int,
) -> Tensor:
    """Tokens of one image in reading order.

    Args:
        features: (tiles, patches, dim); one tile for a plain image, else the whole image first and then its tiles.
        image_size: (height, width) of the original image; needed for several tiles.
        newline: (dim,), or None for checkpoints whose merge type does not unpad.
        aspect_rule: ``config.image_aspect_ratio``; ``anyres_max_N`` limits the image to about N tiles.
        pinpoints: resolutions (height, width) the tiles were cut from.
        tower_side: pixels per tile side.

    Returns:
        (tokens, dim).

    Raises:
        InputError: if the number of tiles does not belong to ``image_size``.
    """
    tiles, patches, dim = features.shape
    if tiles == 1:
        return features[0] if newline is None else torch.cat([features[0], newline[None].to(features)])
    if image_size is None:
        raise InputError(
            f"{tiles} tiles were given without image_sizes: pass image_sizes=[(width, height)], "
            "or modalities=['video'] if they are the frames of a video"
        )
    side = math.isqrt(patches)
    rows, cols = get_anyres_image_grid_shape(image_size, [list(pair) for pair in pinpoints], tower_side)
    if rows * cols != tiles - 1:
        raise InputError(
            f"{tiles} tiles do not belong to an image of (height, width) = {tuple(image_size)}, which has "
            f"{rows} x {cols} + 1; pass modalities=['video'] if they are the frames of a video"
        )
    grid = features[1:].view(rows, cols, side, side, dim)
    if newline is None:
        return torch.cat([features[0], grid.transpose(1, 2).reshape(-1, dim)])
    grid = unpad_image(grid.permute(4, 0, 2, 1, 3).flatten(1, 2).flatten(2, 3), tuple(image_size))
    limit = re.fullmatch(r"anyres_max_(\d+)", aspect_rule)
    if limit:
        grid = _shrink(grid, int(limit.group(1)), side)
    column = newline.to(grid)[:, None, None].expand(dim, grid.shape[1], 1)
    return torch.cat([features[0], torch.cat([grid, column], dim=-1).flatten(1).transpose(0, 1)])
