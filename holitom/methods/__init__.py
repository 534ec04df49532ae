"""Methods by name: one frozen dataclass per file or folder; every one of them is found by itself.

Each is a :class:`holitom.compressor.MethodConfig`.
"""

import importlib
import pkgutil
from collections.abc import Callable
from typing import TypeVar

from holitom.errors import InputError, shown

Config = TypeVar("Config", bound=type)
_METHODS: dict[str, type] = {}


def register(name: str) -> Callable[[Config], Config]:
    """Class decorator: make a method's configuration known as ``name``."""

    def add(cls: Config) -> Config:
        if name in _METHODS:
            raise ValueError(f"two methods are called {name!r}")
        _METHODS[name] = cls
        return cls

    return add


def available_methods() -> dict[str, type]:
    """All methods by name, in alphabetical order."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return dict(sorted(_METHODS.items()))


def method_config(name: str) -> type:
    """The configuration class of one method.

    Raises:
        InputError: for an unknown name, with the known ones.
    """
    known = available_methods()
    if name not in known:
        raise InputError(f"method = {shown(name)} is unknown: it must be one of {', '.join(known)}")
    return known[name]
