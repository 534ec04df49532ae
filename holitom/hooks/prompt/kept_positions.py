"""Positions with gaps in a decoder: two kinds of forward pre-hook, removed by handle.

Tokens that keep their place in the uncompressed video leave gaps in ``position_ids``. The rotary embeddings need them;
but transformers takes gaps for several packed sequences where it finds no mask to tell otherwise: flash attention does
so in every layer for a single row, and the mask of a call with neither mask nor cache is cut in the same way. A layer
uses its positions for nothing else, since rotary embeddings are computed once before the layers.
"""

from typing import Any

import torch
from torch import nn

from holitom.errors import InputError
from holitom.hooks.call_names import argument, cache_in, check_call
from holitom.hooks.compiled import refuse_compiled, refuse_tracing
from holitom.hooks.hook_set import HookResult, HookSet


class KeptPositions(HookSet):
    """Lets one decoder read positions with gaps as one sequence; ``apply`` and ``remove`` are inverse."""

    def _register(self, decoder: nn.Module) -> None:
        refuse_compiled(decoder)
        layers: Any = getattr(decoder, "layers", None) or ()
        if not len(layers):
            raise InputError(
                f"{type(decoder).__name__} has no layers: it must be a decoder with layers[i]; usually model.model"
            )
        check_call(decoder, "attention_mask", "position_ids", "inputs_embeds")
        check_call(layers[0], "position_ids")
        self._handles.append(decoder.register_forward_pre_hook(self._enter_decoder, with_kwargs=True))
        for layer in layers:
            self._handles.append(layer.register_forward_pre_hook(_drop_positions, with_kwargs=True))

    @staticmethod
    def _enter_decoder(decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> HookResult:
        """Pre-hook of the decoder: a mask of ones says that a call without mask and cache is one sequence per row."""
        refuse_tracing()
        if len(args) > 1:
            raise InputError(
                f"the decoder was called with {len(args)} positional arguments: it must be at most 1 where positions "
                "have gaps; pass attention_mask, position_ids and the rest by name"
            )
        positions = kwargs.get("position_ids")
        if positions is None or kwargs.get("attention_mask") is not None or cache_in(kwargs) is not None:
            return None
        inputs = kwargs.get("inputs_embeds")
        inputs = inputs if inputs is not None else args[0] if args else kwargs["input_ids"]
        mask = torch.ones(inputs.shape[:2], dtype=torch.long, device=inputs.device)
        return args, {**kwargs, "attention_mask": mask}


def _drop_positions(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> HookResult:
    """Pre-hook of every layer: attention gets no positions to look for gaps in."""
    argument(kwargs, "position_ids")
    return args, {**kwargs, "position_ids": None}
