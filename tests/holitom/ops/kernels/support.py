"""What the tests of the kernels share: bounds, and whether a kernel was taken."""

import pytest
import torch
from torch import Tensor

from holitom.ops import kernels

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
REAL = torch.cuda.is_available()  # sizes of real models are too much for the interpreter


def within_twice(found: Tensor, plain: Tensor, wanted: Tensor, relative: float = 2e-6) -> None:
    """``found`` must be at most twice as far from ``wanted`` (float64) as plain torch, or as float32 rounds anyway."""
    found, plain, wanted = found.double().cpu(), plain.double().cpu(), wanted.double().cpu()
    assert found.shape == wanted.shape
    assert not found.isnan().any()
    error, allowed = (found - wanted).abs().max(), (plain - wanted).abs().max()
    assert error <= 2 * allowed + relative * wanted.abs().max(), (error, allowed)


def watched(monkeypatch: pytest.MonkeyPatch, name: str) -> list[tuple]:
    """Arguments of every call of a kernel from now on."""
    calls: list[tuple] = []
    kernels._look()
    kernel, takes = kernels._KERNELS[name]
    watching = lambda *given: calls.append(given) or kernel(*given)  # noqa: E731
    monkeypatch.setitem(kernels._KERNELS, name, (watching, takes))
    return calls
