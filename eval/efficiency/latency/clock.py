"""Time of the parts of a run while the run goes on: marks on the device's own time line, no waiting in between."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch import nn


@dataclass
class _Span:
    name: str
    parent: str | None
    start: Any
    stop: Any = None


class StageClock:
    """Adds up the time of named stages, which may be nested.

    On CUDA a mark is an event in the stream, so that taking the time does not make the host wait for the device and
    changes nothing of what is timed; elsewhere it is the host's clock.

    Args:
        device: where the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._spans: list[_Span] = []
        self._open: list[_Span] = []
        self._own: set[Any] = set()

    def _mark(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def start(self, name: str) -> None:
        """Begin a stage inside those that are open."""
        self._open.append(_Span(name, self._open[-1].name if self._open else None, self._mark()))

    def stop(self, name: str) -> None:
        """End the stage that was begun last."""
        span = self._open.pop()
        assert span.name == name, f"{span.name} is open, not {name}"
        span.stop = self._mark()
        self._spans.append(span)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A stage for the length of a ``with`` block."""
        self.start(name)
        try:
            yield
        finally:
            self.stop(name)

    def timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """``work`` as a stage."""

        @wraps(work)
        def run(*args: Any, **kwargs: Any) -> Any:
            with self.stage(name):
                return work(*args, **kwargs)

        return run

    @contextmanager
    def hooks_timed(self, root: nn.Module, name: str) -> Iterator[None]:
        """Every forward hook that is on ``root`` and the modules below it now, as a stage, for a ``with`` block.

        This is how the cost of a method inside a model is told from the model's own: a method acts by hooks alone.
        The clock's own hooks are left out.
        """
        tables = [table for module in root.modules() for table in (module._forward_pre_hooks, module._forward_hooks)]
        found = [(table, key, hook) for table in tables for key, hook in table.items() if hook not in self._own]
        for table, key, hook in found:
            table[key] = self.timed(name, hook)
        try:
            yield
        finally:
            for table, key, hook in found:
                if key in table:  # a hook may have been removed meanwhile
                    table[key] = hook

    @contextmanager
    def module_timed(self, module: nn.Module, name: Callable[[], str]) -> Iterator[None]:
        """Every call of a module with the hooks on it, as the stage that ``name()`` gives, for a ``with`` block."""
        names: list[str] = []

        def enter(*_: Any) -> None:
            names.append(name())
            self.start(names[-1])

        def leave(*_: Any) -> None:
            self.stop(names.pop())

        self._own |= {enter, leave}
        handles = [
            module.register_forward_pre_hook(enter, prepend=True),
            module.register_forward_hook(leave),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def milliseconds(self) -> dict[tuple[str | None, str], float]:
        """Time of every stage by (stage it lies in, its name), without the stages inside it; device synchronised."""
        assert not self._open, f"{[span.name for span in self._open]} still open"
        if self._cuda:
            torch.cuda.synchronize()
        total: defaultdict[tuple[str | None, str], float] = defaultdict(float)
        inside: defaultdict[str, float] = defaultdict(float)
        for span in self._spans:
            spent = span.start.elapsed_time(span.stop) if self._cuda else 1e3 * (span.stop - span.start)
            total[span.parent, span.name] += spent
            if span.parent is not None:
                inside[span.parent] += spent
        # a stage of one name lies in one place, so what lies inside it can be taken off by name
        return {key: spent - inside[key[1]] for key, spent in total.items()}
