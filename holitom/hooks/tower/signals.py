"""Side signals of the vision tower that a method may ask for by name, each with its recorder."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import Tensor, nn

from holitom.hooks.tower.key_metric import KeyMetricRecorder
from holitom.hooks.tower.received_attention import ReceivedAttentionRecorder
from holitom.hooks.tower.tower_output import TowerOutputRecorder


class Recorder(Protocol):
    """Reads one signal while the tower runs; armed only inside ``recording()``."""

    def apply(self, module: nn.Module) -> Any: ...
    def remove(self) -> None: ...
    def recording(self) -> AbstractContextManager[Any]: ...
    def take(self) -> Tensor: ...


# Name of a signal: its recorder for SigLIP towers; a family's ``recorder(model, name)`` puts one on a module.
RECORDERS: dict[str, Callable[[], Recorder]] = {
    "received_attention": ReceivedAttentionRecorder,
    "tower_output": TowerOutputRecorder,
    "key_metric": KeyMetricRecorder,
}
