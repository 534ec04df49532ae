"""Triton kernels for CUDA, and the one place that decides between a kernel and its torch version.

Optional: every kernel has a plain torch version, which is its fallback and its oracle. The torch version asks
:func:`kernel_for` by name. The modules here enter what they bring with :func:`kernel`, which says what it takes; they
import triton, so they are looked for when a supported GPU first asks.

All accumulate in float32 (float64 where the torch version does), mask odd sizes, and use no atomics: results do not
depend on the order in which programs run.
"""

import pkgutil
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeVar

import torch
from torch import Tensor

Kernel = TypeVar("Kernel", bound=Callable[..., Any])
_KERNELS: dict[str, tuple[Callable[..., Any], Callable[..., bool]]] = {}


@cache
def supported(device: torch.device) -> bool:
    """Whether kernels are written for this device and can be built: NVIDIA from Ampere on (older have no bfloat16)."""
    if device.type != "cuda" or torch.version.hip is not None or find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def readable(*tensors: Tensor) -> bool:
    """Whether tensors are of one dtype that kernels read, and none is empty."""
    dtype = tensors[0].dtype
    known = dtype in (torch.float32, torch.float16, torch.bfloat16)
    return known and all(tensor.dtype == dtype and tensor.numel() > 0 for tensor in tensors)


def kernel(takes: Callable[..., bool] = readable) -> Callable[[Kernel], Kernel]:
    """Enter a function as the kernel of the torch function that asks by its name; ``takes`` tells by its tensors."""

    def enter(function: Kernel) -> Kernel:
        _KERNELS[function.__name__] = function, takes
        return function

    return enter


@cache
def _look() -> None:
    for module in pkgutil.iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")


def kernel_for(name: str, *tensors: Tensor) -> Callable[..., Any] | None:
    """The kernel of this name where it takes these tensors: on one supported GPU, and no gradient is asked of them."""
    device = tensors[0].device
    if not supported(device) or any(tensor.device != device for tensor in tensors):
        return None
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return None
    _look()
    function, takes = _KERNELS[name]
    return function if takes(*tensors) else None
