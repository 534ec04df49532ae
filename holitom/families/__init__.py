"""Model families: where a compressor finds the parts of a model. One file each."""

import importlib
import pkgutil
from typing import Any, Protocol

from torch import nn

from holitom.errors import InputError
from holitom.hooks.hook_set import HookSet
from holitom.hooks.tower.parts import Recorder, TowerPlaces
from holitom.runtime import runtime_problem


class Family(Protocol):
    """What a file of this folder provides at module level."""

    NAME: str

    def matches(self, model: nn.Module) -> bool:
        """Whether this file knows the model."""

    def decoder(self, model: nn.Module) -> nn.Module:
        """The module with ``layers`` that an inner stage hooks; it is called with ``video_spans``."""

    def recorder(self, model: nn.Module, name: str) -> Recorder:
        """The recorder of a side signal (see ``holitom.hooks.tower.signals``), on the module it reads.

        Raises:
            InputError: if this family has no such signal.
        """

    def tower_places(self, model: nn.Module) -> TowerPlaces:
        """Where a stage inside the vision tower can be hooked.

        Raises:
            InputError: if frames cannot be merged inside this family's tower.
        """

    def entrance(self, model: nn.Module, compressor: Any) -> HookSet | None:
        """Hooks that bring every prompt to the compressor, on the model; None where the model itself asks its slot.

        Raises:
            InputError: if the compressor's method cannot work in this family.
        """

    def set_slot(self, model: nn.Module, compressor: Any) -> None:
        """Make a compressor (or None) the model's ``visual_compressor``."""

    def slot(self, model: nn.Module) -> Any:
        """What :meth:`set_slot` put there."""


_FUNCTIONS = [name for name in vars(Family) if not name.startswith("_")]


def base_of(model: nn.Module) -> nn.Module:
    """The model inside a wrapper of adapters (``get_base_model``, as peft's have), or the model."""
    unwrap = getattr(model, "get_base_model", None)
    return unwrap() if callable(unwrap) else model


def find_family(model: nn.Module) -> Any:
    """The family of a model.

    Raises:
        InputError: for a model no family knows.
    """
    names = []
    for info in pkgutil.iter_modules(__path__):
        family = importlib.import_module(f"{__name__}.{info.name}")
        if family.matches(model):
            return family
        names.append(family.NAME)
    if type(model).__module__.partition(".")[0] == "llava" and (problem := runtime_problem()) is not None:
        raise InputError(f"models of class {type(model).__name__} are not supported: {problem}")
    raise InputError(
        f"models of class {type(model).__name__} are not supported: it must be one of {', '.join(names)}; "
        "load it with llava.model.builder.load_pretrained_model, or with from_pretrained of transformers' class; to "
        f"serve another class add holitom/families/<name>.py with {', '.join(['NAME', *_FUNCTIONS])}, as "
        "holitom.families.Family says"
    )
