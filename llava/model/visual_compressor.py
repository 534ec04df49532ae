"""What the model asks of whatever is put into its one slot for compression."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor


@dataclass(frozen=True)
class LayerPrompt:
    """What one decoder layer keeps of a prompt, as a compressor tells it.

    Attributes:
        real_tokens: (batch, cached) bool, False at padding; None if no row has any.
        shift: (batch, 1) int64, how far the positions of later tokens move down in this layer; None if they stay.
    """

    real_tokens: Tensor | None = None
    shift: Tensor | None = None


class KeptTokens(Protocol):
    """Tokens of one video after compression: ``features`` (kept, dim) and ``index`` (kept,), in reading order.

    ``index`` is frame * tokens_per_frame + position in the frame; with ``every_row`` grid newlines follow every row.
    """

    @property
    def features(self) -> Tensor: ...
    @property
    def index(self) -> Tensor: ...
    @property
    def every_row(self) -> bool: ...


class VisualCompressor(Protocol):
    """What may be put into :attr:`LlavaQwenForCausalLM.visual_compressor`."""

    @property
    def keeps_positions(self) -> bool:
        """Whether kept tokens stay at their place in the uncompressed video, so that positions have gaps."""

    def start_prompt(self) -> None:
        """Called once before the visual inputs of a prompt (or batch of prompts) are encoded."""

    def compress_video(
        self, encode: Callable[[], Tensor], pool: Callable[[Tensor], Tensor], newline_mode: str
    ) -> KeptTokens:
        """Compress one video.

        Args:
            encode: runs tower, projector and pooling; returns (frames, tokens, dim).
            pool: the same pooling for any per-patch signal, (frames, patches, channels) to (frames, tokens, channels).
            newline_mode: ``config.mm_newline_position``.
        """

    def align_labels(self, labels: Tensor, seq: int) -> Tensor:
        """Labels (batch, seq before the LLM) of the ``seq`` positions whose logits the LLM returned."""

    def layer_prompts(self, cache: Any) -> Sequence[LayerPrompt | None] | None:
        """What a prefilled cache holds in each decoder layer; None for layers, or all, that hold the whole prompt.

        Raises:
            InputError: if the method acts in decode steps, so that no static step can stand for them.
        """
