"""LLaVA-OneVision and LLaVA-Video on transformers' SigLIP and Qwen2, behind the import surface of LLaVA-NeXT.

The classes are imported when they are first asked for, which takes seconds; from then on transformers' ``AutoConfig``
and ``AutoModelForCausalLM`` know them too. Whoever needs an error or a video reader alone does without.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llava.model.language_model.llava_qwen import LlavaQwenConfig, LlavaQwenForCausalLM

__all__ = ["RUNTIME_OF", "LlavaQwenConfig", "LlavaQwenForCausalLM"]

RUNTIME_OF = "holitom"  # tells it from other packages of this name, see holitom.errors


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from llava.model.language_model import llava_qwen  # noqa: PLC0415

    return getattr(llava_qwen, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
