"""What every recorder of an attention module of the vision tower has in common: arming, disarming and the record."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from holitom.errors import InputError
from holitom.hooks.call_names import argument, check_call


def normed_projection(attention: Any, name: str, hidden: Tensor) -> Tensor:
    """Queries (``"q"``) or keys (``"k"``) of all heads side by side, normed where the module norms them so."""
    projected: Tensor = getattr(attention, f"{name}_proj")(hidden)
    norm = getattr(attention, f"{name}_norm", None)
    return projected if norm is None else norm(projected)


class AttentionRecorder:
    """Reads something from the input of one attention module while the tower runs as always.

    The pre-hook exists only while recording, so a recorder that is not armed costs nothing; no output changes.
    Subclasses say what they read in :meth:`_read`.

    Attributes:
        signal: what is recorded, in words for messages.
        needs: what the attention module must have.
        asks: arguments of its calls that are read.
    """

    signal: str
    needs: tuple[str, ...]
    asks: tuple[str, ...] = ("hidden_states", "attention_mask")

    def __init__(self) -> None:
        self._attention: nn.Module | None = None
        self._handle: RemovableHandle | None = None
        self._recorded: list[Tensor] = []

    def _read(self, attention: Any, hidden: Tensor) -> Tensor:
        """What to record of one call, images first, from the layer-normed states the module is about to read."""
        raise NotImplementedError

    def apply(self, attention_module: nn.Module) -> Self:
        """Choose the attention module to read, ``layers[i].self_attn`` of a SigLIP encoder.

        Raises:
            InputError: if the module lacks something of ``needs``, or its forward an argument of ``asks``.
            RuntimeError: if a module is chosen already.
        """
        if self._attention is not None:
            raise RuntimeError(f"{type(self).__name__} is applied already; call remove() first")
        missing = [name for name in self.needs if not hasattr(attention_module, name)]
        if missing:
            raise InputError(
                f"{type(attention_module).__name__} cannot be read: it must have {', '.join(missing)}; "
                "give layers[i].self_attn of a SigLIP encoder"
            )
        check_call(attention_module, *self.asks, cached=False)
        self._attention = attention_module
        return self

    def remove(self) -> None:
        """Stop recording and forget the module and everything recorded."""
        self._disarm()
        self._recorded.clear()
        self._attention = None

    @contextmanager
    def recording(self) -> Iterator[Self]:
        """Record every call of the module inside the ``with`` block, from an empty record on.

        Raises:
            RuntimeError: if no module was chosen, or recording is on already.
        """
        if self._attention is None:
            raise RuntimeError("no attention module to record: call apply() first")
        if self._handle is not None:
            raise RuntimeError("recording is on already: leave the running with block first")
        self._recorded.clear()
        self._handle = self._arm(self._attention)
        try:
            yield self
        finally:
            self._disarm()

    def take(self) -> Tensor:
        """What was recorded since ``recording()`` or the last ``take()``, images first; empties the record.

        Raises:
            RuntimeError: if nothing was recorded.
        """
        if not self._recorded:
            raise RuntimeError(f"no {self.signal} recorded: run the vision tower inside recording() first")
        recorded = torch.cat(self._recorded)
        self._recorded.clear()
        return recorded

    def _arm(self, module: nn.Module) -> RemovableHandle:
        """Register the hook that records."""
        return module.register_forward_pre_hook(self._record, with_kwargs=True)

    def _disarm(self) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    @torch.no_grad()
    def _record(self, attention: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Pre-hook: record one call."""
        hidden = args[0] if args else argument(kwargs, "hidden_states")
        if kwargs.get("attention_mask") is not None or len(args) > 1:
            raise NotImplementedError(f"{self.signal} is defined over all patches: attention masks are unsupported")
        self._recorded.append(self._read(attention, hidden))
