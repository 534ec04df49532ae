"""A stand-in for a CUDA graph on any device: every operation of one run is kept and repeated on the same tensors.

As in a graph, tensors keep their place, Python does not run again, and whatever number Python had at the time of the
run is what every repetition uses.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

SYNCS = {"aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.is_nonzero", "aten.equal"}


class Recording(TorchDispatchMode):
    """The operations of a ``with`` block, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple, dict, list[Any]]] = []
        self.kept: list[Any] = []  # tensors must live as long as their identity is used

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, tree_flatten(out)[0]))
        return out

    def names(self) -> list[str]:
        """Operations that compute or copy something, views left out."""
        return [str(func.overloadpacket) for func, *_ in self.calls if not func.is_view]


class Replay:
    """What ``StaticDecoder`` holds in the place of a graph."""

    def __init__(self, run: Callable[[], None]) -> None:
        with Recording() as recording:
            run()
        self.calls = recording.calls

    def replay(self) -> None:
        made: dict[int, Tensor] = {}

        def current(tensor: Tensor) -> Tensor:
            return made.get(id(tensor), tensor)

        for func, args, kwargs, outs in self.calls:
            args, kwargs = tree_map_only(Tensor, current, (args, kwargs))
            for old, new in zip(outs, tree_flatten(func(*args, **kwargs))[0], strict=True):
                if isinstance(old, Tensor):
                    made[id(old)] = new
