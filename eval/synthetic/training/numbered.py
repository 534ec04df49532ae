"""Endless batches that can be made by many processes and begun anywhere."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import TypeVar

import numpy as np
import torch
from torch.utils.data import IterableDataset

Made = TypeVar("Made", covariant=True)


class Numbered(IterableDataset[Made]):
    """Endless batches; every batch depends on the seed and its number alone, whichever worker makes it.

    Args:
        seed: of all batches.
        first: number of the batch to begin with.
    """

    def __init__(self, seed: int, first: int = 0) -> None:
        self.seed, self.first = seed, first

    def __iter__(self) -> Iterator[Made]:
        worker = torch.utils.data.get_worker_info()
        step, number = (1, 0) if worker is None else (worker.num_workers, worker.id)
        torch.set_num_threads(1)
        number += self.first
        while True:
            yield self.batch(np.random.default_rng([self.seed, number]))
            number += step

    @abstractmethod
    def batch(self, rng: np.random.Generator) -> Made:
        """One batch, every choice drawn from ``rng``."""
