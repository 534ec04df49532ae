"""What transformers calls the cache in its calls and outputs: ``past_key_values`` up to 5.23, ``cache`` from 5.24 on.

The one place of this runtime that knows these names; ``holitom.hooks.call_names`` is that of hooks, which work without
this package. Calls are read under every known name, since 5.24 still takes the old one.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from transformers import Qwen2Model
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast

from llava.errors import InputError

CACHE_NAMES = ("cache", "past_key_values")
TESTED = "transformers >= 5.17 and < 5.25"


def cache_in(arguments: Mapping[str, Any]) -> Any:
    """The cache of a call, None if it has none."""
    return next((arguments[name] for name in CACHE_NAMES if arguments.get(name) is not None), None)


def cache_of(output: Any) -> Any:
    """The cache in a model's output."""
    return next((output[name] for name in CACHE_NAMES if name in output.keys()), None)  # noqa: SIM118 # an output


def _named_in(names: Any, owner: str) -> str:
    name = next((each for each in CACHE_NAMES if each in names), None)
    if name is None:
        raise InputError(f"{owner} has no {' or '.join(CACHE_NAMES)}: install {TESTED}")
    return name


def _name_of(function: Callable[..., Any]) -> str:
    return _named_in(inspect.signature(function).parameters, function.__qualname__)


CALL_CACHE = _name_of(Qwen2Model.forward)  # what models and ``generate`` are told
MASK_CACHE = _name_of(create_causal_mask)
OUTPUT_CACHE = _named_in([each.name for each in fields(BaseModelOutputWithPast)], "BaseModelOutputWithPast")
