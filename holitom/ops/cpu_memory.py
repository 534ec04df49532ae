"""Work on a CPU whose time is that of its memory: buffers that are kept, and what goes through the cache once."""

import math
from collections.abc import Sequence
from threading import local

import numpy as np
import torch
from torch import Tensor

LARGEST_KEPT = 2**23  # bytes of the memory that a thread keeps
CACHED_ELEMENTS = 2**19  # float32 numbers that go through a CPU's cache together
CHANNELS = 1792  # of some hundred points in float64: they fill a processor's product of matrices and stay in its cache
_kept = local()


def work_buffer(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Uninitialised memory; on a CPU a thread's next caller gets the same, so that no page of it is new.

    Only for what is used up before anything else asks for such memory. What is larger than 8 MiB is not kept.
    """
    size = math.prod(shape) * dtype.itemsize
    if size > LARGEST_KEPT or device.type != "cpu":
        return torch.empty(*shape, dtype=dtype, device=device)
    memory = getattr(_kept, "memory", None)
    if memory is None or len(memory) < size:
        memory = _kept.memory = torch.empty(size, dtype=torch.uint8)
    # views of it may be written in and outside of inference mode, whichever it was made in
    return memory[:size].view(dtype).view(*shape)


def row_dots(first: np.ndarray, second: np.ndarray, out: np.ndarray) -> None:
    """Inner products along the last axis in one pass; torch would store all products before it adds them up."""
    if hasattr(np, "vecdot"):
        np.vecdot(first, second, out=out)
    else:  # NumPy 1
        np.einsum("...d,...d->...", first, second, out=out)
