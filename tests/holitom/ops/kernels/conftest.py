"""The same tests run real kernels where there is a GPU and interpreted ones elsewhere; without triton they skip."""

import os
from collections.abc import Callable

import pytest
import torch

from holitom.ops import kernels

pytest.importorskip("triton", reason="triton is not installed: its kernels cannot be tested")

POISON = -5  # no index or count that a kernel may leave behind


@pytest.fixture(scope="session", autouse=True)
def interpreted_without_gpu() -> None:
    """Without a GPU every kernel must really run in the interpreter."""
    from triton.runtime.interpreter import InterpretedFunction  # noqa: PLC0415

    from holitom.ops.kernels import tower  # noqa: PLC0415

    assert torch.cuda.is_available() != isinstance(tower.column_sums, InterpretedFunction)


@pytest.fixture
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture
def random(device: torch.device) -> Callable[..., torch.Tensor]:
    """Normal numbers, fresh in every run; a failing test prints the seed."""
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")  # noqa: T201
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator).to(device)


@pytest.fixture
def fixed(device: torch.device) -> Callable[..., torch.Tensor]:
    """Normal numbers, the same in every run: no run has the bad luck of two that differ by a rounding."""
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=generator).to(device)


@pytest.fixture(autouse=True)
def poisoned(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory comes filled with NaN or -5, so that what a kernel does not write is seen."""
    if "launches" in request.fixturenames:  # which counts operators
        return

    def filled(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def build(*args, **kwargs):
            fresh = make(*args, **kwargs)
            if fresh.dtype == torch.bool:
                return fresh.view(torch.uint8).fill_(77).view(torch.bool)
            return fresh.fill_(float("nan") if fresh.is_floating_point() else POISON)

        return build

    monkeypatch.setattr(torch, "empty", filled(torch.empty))
    monkeypatch.setattr(torch, "empty_like", filled(torch.empty_like))
    monkeypatch.setattr(torch.Tensor, "new_empty", filled(torch.Tensor.new_empty))


@pytest.fixture
def kernels_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library takes its kernels wherever their dtypes and sizes allow, on any device."""
    monkeypatch.setattr(kernels, "supported", lambda device: True)


@pytest.fixture
def kernels_off(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it to take the torch versions from then on."""
    return lambda: monkeypatch.setattr(kernels, "supported", lambda device: False)
