"""Merging frames of a video behind some layers of the vision tower; forward hooks only, all removed by handle.

The layers behind such a place run on fewer frames: frames do not attend to one another, so nothing else changes. A
runtime shows where all frames of a call meet behind a layer, as a module whose output is (frames, patches, hidden):
this project's tower has gates between which it runs in passes, transformers' SigLIP runs its layers on all frames.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from holitom.checks import is_integer, require
from holitom.encoded_video import FrameMerges
from holitom.errors import InputError
from holitom.hooks.tower.parts import TowerPlaces
from holitom.hooks.tower.received_attention import ReceivedAttentionRecorder

Plan = TypeVar("Plan")


class MergeRules(Protocol[Plan]):
    """How frames are merged; the states are those of one video, (frames, patches, hidden).

    Attributes:
        reads_attention: the attention of the last layer behind which frames are merged is recorded, and the frames
            behind it are grouped (:meth:`groups`).
    """

    reads_attention: bool

    def plan(self, states: Tensor) -> Plan:
        """What to merge behind a layer."""

    def merge(self, values: Tensor, plan: Plan) -> Tensor:
        """The merged frames of states or of any other values per frame, (frames, ...)."""

    def target(self, plan: Plan, frames: int) -> list[int]:
        """For each of ``frames`` frames the merged frame it is in; -1 for lost ones."""

    def groups(self, states: Tensor) -> list[tuple[int, int]]:
        """First and last frame of the groups behind the last layer; asked where ``reads_attention``."""

    def nominal(self) -> "MergeRules[Plan]":
        """Rules that merge most, whatever the states: what FLOPs are counted on."""


def require_tower_layers(name: str, layers: Any, usual: list[int]) -> None:
    """Raise unless ``layers`` can be those behind which frames are merged: ascending indices, at least one."""
    whole = isinstance(layers, list | tuple) and all(is_integer(layer) and layer >= 0 for layer in layers)
    sound = whole and len(layers) > 0 and list(layers) == sorted(set(layers))
    require(sound, name, layers, "ascending integers from 0 on, at least one", f"use {usual}")


@dataclass
class _Call(Generic[Plan]):
    """One call of the tower: frames of each video, and for every layer so far where those of each video went."""

    sizes: list[int]
    targets: list[list[list[int]]] = field(default_factory=list)
    groups: list[list[tuple[int, int]]] = field(default_factory=list)
    received: list[Tensor] = field(default_factory=list)


class FrameMerging(Generic[Plan]):
    """Merges frames inside one tower while :meth:`recording`; ``apply`` and ``remove`` are inverse.

    Args:
        layers: indices of the layers behind which frames are merged, ascending, at least one.
        rules: how.
    """

    question_free = True  # the rules see states of the tower, which no question reaches

    def __init__(self, layers: Sequence[int], rules: MergeRules[Plan]) -> None:
        self.layers = tuple(layers)
        self.rules = rules
        self._places: TowerPlaces | None = None
        self._attention = ReceivedAttentionRecorder()
        self._call: _Call[Plan] | None = None

    def apply(self, places: TowerPlaces) -> Self:
        """Choose the tower.

        Raises:
            InputError: if it has no layer behind one of ``layers``.
            RuntimeError: if one is chosen already.
        """
        if self._places is not None:
            raise RuntimeError(f"{type(self).__name__} is applied already; call remove() first")
        count = len(places.meetings)
        if self.layers[-1] > count - 2:
            raise InputError(
                f"tower_layers = {list(self.layers)} is out of range: the tower runs {count} layers, the last of which "
                f"has none behind it; use layers from 0 to {count - 2}"
            )
        if self.rules.reads_attention:
            self._attention.apply(places.attention[self.layers[-1]])
        self._places = places
        return self

    def remove(self) -> None:
        """Forget the tower; nothing happens if none is chosen."""
        self._attention.remove()
        self._places = self._call = None

    @contextmanager
    def recording(self, videos: Sequence[int] | None = None) -> Iterator[Self]:
        """Merge the frames of one call of the tower inside the ``with`` block.

        Args:
            videos: frames of each video in it; None: it is one video. None of them: the call is left alone.

        Raises:
            RuntimeError: if no tower was chosen, or a call is running.
        """
        if self._places is None:
            raise RuntimeError("no tower to merge frames in: call apply() first")
        self._call = None
        if videos is not None and not videos:
            yield self
            return
        self._call = _Call([] if videos is None else list(videos))
        handles: list[RemovableHandle] = []
        with ExitStack() as stack:
            if self.rules.reads_attention:
                stack.enter_context(self._attention.recording())
            try:
                for number, layer in enumerate(self.layers):
                    hook = partial(self._meet, number)
                    handles.append(self._places.meetings[layer].register_forward_hook(hook))
                yield self
            finally:
                for handle in handles:
                    handle.remove()

    def nominal(self) -> "FrameMerging[Plan]":
        """The same layers under the rules that merge most, applied to no tower."""
        return FrameMerging(self.layers, self.rules.nominal())

    def nominal_frames(self, frames: int, layers: int) -> list[int]:
        """Frames that each of ``layers`` tower layers sees of a video of which most is merged."""
        rules, counts = self.rules.nominal(), [frames] * layers
        for layer in self.layers:
            states = torch.empty(counts[-1], 1, 1, device="meta")
            left = 1 + max(rules.target(rules.plan(states), len(states)))
            counts[layer + 1 :] = [left] * (layers - layer - 1)
        return counts

    def take(self) -> list[FrameMerges]:
        """What happened in the latest call, one entry per video; empty if it was left alone.

        Raises:
            RuntimeError: if the tower did not run.
        """
        call, self._call = self._call, None
        if call is None:
            return []
        if len(call.targets) < len(self.layers):
            raise RuntimeError("no frames were merged: run the vision tower inside recording() first")
        found = []
        for video in range(len(call.sizes)):
            targets = [layer[video] for layer in call.targets]
            read = (call.groups[video], call.received[video]) if self.rules.reads_attention else ()
            found.append(FrameMerges(len(targets[0]), self.layers, _through(targets), *read))
        return found

    @torch.no_grad()
    def _meet(self, number: int, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """Forward hook behind a layer: merge the frames of every video on its own."""
        call = self._call
        assert call is not None
        if not call.sizes:
            call.sizes = [len(output)]
        last = self.rules.reads_attention and number == len(self.layers) - 1
        received: Sequence[Tensor] = self._attention.take().split(call.sizes) if last else ()
        merged, targets = [], []
        for video, states in enumerate(output.split(call.sizes)):
            plan = self.rules.plan(states)
            merged.append(self.rules.merge(states, plan))
            targets.append(self.rules.target(plan, len(states)))
            if last:
                call.groups.append(self.rules.groups(merged[-1]))
                call.received.append(self.rules.merge(received[video], plan))
        call.targets.append(targets)
        call.sizes = [len(states) for states in merged]
        return torch.cat(merged)


def _through(targets: list[list[int]]) -> tuple[tuple[int, ...], ...]:
    """Targets of the frames of the video behind every layer, from those of the frames before each layer."""
    found = [tuple(targets[0])]
    for target in targets[1:]:
        found.append(tuple(-1 if frame < 0 else target[frame] for frame in found[-1]))
    return tuple(found)
