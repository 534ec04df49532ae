"""HoliTom: holistic token merging for fast video language models (NeurIPS 2025), training-free.

from holitom import holitom
model = holitom(model, retain_ratio=0.15)
"""

from typing import Any

from torch import nn

from holitom.compressor import Compressor, Record
from holitom.errors import InputError
from holitom.methods import available_methods
from holitom.methods.holitom.config import InnerConfig, OuterConfig
from holitom.methods.holitom.tower_config import TowerConfig
from holitom.settings import RunConfig, load_compressor, load_config, parse_config

__all__ = [
    "Compressor",
    "InnerConfig",
    "OuterConfig",
    "Record",
    "RunConfig",
    "TowerConfig",
    "available_methods",
    "holitom",
    "load_compressor",
    "load_config",
]


def holitom(model: nn.Module, *, inner: bool = True, fill_budget: bool = False, **settings: Any) -> nn.Module:
    """Put HoliTom on a model, in place.

    Args:
        model: a model loaded with ``llava.model.builder.load_pretrained_model``, or one of transformers' own classes,
            such as ``LlavaOnevisionForConditionalGeneration`` or ``Qwen3VLForConditionalGeneration``, that has a file
            in ``holitom.families``; one with adapters (``peft``) counts as its base model.
        inner: also merge inside the LLM (the paper's full method); False is its "w/o M".
        fill_budget: keep exactly as many tokens before the LLM as the budget allows; see :mod:`holitom.budget`.
        **settings: fields of :class:`OuterConfig` and :class:`InnerConfig`, e.g. ``retain_ratio=0.15``,
            ``similarity_threshold=0.8``, ``merge_layer=18`` (by default as deep as that in the paper's 28 layers),
            ``merge_ratio=0.5``.

    Returns:
        The same model. ``model.visual_compressor`` is its :class:`Compressor`: ``.record`` tells what the latest
        prompt went through, ``.remove()`` takes it off again.

    Raises:
        InputError: for an unknown setting, a value out of range, or a layer the model does not have.
    """
    outer_fields, inner_fields = set(OuterConfig.__dataclass_fields__), set(InnerConfig.__dataclass_fields__)
    known = outer_fields | inner_fields if inner else outer_fields
    for name in settings:
        if name not in known:
            raise InputError(f"unknown setting {name} (inner = {inner}); known are {', '.join(sorted(known))}")
    groups = {
        "outer": {key: value for key, value in settings.items() if key in outer_fields},
        "inner": {key: value for key, value in settings.items() if key in inner_fields} if inner else None,
    }
    run = parse_config({"compressor": {"method": "holitom", "fill_budget": fill_budget, **groups}})
    compressor = run.build()
    assert compressor is not None
    compressor.apply(model)
    return model
