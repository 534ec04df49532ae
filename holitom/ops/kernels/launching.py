"""What all kernels and their launches share."""

from contextlib import AbstractContextManager
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from holitom.ops.kernels import readable


@triton.jit
def product(left, right, PRECISION: tl.constexpr):
    """Matrix product of two tiles, added up in float32."""
    if PRECISION == "widened":
        return tl.dot(left.to(tl.float32), right.to(tl.float32), input_precision="ieee")
    else:
        return tl.dot(left, right, input_precision=PRECISION)


def precision_of(tensor: Tensor) -> str:
    """How :func:`product` multiplies: float32 must not be cut to TF32; halves are multiplied exactly as they are.

    On a CPU kernels are interpreted, and the interpreter would multiply the bits of bfloat16 as integers.
    """
    if tensor.dtype == torch.bfloat16 and not tensor.is_cuda:
        return "widened"
    return "ieee" if tensor.dtype == torch.float32 else "tf32"


def on_device(tensor: Tensor) -> AbstractContextManager[Any]:
    """Launch on the tensor's GPU, which need not be the current one; nothing on a CPU."""
    return torch.cuda.device_of(tensor)


def as_bytes(mask: Tensor) -> Tensor:
    """A Boolean tensor as the bytes it is stored in."""
    return mask.view(torch.uint8)


def packed_rows(tensor: Tensor) -> Tensor:
    """The tensor with neighbouring values of its last dimension side by side; a copy only if they are not."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def heads_fit(query: Tensor, key: Tensor) -> bool:
    """Whether kernels of attention take these heads, which they hold whole."""
    return readable(query, key) and query.shape[-1] <= 256
