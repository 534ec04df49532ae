"""What vLLM's processes load of this package, and whether they can: its entry point ``vllm.general_plugins``."""

import importlib.util
import os
from importlib import metadata
from typing import Any

from holitom.errors import InputError

ARCHITECTURE = "HolitomQwen2ForCausalLM"
GROUP, NAME = "vllm.general_plugins", "holitom"
_DECODER = "holitom.serving.vllm_decoder:HolitomQwen2ForCausalLM"


def register() -> None:
    """Make the decoder known to this process (called by vLLM in each of its processes, maybe more than once)."""
    from vllm import ModelRegistry  # noqa: PLC0415

    ModelRegistry.register_model(ARCHITECTURE, _DECODER)


def require_vllm() -> Any:
    """vLLM, with the decoder registered here and in the processes that it will start.

    Raises:
        InputError: if it is not installed, or its processes would not find this package.
    """
    if importlib.util.find_spec("vllm") is None:
        raise InputError(
            "serving needs vllm, which is not installed here: pip install 'holitom[vllm]' in an environment of its own "
            "(bash scripts/vllm_check.sh makes one for the CPU)"
        )
    if NAME not in metadata.entry_points(group=GROUP).names:
        raise InputError(
            "vLLM finds no entry point of holitom, by which its processes know the decoder: install holitom in this "
            "environment (pip install -e .), a folder on PYTHONPATH does not do"
        )
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")  # what commands print on stdout is their result
    import vllm  # noqa: PLC0415

    register()
    return vllm
