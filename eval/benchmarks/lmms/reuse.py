"""What a video became before the LLM, kept for its other questions: the tower runs once per video, not per question.

Only for methods whose stages before the LLM say that they see the video alone (``question_free``); the tokens, and what
the record says about them, are then those that the tower would give again. Stages inside the LLM run for every
question.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from holitom.byte_cache import ByteCache
from holitom.compressor import Compressor
from holitom.tokens import CompressedTokens
from llava.video import VideoClip

if TYPE_CHECKING:
    from llava.model.visual_compressor import LayerPrompt

KEPT_BYTES = 1 << 30  # of all videos together; a video of 32 frames that keeps 15 % takes 7 MB of a 7B model


@dataclass(frozen=True, eq=False)
class KeptVideo:
    """A video that was encoded and compressed.

    Attributes:
        clip: what was read; its pictures only where records show them.
        tokens: what reached the LLM.
        newline_mode: how newline tokens stood among them.
    """

    clip: VideoClip
    tokens: CompressedTokens
    newline_mode: str

    @property
    def size(self) -> int:
        """Bytes of its arrays and tensors."""
        return sum(_bytes(self))


def _bytes(value: Any) -> Iterator[int]:
    """Bytes of all arrays and tensors below a dataclass."""
    if isinstance(value, Tensor | np.ndarray):
        yield value.nbytes
    elif is_dataclass(value):
        for entry in fields(value):
            yield from _bytes(getattr(value, entry.name))


class KeptVideos(ByteCache[KeptVideo]):
    """The videos used last, within a bound of memory; other threads ask whether one is there.

    Args:
        limit: bytes of all together; a video that alone takes more is not kept.
    """

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        super().__init__(limit)

    def add(self, key: Hashable, video: KeptVideo) -> None:
        """Keep a video, and forget those not used for longest."""
        self.put(key, video, video.size)


class ReusingSlot:
    """Stands for a compressor in a model's slot, and hands out the tokens of a video that is kept.

    Args:
        compressor: applied to the model.
        kept: where videos are kept; None to run tower and compressor for every question.

    Attributes:
        encoded: how often a video went through the tower.
    """

    def __init__(self, compressor: Compressor, kept: KeptVideos | None) -> None:
        self.compressor = compressor
        self.kept = kept if compressor.question_free else None
        self.encoded = 0
        self._key: Hashable = None
        self._clip: VideoClip | None = None
        self._known: KeptVideo | None = None

    def has(self, key: Hashable) -> bool:
        """Whether a video is kept at this moment; asked by any thread."""
        return self.kept is not None and key in self.kept

    def find(self, key: Hashable) -> KeptVideo | None:
        """The video of the next prompt, if it is kept; its tokens are then used without a look at any pixels."""
        self._key, self._clip = key, None
        self._known = None if self.kept is None else self.kept.get(key)
        return self._known

    def expect(self, clip: VideoClip) -> None:
        """The next prompt's video is not kept: keep it, as read, when it has been compressed."""
        self._clip = clip

    @property
    def keeps_positions(self) -> bool:
        """As the compressor says."""
        return self.compressor.keeps_positions

    def start_prompt(self) -> None:
        """Forget the record of the previous prompt."""
        self.compressor.start_prompt()

    def compress_video(
        self, encode: Callable[[], Tensor], pool: Callable[[Tensor], Tensor], newline_mode: str
    ) -> CompressedTokens:
        """The video's tokens, kept or computed; on record as if they had been computed.

        Raises:
            RuntimeError: if a kept video was made for other newlines: there are no pixels to compute it again from.
        """
        if self._known is not None:
            if self._known.newline_mode != newline_mode:
                raise RuntimeError(f"tokens kept for newlines {self._known.newline_mode!r} met {newline_mode!r}")
            record = self.compressor.record
            record.videos.append(self._known.tokens)
            record.newline_mode = newline_mode
            return self._known.tokens
        tokens = self.compressor.compress_video(encode, pool, newline_mode)
        self.encoded += 1
        if self.kept is not None and self._clip is not None:
            self.kept.add(self._key, KeptVideo(self._clip, tokens, newline_mode))
        return tokens

    def align_labels(self, labels: Tensor, seq: int) -> Tensor:
        """As the compressor does."""
        return self.compressor.align_labels(labels, seq)

    def layer_prompts(self, cache: Any) -> "Sequence[LayerPrompt | None] | None":
        """As the compressor does."""
        return self.compressor.layer_prompts(cache)
