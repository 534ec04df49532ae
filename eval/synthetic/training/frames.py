"""Endless batches of single frames for the vision tower."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eval.synthetic.training.codes import GRID, seen_shares, target_codes
from eval.synthetic.training.drawn_worlds import still_world
from eval.synthetic.training.numbered import Numbered
from eval.synthetic.training.vision import VisionBatch
from eval.synthetic.world.events import COLORS, SCENES, SHAPES, World, sample_world
from eval.synthetic.world.raster import render


class Frames(Numbered[VisionBatch]):
    """Endless batches of single frames with labels for every patch.

    Args:
        frames: per batch.
        crowded: share of frames that are full of objects.
        seed, first: see :class:`Numbered`.
    """

    def __init__(self, frames: int, crowded: float, seed: int, first: int = 0) -> None:
        super().__init__(seed, first)
        self.frames, self.crowded = frames, crowded

    def batch(self, rng: np.random.Generator) -> VisionBatch:
        """One batch."""
        rows: list[tuple[Tensor, ...]] = []
        while len(rows) < self.frames:
            world = (
                still_world(rng, int(rng.integers(3, 9)), False) if rng.random() < self.crowded else sample_world(rng)
            )
            rows.append(_labelled_frame(world, rng.random(1)))
        return VisionBatch(*(torch.stack(column) for column in zip(*rows, strict=True)))


def _labelled_frame(world: World, time: NDArray[np.float64]) -> tuple[Tensor, ...]:
    shares = seen_shares(world, time, GRID, 4)
    top, most = shares[0].argmax(axis=0), shares[0].max(axis=0)
    shots = len(world.shots)
    colors = [-100] * shots + [COLORS.index(thing.color) for thing in world.things]
    shapes = [-100] * shots + [SHAPES.index(thing.shape) for thing in world.things]
    scenes = [SCENES.index(shot.scene) for shot in world.shots] + [-100] * len(world.things)
    labels = (torch.from_numpy(np.where(most > 0.6, np.array(names)[top], -100)) for names in (colors, shapes, scenes))
    objects = torch.from_numpy(shares[0, shots:].sum(axis=0))
    return (torch.from_numpy(render(world, time))[0], target_codes(world, shares)[0], objects, *labels)
