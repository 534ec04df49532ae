"""Ways of transformers' ``generate`` that this runtime does not serve, refused before any work."""

from collections.abc import Mapping
from typing import Any

import transformers
from packaging.version import Version

from llava.errors import InputError, shown

_REASONS = {
    "assistant_model": "a draft model needs the prompt as ids, and the prompt is embedded here",
    "assistant_early_exit": "a draft by early exit needs the prompt as ids, and the prompt is embedded here",
    "prefill_chunk_size": "visual tokens are prefilled in one call",
}
_LOOKUP = Version("5.18")  # the first release whose prompt lookup keeps an embedded prompt


def option(name: str, model: Any, kwargs: Mapping[str, Any]) -> Any:
    """What a call of ``generate`` is told of an option: itself, by its ``generation_config``, or by the model's."""
    config = kwargs.get("generation_config") or getattr(model, "generation_config", None)
    return kwargs[name] if kwargs.get(name) is not None else getattr(config, name, None)


def refuse_modes(model: Any, kwargs: Mapping[str, Any]) -> None:
    """Raise for what would end in an error of the library, or in no answer.

    Args:
        model: the model that is to generate.
        kwargs: what its ``generate`` is told.

    Raises:
        InputError: for assisted decoding with a draft model, a prefill in chunks, guidance without a prompt to guide
            away from, and prompt lookup in a release of transformers that loses the embedded prompt there.
    """
    for name, reason in _REASONS.items():
        value = option(name, model, kwargs)
        if value is not None:
            what = type(value).__name__ if name == "assistant_model" else shown(value)
            raise InputError(f"{name} = {what} is not supported ({reason}): leave it out")
    lookup = option("prompt_lookup_num_tokens", model, kwargs)
    if lookup is not None and Version(transformers.__version__) < _LOOKUP:
        raise InputError(
            f"prompt_lookup_num_tokens = {shown(lookup)} gives other tokens with transformers "
            f"{transformers.__version__}, which forgets an embedded prompt: install {_LOOKUP} or later, or leave it out"
        )
    scale = option("guidance_scale", model, kwargs)
    if scale is not None and scale != 1 and kwargs.get("negative_prompt_ids") is None:
        raise InputError(
            f"guidance_scale = {shown(scale)} needs negative_prompt_ids, since the prompt is embedded here: give the "
            "ids of a prompt to guide away from, or leave it out"
        )
