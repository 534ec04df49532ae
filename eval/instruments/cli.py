"""What the command lines share: one line for a user's mistake, and provenance for every result."""

import platform
from pathlib import Path
from typing import Any

from holitom.cli import Count, Parser, commit, user_errors

__all__ = ["Count", "Parser", "commit", "processor", "provenance", "user_errors"]


def processor() -> str:
    """The processor's name; its architecture where the system does not tell more."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def provenance() -> dict[str, Any]:
    """Machine, versions and commit, as every result records them."""
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    cuda = torch.cuda.is_available()
    return {
        "commit": commit(),
        "device": torch.cuda.get_device_name() if cuda else processor(),
        "cuda": torch.version.cuda if cuda else None,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
