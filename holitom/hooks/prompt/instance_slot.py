"""The slot of a model whose class has none: an attribute of the one instance that shows its compressor."""

from typing import Any

from torch import nn


def slot(model: nn.Module) -> Any:
    """The compressor on the model, or None."""
    return vars(model).get("visual_compressor")


def set_slot(model: nn.Module, compressor: Any) -> None:
    """Show the compressor as ``model.visual_compressor``, or take the attribute away."""
    vars(model).pop("visual_compressor", None)
    if compressor is not None:
        model.visual_compressor = compressor
