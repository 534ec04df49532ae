"""Videos of a foreign model on their way through its tower, where frames are merged and others expected.

transformers' LlavaOnevision asks its tower for videos and images alike, and lays out features for every frame it gave.
"""

from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from holitom.hooks.hook_set import HookSet
from holitom.hooks.per_thread import PerThread


class _Restored(RemovableHandle):
    """Handle of a method that an instance has for itself."""

    def __init__(self, module: nn.Module, name: str) -> None:
        self._module, self._name = module, name

    def remove(self) -> None:
        """Give the instance its class's method back."""
        vars(self._module).pop(self._name, None)


class VideoCalls(HookSet):
    """Tells which call of the tower is one of videos, and fills up the frames that it did not return.

    The features of a video's merged frames come first, zeros stand for the others; whoever compresses the video takes
    the former. Applied to the module with ``get_video_features``.

    Args:
        projector: called with what the tower returns.
    """

    videos = PerThread[tuple[int, ...]]()  # frames of each video of the call that is running
    left = PerThread[tuple[int, ...]]()  # what the tower left of them

    def __init__(self, projector: nn.Module) -> None:
        super().__init__()
        self._projector = projector

    def _register(self, body: nn.Module) -> None:
        inherited: Any = body.get_video_features

        @wraps(inherited)
        def get_video_features(*args: Any, **kwargs: Any) -> Any:
            pixels: Tensor = args[0] if args else next(iter(kwargs.values()))  # its name differs between releases
            self.videos, self.left = (pixels.shape[1],) * pixels.shape[0], None
            try:
                return inherited(*args, **kwargs)
            finally:
                self.videos = self.left = None

        vars(body)["get_video_features"] = get_video_features
        self._handles += [_Restored(body, "get_video_features"), self._projector.register_forward_hook(self._fill)]

    def _forget(self) -> None:
        self.videos = self.left = None

    def _fill(self, projector: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        """Forward hook of the projector: zeros in the place of frames that were merged away."""
        if self.videos is None or self.left is None:
            return None
        parts = []
        for states, frames in zip(output.split(self.left), self.videos, strict=True):
            parts += [states, states.new_zeros(frames - len(states), *states.shape[1:])]
        return torch.cat(parts)
