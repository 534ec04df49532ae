"""How often a piece of work calls an operator, launches a kernel and makes the host wait for the device.

    counts = count(lambda: compression(features, attention))
    counts.operators, counts.launches, counts.syncs

On CUDA the profiler sees the launches and torch's own debug mode the syncs. On a CPU nothing ever waits; there the
calls are counted that would wait on a GPU.
"""

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# Operators whose size of result, which the host needs, depends on data.
_SIZED_BY_DATA = {
    getattr(torch.ops.aten, name)
    for name in ("nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount", "equal")
}
_READS = {Tensor.tolist, Tensor.numpy, Tensor.__array__}
_WITHOUT_WORK = {
    getattr(torch.ops.aten, name)
    for name in ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided", "detach", "lift_fresh")
}


@dataclass(frozen=True)
class Counts:
    """What one call of a piece of work did.

    Attributes:
        operators: torch operators that compute or copy; views and memory without content are left out.
        launches: kernels, copies and fills that the device ran; None where there is no CUDA.
        syncs: times the host waited for the device. On a CPU, where it would have: copies to the host, tensors read
            that were not copied there before, and results whose size depends on data.
    """

    operators: int
    launches: int | None
    syncs: int


class _Operators(TorchDispatchMode):
    """Counts operators by name, and those that would wait."""

    def __init__(self, on_host: set[int]) -> None:
        super().__init__()
        self.on_host, self.found, self.waits = on_host, Counter[str](), 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func.overloadpacket
        if not func.is_view and packet not in _WITHOUT_WORK:
            self.found[str(func)] += 1
        if packet is torch.ops.aten._local_scalar_dense:
            self.waits += _storage(args[0]) not in self.on_host
        masks = args[1] if packet is torch.ops.aten.index else ()
        self.waits += packet in _SIZED_BY_DATA or any(mask is not None and mask.dtype == torch.bool for mask in masks)
        return func(*args, **(kwargs or {}))


class _Transfers(TorchFunctionMode):
    """Counts what reads a tensor or copies it to the host; what was copied may be read as often as one likes."""

    def __init__(self) -> None:
        super().__init__()
        self.on_host: set[int] = set()
        self.kept_alive: list[Tensor] = []
        self.waits = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _READS:
            self.waits += _storage(args[0]) not in self.on_host
        result = func(*args, **kwargs)
        if func is Tensor.cpu or (func is Tensor.to and _names_cpu((*args[1:], *kwargs.values()))):
            self.waits += 1
            self.on_host.add(_storage(result))
            self.kept_alive.append(result)  # its address must not be given away
        return result


def _storage(tensor: Tensor) -> int:
    """What views of the same memory have in common."""
    return tensor.untyped_storage().data_ptr()


def _names_cpu(arguments: tuple[object, ...]) -> bool:
    """Whether ``Tensor.to`` was asked for the host by name; ``upload`` passes a device instead."""
    return any(argument == "cpu" for argument in arguments if isinstance(argument, str))


def syncs_on_cuda(work: Callable[[], object]) -> int:
    """How often the host waits for the device in one call, by torch's own check.

    The check itself warns once that it is a prototype, which does not count.
    """
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode(mode)
    return sum("called a synchronizing" in str(warning.message) for warning in caught)


def _launches_on_cuda(work: Callable[[], object]) -> int:
    """What the profiler saw the device run."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=activities) as profile:
        work()
        torch.cuda.synchronize()
    return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in profile.events())


def count(work: Callable[[], object], device: torch.device | str = "cpu") -> Counts:
    """Run a piece of work once to warm up and once to count (on CUDA twice more).

    Args:
        work: what to run; it must do the same in every call.
        device: where its tensors are.
    """
    work()
    transfers = _Transfers()
    with transfers, _Operators(transfers.on_host) as operators:
        work()
    total = sum(operators.found.values())
    if torch.device(device).type != "cuda":
        return Counts(total, None, transfers.waits + operators.waits)
    return Counts(total, _launches_on_cuda(work), syncs_on_cuda(work))
