"""Compression before vLLM: our tower, projector and outer stage make the prompt, vLLM's engine answers it.

    from holitom.serving import CompressedLLM, VideoRequest

    llm = CompressedLLM("lmms-lab-checkpoint/", dtype="bfloat16")
    outputs = llm.generate([VideoRequest("talk.mp4", "What is shown?", "llava_onevision_7b/holitom_without_inner_r15")])

What can be served, and how a server of vLLM's own is asked, is told in ``docs/serving.md``.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holitom.serving.engine import CompressedLLM
    from holitom.serving.prompts import PromptMaker, VideoRequest
    from holitom.serving.served_methods import exact_kept

__all__ = ["CompressedLLM", "PromptMaker", "VideoRequest", "exact_kept"]
_MODULES = {"CompressedLLM": "engine", "exact_kept": "served_methods"}


def __getattr__(name: str) -> Any:
    """The classes, imported when they are asked for: vLLM's processes import this package for the decoder alone.

    Raises:
        InputError: if another ``llava`` than ours is in the way.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib  # noqa: PLC0415

    from holitom.runtime import require_runtime  # noqa: PLC0415

    require_runtime()
    return getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'prompts')}"), name)
