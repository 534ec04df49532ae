"""Hooks on one decoder that come off together."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from torch import nn
from torch.utils.hooks import RemovableHandle

from holitom.hooks.compiled import forget_compiled

HookResult = tuple[tuple[Any, ...], dict[str, Any]] | None  # what a forward pre-hook with keywords may return


class HookSet:
    """Base of what touches a decoder: ``apply`` and ``remove`` are inverse, ``applied`` does both.

    A subclass registers its hooks in :meth:`_register` and forgets what it knows of the decoder in :meth:`_forget`.
    """

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []

    def apply(self, decoder: nn.Module) -> Self:
        """Register the hooks.

        Args:
            decoder: a ``Qwen2Model`` or a decoder built alike: ``layers[i].self_attn`` with ``q_proj`` and ``k_proj``.

        Raises:
            InputError: if the decoder has no such layers, or not enough of them.
            NotImplementedError: if some of its layers attend to a sliding window and that matters.
            RuntimeError: if this object is applied already.
        """
        if self._handles:
            raise RuntimeError(f"{type(self).__name__} is applied already; call remove() first, or use a second object")
        self._register(decoder)
        forget_compiled()
        return self

    def remove(self) -> None:
        """Remove the hooks; the decoder is what it was. Nothing happens if they are not applied."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._forget()

    @contextmanager
    def applied(self, decoder: nn.Module) -> Iterator[Self]:
        """Hooks on ``decoder`` for the length of a ``with`` block."""
        self.apply(decoder)
        try:
            yield self
        finally:
            self.remove()

    def _register(self, decoder: nn.Module) -> None:
        """Check the decoder, then put a handle of every hook into ``_handles``."""
        raise NotImplementedError

    def _forget(self) -> None:
        """Drop what was remembered of the decoder and of running sequences."""
