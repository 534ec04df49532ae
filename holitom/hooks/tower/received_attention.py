"""Reading how much attention each patch receives in one layer of the vision tower, without eager attention."""

from typing import Any

from torch import Tensor

from holitom.checks import require_integer
from holitom.hooks.tower.recorder import AttentionRecorder, normed_projection
from holitom.ops.attention_scores import received_attention


class ReceivedAttentionRecorder(AttentionRecorder):
    """Records the attention every patch receives (HoliTom, Sec. 3.2): (images, patches) fp32.

    The queries and keys of one attention module are computed a second time from its input.

    Args:
        chunk: images whose attention maps are in memory at one time.
    """

    signal = "received attention"
    needs = ("q_proj", "k_proj", "num_heads", "scale")

    def __init__(self, chunk: int = 1) -> None:
        require_integer("chunk", chunk, 1, "1 uses the least memory")
        super().__init__()
        self.chunk = chunk

    def _read(self, attention: Any, hidden: Tensor) -> Tensor:
        query, key = (
            normed_projection(attention, name, hidden).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
            for name in ("q", "k")
        )
        return received_attention(query, key, attention.scale, self.chunk)
