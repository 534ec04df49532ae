"""A question's video on its way to the stock model: read, made into pixel values, and handed over where it asks."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llava.video import VideoClip


@dataclass(frozen=True, eq=False)
class ReadVideo:
    """A video that was read.

    Attributes:
        clip: what was read; without pictures where nobody looks at them again.
        pixels: (frames, 3, side, side) float32, as the image processor makes them; None where the stock model does it.
    """

    clip: VideoClip
    pixels: Tensor | None


class VideoReading:
    """Reads videos for one thread, and keeps the one before: the next question is often about it.

    Args:
        prepare: the image processor's ``preprocess``, or None to leave pixel values to the stock model.
        keep_pictures: whether records show them.
    """

    def __init__(self, prepare: Callable[..., Any] | None, keep_pictures: bool) -> None:
        self._prepare = prepare
        self._keep_pictures = keep_pictures
        self._key: Hashable = None
        self._video: ReadVideo | None = None

    def read(self, key: Hashable, load: Callable[[], VideoClip]) -> ReadVideo:
        """The video of this key; ``load`` is called unless it is the one before.

        Raises:
            VideoError: by ``load``.
        """
        if self._video is None or self._key != key:
            self._video = None  # before the next one takes memory
            self._video = self.fresh(load)
            self._key = key
        return self._video

    def fresh(self, load: Callable[[], VideoClip]) -> ReadVideo:
        """The video as :meth:`read` gives it, and nothing kept; in any thread."""
        clip = load()
        if self._prepare is None:
            return ReadVideo(clip, None)
        # without torch, whose threads would then be two sets, one of this thread and one of the model's
        pixels = torch.from_numpy(self._prepare(clip.frames, return_tensors="np")["pixel_values"])
        return ReadVideo(clip if self._keep_pictures else clip.without_pictures(), pixels)


class GivenPixels:
    """Stands for the image processor in a stock model: pixel values that exist already are handed over.

    Args:
        processor: the model's own, for everything else.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self._frames: np.ndarray | None = None
        self._pixels: Tensor | None = None

    def give(self, frames: np.ndarray, pixels: Tensor) -> None:
        """What these very frames are to become."""
        self._frames, self._pixels = frames, pixels

    def preprocess(self, images: Any, **options: Any) -> Any:
        """Pixel values as the processor names them."""
        if self._frames is not None and images is self._frames:
            return {"pixel_values": self._pixels}
        return self.processor.preprocess(images, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.processor, name)


def blank_pixels(frames: int, side: int) -> Tensor:
    """Pixel values in the place of those of a video whose tokens are kept; nothing looks at them."""
    return torch.zeros(1, 1, 1, 1).expand(frames, 3, side, side)
