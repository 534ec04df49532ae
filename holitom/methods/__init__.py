"""Methods by name: one frozen dataclass per file or folder; every one of them is found by itself.

Each is a :class:`holitom.compressor.MethodConfig`.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, TypeVar

from holitom.errors import InputError, shown

Config = TypeVar("Config", bound=type)
_METHODS: dict[str, type] = {}


@dataclass(frozen=True)
class MethodFacts:
    """What tables, charts and command lines say of a method; a new one may leave all of it out.

    Attributes:
        title: the method's name in words; its name in the registry unless given.
        paper_row: its name in the paper's tables; None without a row there.
        style: colour, marker and line of its points in charts, in matplotlib's words; charts choose where it is None.
        share_settings: assignments that set the share of visual tokens to keep, given the share and a frame's tokens;
            ``retain_ratio=...`` unless given, and none where the method has no such setting.
        share: the share that settings stand for, None where it is no row's; ``retain_ratio`` unless given.
        ranked_by: what its stages inside the LLM rank tokens by.
        threshold: what it compares with ``similarity_threshold``.
    """

    title: str = ""
    paper_row: str | None = None
    style: tuple[str, str, str] | None = None
    share_settings: Callable[[float, int], list[str]] | None = None
    share: Callable[[Any], float | None] | None = None
    ranked_by: str = "last-query attention"
    threshold: str = "of the method"


def register(name: str, facts: MethodFacts | None = None, **variants: MethodFacts) -> Callable[[Config], Config]:
    """Class decorator: make a method's configuration known as ``name``.

    Args:
        name: in configurations.
        facts: what else is said of it.
        variants: the same of its rows with a name of their own, ``without_inner`` of ``holitom_without_inner``.
    """

    def add(cls: Config) -> Config:
        if name in _METHODS:
            raise ValueError(f"two methods are called {name!r}")
        _METHODS[name] = cls
        cls._facts = {name: facts or MethodFacts()} | {f"{name}_{key}": value for key, value in variants.items()}  # type: ignore[attr-defined] # a place beside its settings
        return cls

    return add


def available_methods() -> dict[str, type]:
    """All methods by name, in alphabetical order."""
    _import_all()
    return dict(sorted(_METHODS.items()))


@cache
def _import_all() -> None:
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")


def method_config(name: str) -> type:
    """The configuration class of one method.

    Raises:
        InputError: for an unknown name, with the known ones.
    """
    known = available_methods()
    if name not in known:
        raise InputError(f"method = {shown(name)} is unknown: it must be one of {', '.join(known)}")
    return known[name]


def all_facts() -> dict[str, MethodFacts]:
    """What is said of every method and variant, by name."""
    found: dict[str, MethodFacts] = {}
    for cls in available_methods().values():
        found |= cls._facts  # type: ignore[attr-defined] # set by register
    return found


def facts_of(name: str) -> MethodFacts:
    """What is said of a method or one of its variants; of an unknown name nothing but itself."""
    return all_facts().get(name, MethodFacts())


def title_of(name: str) -> str:
    """A method's or variant's name in words."""
    return facts_of(name).title or name


def paper_rows(method: str | None = None) -> dict[str, str]:
    """Names in the paper's tables, of one method and its variants or of all -> names here."""
    known = {name: facts.paper_row for name, facts in all_facts().items() if method is None or belongs(name, method)}
    return {row: name for name, row in known.items() if row is not None}


def belongs(name: str, method: str) -> bool:
    """Whether a name is a method's own or that of a variant."""
    return f"{name}_".startswith(f"{method}_")


def share_settings(method: str, share: float, tokens_per_frame: int) -> list[str]:
    """Assignments that make a method keep a share of the visual tokens; none where it has a schedule of its own.

    Args:
        method: its name.
        share: of the visual tokens, in (0, 1].
        tokens_per_frame: of the uncompressed video.
    """
    setter = facts_of(method).share_settings
    if setter is not None:
        return setter(share, tokens_per_frame)
    has = any(entry.name == "retain_ratio" for entry in fields(method_config(method)))
    return [f"retain_ratio={share}"] if has else []


def share_of(method: str, settings: Any) -> float | None:
    """The share of the visual tokens that settings of a method stand for, 1 where they name none; None for no row's."""
    share = facts_of(method).share
    return getattr(settings, "retain_ratio", 1.0) if share is None else share(settings)
