"""Remembering what a foreign model's vision tower was asked and which side signals it gave, until they are needed."""

from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from holitom.hooks.hook_set import HookSet
from holitom.hooks.per_thread import PerThread
from holitom.hooks.prompt.prompt_layout import TowerCall
from holitom.hooks.tower.video_calls import VideoCalls


class TowerCalls(HookSet):
    """Arms a compressor's recorders around every call of a tower.

    ``generate`` encodes images and videos long before the decoder runs, other callers in the same pass. A call is kept
    as long as the features it returned are alive, by which :meth:`of` finds it; :attr:`latest` is the last one.

    Args:
        compressor: its recorders are on modules of the tower.
        videos: knows which calls are of videos, where the compressor merges frames inside the tower.
    """

    latest = PerThread[TowerCall]()
    _running = PerThread[ExitStack]()

    def __init__(self, compressor: Any, videos: VideoCalls | None = None) -> None:
        super().__init__()
        self._compressor = compressor
        self._videos = videos
        self._calls: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

    def of(self, output: Any) -> TowerCall | None:
        """The call that returned ``output``; None if it was not seen."""
        return self._calls.get(output.last_hidden_state)

    def _register(self, tower: nn.Module) -> None:
        self._handles += [
            tower.register_forward_pre_hook(self._enter),
            tower.register_forward_hook(self._leave, with_kwargs=True, always_call=True),
        ]

    def _forget(self) -> None:
        self._calls.clear()
        self.latest = None

    def _enter(self, tower: nn.Module, args: tuple[Any, ...]) -> None:
        """Pre-hook of the tower: start recording."""
        self.latest = None
        running = ExitStack()
        videos = None if self._videos is None else self._videos.videos or ()
        running.enter_context(self._compressor.recording(videos))
        self._running = running

    def _leave(self, tower: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Forward hook of the tower, also after an exception: stop recording and keep what was recorded."""
        running, self._running = self._running, None
        if running is not None:
            running.close()
        if output is None:
            return
        inputs: Tensor = args[0] if args else next(iter(kwargs.values()))
        merges = tuple(self._compressor.take_merges())
        if self._videos is not None and merges:
            self._videos.left = tuple(video.merged_frames for video in merges)
        call = TowerCall(inputs.shape[0], kwargs, self._compressor.take_signals(), merges)
        self._calls[output.last_hidden_state] = call
        self.latest = call
