"""vLLM's Qwen2, loaded from the files of a LLaVA checkpoint in either published layout.

vLLM names the class when it loads a model, and only then does this module import vLLM.
"""

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from torch import Tensor

from holitom.serving.plugin import ARCHITECTURE

_NOT_THE_LLM = ("model.vision_tower.", "model.mm_projector.", "model.image_newline")


def llm_weights(weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of the LLM under Qwen2's names; those of tower, projector and newline are left out.

    Args:
        weights: names of either layout (``llava.model.checkpoint.KEY_MAPPING``) and tensors of a checkpoint's files.
    """
    from llava.model.checkpoint import rename_key  # noqa: PLC0415

    for name, tensor in weights:
        ours = rename_key(name)
        if not ours.startswith(_NOT_THE_LLM):
            yield ours, tensor


@cache
def _decoder_class() -> type:
    from vllm.model_executor.models.qwen2 import Qwen2ForCausalLM  # noqa: PLC0415

    class HolitomQwen2ForCausalLM(Qwen2ForCausalLM):
        """Qwen2 as vLLM runs it; only the names in the files differ."""

        def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
            """Called by vLLM's loader."""
            return super().load_weights(llm_weights(weights))

    assert HolitomQwen2ForCausalLM.__name__ == ARCHITECTURE
    return HolitomQwen2ForCausalLM


def __getattr__(name: str) -> Any:
    """vLLM's registry asks this module for the class by name."""
    if name == ARCHITECTURE:
        return _decoder_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
