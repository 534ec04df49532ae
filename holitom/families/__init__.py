"""Model families: where a compressor finds the parts of a model. One file each."""

import importlib
import pkgutil
from typing import Any, Protocol

from torch import nn

from llava.errors import InputError


class Family(Protocol):
    """What a file of this folder provides at module level."""

    NAME: str

    def matches(self, model: nn.Module) -> bool:
        """Whether this file knows the model."""

    def decoder(self, model: nn.Module) -> nn.Module:
        """The module with ``layers`` whose forward takes ``video_spans``."""

    def signal_source(self, model: nn.Module, name: str) -> nn.Module:
        """The module whose calls the recorder of a signal reads (see ``holitom.hooks.signals``)."""

    def set_slot(self, model: nn.Module, compressor: Any) -> None:
        """Put a compressor (or None) where videos are encoded."""

    def slot(self, model: nn.Module) -> Any:
        """What :meth:`set_slot` put there."""


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
    raise InputError(
        f"models of class {type(model).__name__} are not supported: it must be one of {', '.join(names)}; "
        "load it with llava.model.builder.load_pretrained_model"
    )
