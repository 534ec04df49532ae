"""Two devices on a machine that has none: tensors carry a pretended device, and mixing two devices is an error.

Values are real and computed on the CPU; ``device`` says ``pretended:0`` or ``pretended:1``. Inside :class:`TwoDevices`
every operation checks that its tensors share a device, as CUDA does: numbers of no axis and indices on the CPU may join
any device, everything else may not. Importing this file gives torch a backend for the rest of the process.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("pretended")
FIRST, SECOND = torch.device("pretended:0"), torch.device("pretended:1")
_CPU = torch.device("cpu")
_INDEXING = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default, torch.ops.aten.index_put.default)
_COPIES = (torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default)


class Elsewhere(Tensor):
    """A CPU tensor that says it is on another device."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor, device: torch.device) -> "Elsewhere":
        """Wrap ``held``."""
        return Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device=device, requires_grad=False,
        )  # fmt: skip

    def __init__(self, held: Tensor, device: torch.device) -> None:
        self.held = held

    def tolist(self) -> Any:
        """A transfer to the host, which torch refuses to subclasses."""
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Operations outside of the mode (printing, comparing) follow the same rule."""
        return compute(func, args, kwargs or {})


def compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run one operation on the values, having checked the devices, and put the result where it belongs."""
    target = kwargs.get("device")
    target = None if target is None else torch.device(target)
    leaves, layout = tree_flatten((args, kwargs if target is None else {**kwargs, "device": _CPU}))
    tensors = [each for each in leaves if isinstance(each, Tensor)]
    moving = func in _COPIES
    first, rest = tensors[:1], tensors[1:]
    free = func in _INDEXING or moving
    bound = first if moving else [*first, *(each for each in rest if each.device != _CPU or (each.dim() and not free))]
    devices = {each.device for each in bound if each.dim() or each.device != _CPU}
    if len(devices) > 1:
        raise RuntimeError(f"{func}: tensors on several devices, {sorted(map(str, devices))}")
    place = target or (devices.pop() if devices else _CPU)
    held_args, held_kwargs = layout.unflatten(each.held if isinstance(each, Elsewhere) else each for each in leaves)
    result = func(*held_args, **held_kwargs)
    if func._schema.is_mutable and tensors and func._schema.name.endswith("_"):
        return args[0]
    if place == _CPU:
        return result
    if isinstance(result, Tensor):  # of most operations, and to look at a tree takes longer than to compute it
        return Elsewhere(result, place)
    return tree_map(lambda each: Elsewhere(each, place) if isinstance(each, Tensor) else each, result)


class Literals(TorchFunctionMode):
    """``torch.tensor`` makes tensors below the level that :class:`TwoDevices` sees."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Every function of torch."""
        kwargs = kwargs or {}
        if func is torch.tensor and kwargs.get("device") is not None:
            device = torch.device(kwargs["device"])
            return func(*args, **{**kwargs, "device": _CPU}).to(device)
        return func(*args, **kwargs)


class TwoDevices(TorchDispatchMode):
    """A block in which both devices exist; enter :class:`Literals` beside it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Every operation of the block."""
        return compute(func, args, kwargs or {})


def move(module: nn.Module, device: torch.device) -> None:
    """Put a module's own parameters and buffers, and those of its parts, on a pretended device."""
    for part in module.modules():
        for name, parameter in list(part._parameters.items()):
            if parameter is not None:
                part._parameters[name] = nn.Parameter(Elsewhere(parameter.detach(), device), requires_grad=False)
        for name, buffer in list(part._buffers.items()):
            if buffer is not None:
                part._buffers[name] = Elsewhere(buffer, device)


def follow_weights(module: nn.Module, device: torch.device) -> None:
    """Bring what a module is called with to its device, as accelerate's hooks do: as part of its forward."""
    forward = module.forward

    def moved(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = tree_map(lambda each: each.to(device) if isinstance(each, Tensor) else each, (args, kwargs))
        return forward(*args, **kwargs)

    module.forward = moved  # type: ignore[method-assign]


def split_model(model: Any, first_layers: int) -> None:
    """Put tower, projector, embeddings and the first decoder layers on one device, everything behind on the other."""
    parts = [(each, FIRST) for each in (model.model.vision_tower, model.model.mm_projector, model.model.embed_tokens)]
    parts += [(model.model.rotary_emb, FIRST), (model.model.norm, SECOND), (model.lm_head, SECOND)]
    parts += [(layer, FIRST if number < first_layers else SECOND) for number, layer in enumerate(model.model.layers)]
    for part, device in parts:
        move(part, device)
        for module in part.modules():
            follow_weights(module, device)
    newline = Elsewhere(model.model.image_newline.detach(), FIRST)
    model.model.image_newline = nn.Parameter(newline, requires_grad=False)
