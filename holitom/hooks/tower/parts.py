"""What a model family gives of its vision tower: where it can be hooked, and recorders of its side signals."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn


class Recorder(Protocol):
    """Reads one signal while the tower runs; armed only inside ``recording()``."""

    def apply(self, module: nn.Module) -> Any: ...
    def remove(self) -> None: ...
    def recording(self) -> AbstractContextManager[Any]: ...
    def take(self) -> Tensor: ...


@dataclass(frozen=True)
class TowerPlaces:
    """Where a model's tower can be hooked.

    Attributes:
        meetings: behind every layer that runs, a module whose output holds all frames of a call.
        attention: the attention module of every layer.
    """

    meetings: Sequence[nn.Module]
    attention: Sequence[nn.Module]
