"""What static decoding needs of a model and of its device."""

from typing import Any

import torch
from torch import nn

from llava.errors import InputError


def check_graphs(device: torch.device) -> None:
    """Raise an InputError unless CUDA graphs exist on a device."""
    if device.type != "cuda":
        raise InputError(f"decoding='graphs' needs a CUDA device, the model is on {device}: use 'static'")


def check_static(model: Any) -> None:
    """Raise unless the step computes what the model's own forward would.

    Raises:
        InputError: for weights on several devices or not in place, layers with sliding windows, rotary embeddings that
            depend on the length, and hooks that only the decoder's own forward would run.
    """
    remedy = "use decoding='eager' or 'preallocated'"
    decoder: Any = model.model
    parts = (decoder.embed_tokens, decoder.layers, decoder.norm, model.lm_head)
    weights = [parameter for part in parts for parameter in part.parameters()]
    devices = {str(parameter.device) for parameter in weights}
    if len(devices) > 1 or "meta" in devices or hasattr(weights[0], "ds_id"):
        raise InputError(f"static decoding needs all weights on one device, they are on {sorted(devices)}: {remedy}")
    if any(getattr(parameter, "device_mesh", None) is not None for parameter in weights):
        raise InputError(f"static decoding does not run sharded weights: {remedy}")
    kinds = set(getattr(decoder.config, "layer_types", None) or ["full_attention"])
    rope = decoder.rotary_emb.rope_type
    if kinds != {"full_attention"} or rope in ("dynamic", "longrope"):
        raise InputError(
            f"static decoding needs full attention and fixed rotary embeddings, not {kinds}, {rope!r}: {remedy}"
        )
    if model.visual_compressor is None and any(_hooked(module) for module in (decoder, *decoder.layers)):
        raise InputError(f"the decoder carries hooks that static decoding would pass by: remove them, or {remedy}")


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_pre_hooks or module._forward_hooks)
