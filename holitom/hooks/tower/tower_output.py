"""Reading what the vision tower returns, before the projector."""

from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from holitom.hooks.tower.recorder import AttentionRecorder


class TowerOutputRecorder(AttentionRecorder):
    """Records the tower's features, (images, patches, hidden) in its dtype; applied to the tower itself."""

    signal = "tower output"
    needs = ()
    asks = ()  # it reads what the tower returns

    def _arm(self, module: nn.Module) -> RemovableHandle:
        return module.register_forward_hook(self._keep)

    def _keep(self, tower: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        """Forward hook: keep the output as it is."""
        self._recorded.append(output.detach())
