"""The code every patch is trained towards: what it shows and where it is, in directions at right angles to each other.

The tower and projector learn to produce these codes from pixels, so the language model can start learning on exact
codes before any pixel is drawn. Two unequal scenes share only their place: cosine 0.4. An object on a scene does, too.
"""

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eval.synthetic.world.events import COLORS, SCENES, SHAPES, World
from eval.synthetic.world.raster import composition

DIM = 128
GRID = 16  # patches per side of a frame
POOLED = 8  # tokens per side after 2 x 2 pooling
_ANCHORS = 8  # directions per axis of the place
_CONTENT, _PLACE = 0.6, 0.4  # shares of the squared length
_SEED = 20505


@cache
def directions() -> dict[str, Tensor]:
    """Orthonormal rows by name: color ``(7, 128)``, shape ``(6, 128)``, scene ``(6, 128)``, x and y ``(8, 128)``."""
    generator = torch.Generator().manual_seed(_SEED)
    basis = torch.linalg.qr(torch.randn(DIM, DIM, generator=generator, dtype=torch.float64)).Q.T.float()
    sizes = {"color": len(COLORS), "shape": len(SHAPES), "scene": len(SCENES), "x": _ANCHORS, "y": _ANCHORS}
    parts = torch.split(basis[: sum(sizes.values())], list(sizes.values()))
    return dict(zip(sizes, parts, strict=True))


@cache
def place_codes(cells: int) -> Tensor:
    """Place part of each cell's code, row by row, ``(cells * cells, 128)``; neighbours are alike."""
    middles = (torch.arange(cells) + 0.5) / cells
    anchors = (torch.arange(_ANCHORS) + 0.5) / _ANCHORS
    weights = torch.exp(-0.5 * ((middles[:, None] - anchors) * _ANCHORS / 0.8) ** 2)
    weights = weights / weights.norm(dim=1, keepdim=True) * (_PLACE / 2) ** 0.5
    x, y = weights @ directions()["x"], weights @ directions()["y"]
    return (y[:, None] + x[None, :]).reshape(cells * cells, DIM)


def content_codes(world: World) -> Tensor:
    """Content part of the codes of a world's shots, then of its objects, ``(shots + things, 128)``."""
    named = directions()
    rows = [named["scene"][SCENES.index(shot.scene)] * _CONTENT**0.5 for shot in world.shots]
    for thing in world.things:
        both = named["color"][COLORS.index(thing.color)] + named["shape"][SHAPES.index(thing.shape)]
        rows.append(both * (_CONTENT / 2) ** 0.5)
    return torch.stack(rows)


def seen_shares(world: World, times: NDArray[np.float64], cells: int, steps: int) -> NDArray[np.float32]:
    """Share of each cell that shows each shot, then each object, ``(frames, shots + things, cells * cells)``."""
    shares = composition(world, times, cells, steps)
    grounds = np.zeros((len(times), len(world.shots), cells, cells), np.float32)
    grounds[np.arange(len(times)), world.shot_at(times)] = shares[:, 0]
    return np.concatenate([grounds, shares[:, 1:]], axis=1).reshape(len(times), -1, cells * cells)


def pooled_shares(world: World, times: NDArray[np.float64], steps: int) -> NDArray[np.float32]:
    """Shares of :func:`seen_shares` of every token, the mean of its 2 x 2 patches, ``(frames, shots + things, 64)``."""
    patches = seen_shares(world, times, GRID, steps).reshape(len(times), -1, POOLED, 2, POOLED, 2)
    return patches.mean(axis=(3, 5)).reshape(len(times), -1, POOLED**2)


def target_codes(world: World, shares: NDArray[np.float32]) -> Tensor:
    """Codes of every cell, ``(frames, cells * cells, 128)``, from :func:`seen_shares`."""
    cells = int(shares.shape[2] ** 0.5)
    return torch.from_numpy(shares).transpose(1, 2) @ content_codes(world) + place_codes(cells)
