"""What a compressor is made of: stages before, inside and in front of the LLM, each a protocol that methods fulfil."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

from holitom.encoded_video import EncodedVideo, FrameMerges
from holitom.hooks.decoder.inner_record import InnerRecord
from holitom.hooks.tower.parts import TowerPlaces
from holitom.record.prompt import Record
from holitom.tokens import CompressedTokens

if TYPE_CHECKING:
    from llava.model.visual_compressor import LayerPrompt


class OuterStage(Protocol):
    """Compression of one video before the LLM.

    Attributes:
        signals: names of the tower's side signals the stage needs (see ``holitom.hooks.tower.signals``).
        keeps_positions: kept tokens stay at their place in the uncompressed video, so that the LLM sees gaps;
            otherwise they are numbered without gaps.

    A stage whose tokens follow from the video alone, the same for every question and every time, says so by
    ``question_free = True``; without it they are never used for another question about the video.
    A stage that refuses features which are not finite along with a transfer that it makes anyway says so by
    ``checks_features = True``; for all others the compressor does it.
    A stage that ranks the tokens it left out by more than the attention they receive says how much it likes each by
    ``preference(video, kept)``, (frames, tokens); see :mod:`holitom.budget`.
    """

    signals: tuple[str, ...]
    keeps_positions: bool

    def __call__(self, video: EncodedVideo) -> CompressedTokens:
        """The tokens that reach the LLM."""

    def most_kept(self, frames: int, tokens_per_frame: int) -> int:
        """Most tokens that the stage's budget allows for a video of this size."""


class InnerStage(Protocol):
    """Compression inside the LLM."""

    last: InnerRecord | None

    def apply(self, decoder: nn.Module) -> Any: ...
    def remove(self) -> None: ...
    def align(self, labels: Tensor) -> Tensor: ...

    def layer_prompts(self, cache: Any) -> Sequence[LayerPrompt | None] | None:
        """What a prefilled cache holds in each decoder layer, see ``llava.model.visual_compressor``."""

    def start_prompt(self, record: Record) -> None:
        """Forget the previous prompt; ``record`` is what the outer stage will have done before the decoder runs."""


class TowerStage(Protocol):
    """Merging of frames inside the vision tower; see :class:`~holitom.hooks.tower.frame_merging.FrameMerging`."""

    layers: tuple[int, ...]

    def apply(self, places: TowerPlaces) -> Any: ...
    def remove(self) -> None: ...
    def recording(self, videos: Sequence[int] | None = None) -> AbstractContextManager[Any]: ...
    def take(self) -> list[FrameMerges]: ...
    def nominal(self) -> TowerStage: ...
    def nominal_frames(self, frames: int, layers: int) -> list[int]: ...


# The stage, the video as it saw it, what it kept and how many tokens there are to be -> that many tokens.
BudgetFilling = Callable[[OuterStage, EncodedVideo, CompressedTokens, int], CompressedTokens]
