"""Where the tests of this folder run: on a GPU, or not at all, and then they say so.

``REHEARSE_ON_CPU=1`` runs what needs no GPU of its own on the CPU instead, to try the tests themselves; then a device
is compared with itself, which shows nothing about GPUs (``bash scripts/gpu_check.sh --dry-run equality``).
"""

import os

import pytest
import torch

_REASON = "needs a CUDA device: bash scripts/gpu_check.sh equality"


@pytest.fixture
def gpu() -> torch.device:
    """A GPU."""
    if not torch.cuda.is_available():
        pytest.skip(_REASON)
    return torch.device("cuda")


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """A GPU that computes float32 in float32, or the CPU in a rehearsal."""
    if not torch.cuda.is_available():
        if not os.environ.get("REHEARSE_ON_CPU"):
            pytest.skip(_REASON)
        return torch.device("cpu")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    return torch.device("cuda")
