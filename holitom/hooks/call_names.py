"""What transformers calls the cache in its calls and outputs: ``past_key_values`` up to 5.23, ``cache`` from 5.24 on.

The one place that knows these names. Signatures are looked at when hooks are put on, so that another rename is refused
there; calls are read under every known name, since 5.24 still takes the old one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn

from holitom.errors import InputError

if TYPE_CHECKING:
    from transformers import Cache

CACHE_NAMES = ("cache", "past_key_values")
TESTED = "transformers >= 5.17 and < 5.25"


def parameter_names(module: nn.Module) -> tuple[str, ...]:
    """Parameters of a module's forward; those of the class above too where it passes ``*args`` and ``**kwargs`` on."""
    found: list[str] = []
    forwards = [vars(module)["forward"]] if "forward" in vars(module) else []
    for forward in [*forwards, *(vars(each)["forward"] for each in type(module).__mro__ if "forward" in vars(each))]:
        parameters = [each for each in inspect.signature(forward).parameters.values() if each.name != "self"]
        kinds = {each.kind for each in parameters}
        found += [each.name for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
        if not {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD} <= kinds:
            break
    return tuple(dict.fromkeys(found))


def check_call(module: nn.Module, *needed: str, cached: bool = True) -> None:
    """Refuse a module whose forward does not name ``needed`` and, where it is ``cached``, the cache as we know them.

    Raises:
        InputError: naming what is missing and the versions of transformers that work.
    """
    release_names()
    names = parameter_names(module)
    missing = [name for name in needed if name not in names]
    if cached and not any(name in names for name in CACHE_NAMES):
        missing.append(" or ".join(CACHE_NAMES))
    if missing:
        raise InputError(
            f"{type(module).__name__}.forward takes {', '.join(names)} and no {', '.join(missing)}: this release of "
            f"transformers is not known here; install {TESTED}"
        )


def cache_in(arguments: Mapping[str, Any]) -> Any:
    """The cache of a call, None if it has none."""
    return next((arguments[name] for name in CACHE_NAMES if arguments.get(name) is not None), None)


def cache_given(arguments: Mapping[str, Any]) -> Any:
    """The cache of a call of a layer or an attention module, which always name it.

    Raises:
        RuntimeError: if the argument vanished; None would mean that nothing is cached.
    """
    if not any(name in arguments for name in CACHE_NAMES):
        raise RuntimeError(
            f"a decoder layer was called with {', '.join(arguments)} and no {' or '.join(CACHE_NAMES)}: "
            f"install {TESTED}"
        )
    return cache_in(arguments)


def argument(arguments: Mapping[str, Any], name: str) -> Any:
    """An argument of a call of a layer or an attention module, which always name it.

    Raises:
        RuntimeError: if it vanished.
    """
    if name not in arguments:
        raise RuntimeError(
            f"a layer was called with {', '.join(arguments)} and no {name}: this release of transformers is "
            f"not known here; install {TESTED}"
        )
    return arguments[name]


def cache_of(output: Any) -> Any:
    """The cache in a model's output."""
    return next((output[name] for name in CACHE_NAMES if name in output.keys()), None)  # noqa: SIM118 # an output


def returned_cache(output: Any) -> Cache | None:
    """The cache that a decoder's output brings, whether it is a tuple or names its parts; None if it brings none."""
    from transformers import Cache  # noqa: PLC0415

    cache = output[1] if isinstance(output, tuple) and len(output) > 1 else None
    if cache is None and hasattr(output, "keys"):
        cache = cache_of(output)
    return cache if isinstance(cache, Cache) else None


def causal_mask(cache: Cache | None, **arguments: Any) -> Tensor | None:
    """transformers' ``create_causal_mask``, whatever it calls the cache."""
    from transformers.masking_utils import create_causal_mask  # noqa: PLC0415

    return create_causal_mask(**arguments, **{release_names().mask: cache})


class ReleaseNames(NamedTuple):
    """What the installed release calls the cache.

    Attributes:
        call: what models and ``generate`` are told.
        mask: what functions that make masks are told.
        output: of a decoder.
    """

    call: str
    mask: str
    output: str


@cache
def release_names() -> ReleaseNames:
    """Looked up once, when hooks are first put on: what it looks at takes seconds to import, but for a model's owner.

    Raises:
        InputError: naming what is missing and the versions of transformers that work.
    """
    from transformers import Qwen2Model  # noqa: PLC0415
    from transformers.masking_utils import create_causal_mask  # noqa: PLC0415
    from transformers.modeling_outputs import BaseModelOutputWithPast  # noqa: PLC0415

    output = _named_in([each.name for each in fields(BaseModelOutputWithPast)], "BaseModelOutputWithPast")
    return ReleaseNames(_name_of(Qwen2Model.forward), _name_of(create_causal_mask), output)


def _named_in(names: Any, owner: str) -> str:
    name = next((each for each in CACHE_NAMES if each in names), None)
    if name is None:
        raise InputError(f"{owner} has no {' or '.join(CACHE_NAMES)}: install {TESTED}")
    return name


def _name_of(function: Callable[..., Any]) -> str:
    return _named_in(inspect.signature(function).parameters, function.__qualname__)
