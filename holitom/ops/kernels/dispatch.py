"""The one place that decides between a Triton kernel and its torch version."""

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float16, torch.bfloat16)


@cache
def supported(device: torch.device) -> bool:
    """Whether kernels are written for this device and can be built: NVIDIA from Ampere on (older have no bfloat16)."""
    if device.type != "cuda" or torch.version.hip is not None or find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def on_one_gpu(*tensors: Tensor) -> bool:
    """Whether all tensors lie on the same supported GPU and no gradient is asked of them."""
    device = tensors[0].device
    if not supported(device) or any(tensor.device != device for tensor in tensors):
        return False
    return not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors))


def use_kernels(*tensors: Tensor) -> bool:
    """Whether to call a kernel on these tensors: on one supported GPU, of one dtype that kernels read, not empty."""
    dtype = tensors[0].dtype
    return (
        dtype in FLOATS
        and all(tensor.dtype == dtype and tensor.numel() > 0 for tensor in tensors)
        and on_one_gpu(*tensors)
    )
