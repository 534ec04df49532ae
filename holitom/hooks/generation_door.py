"""The door of a compressed transformers model's ``generate``: what cannot be served is refused before any work."""

from typing import Any

from torch import nn

from holitom.errors import InputError, shown

_ASSISTED = ("assistant_model", "prompt_lookup_num_tokens", "assistant_early_exit")


class GenerationDoor:
    """Stands before one model's ``generate``; ``apply`` and ``remove`` are inverse.

    Assisted decoding prefills prompt and candidates in one call. A stage before the LLM sees neither, so it is served;
    a stage inside the LLM asks the last token, which would be a candidate.

    Args:
        compressor: of the model.
    """

    def __init__(self, compressor: Any) -> None:
        self._compressor = compressor
        self._model: Any = None
        self._own: Any = None

    def apply(self, model: nn.Module) -> None:
        """Stand before ``model.generate``."""
        self._model, self._own = model, vars(model).get("generate")
        model.generate = self  # type: ignore[assignment] # of this instance alone

    def remove(self) -> None:
        """Leave ``model.generate`` as it was."""
        if self._model is not None:
            del self._model.generate
            if self._own is not None:
                self._model.generate = self._own
        self._model = self._own = None

    def _option(self, name: str, kwargs: dict[str, Any]) -> Any:
        config = kwargs.get("generation_config") or getattr(self._model, "generation_config", None)
        return kwargs[name] if kwargs.get(name) is not None else getattr(config, name, None)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """``generate`` with all its arguments.

        Raises:
            InputError: for assisted decoding while tokens are merged or dropped inside the LLM, and for a prefill in
                chunks while videos are compressed.
        """
        chunk = self._option("prefill_chunk_size", kwargs)
        if chunk is not None and kwargs.get("pixel_values_videos") is not None:
            raise InputError(
                f"prefill_chunk_size = {shown(chunk)} is not possible while videos are compressed, which needs the "
                "whole prompt: leave it out"
            )
        for name in _ASSISTED if self._compressor.inner is not None else ():
            value = self._option(name, kwargs)
            if value is not None:
                what = shown(value) if isinstance(value, int) else type(value).__name__
                raise InputError(
                    f"{name} = {what} is not supported while tokens are compressed inside the LLM: the prompt would be "
                    "scored by a candidate; leave it out, or leave the inner stage out"
                )
        generate = type(self._model).generate.__get__(self._model) if self._own is None else self._own
        return generate(*args, **kwargs)
