"""Reading received attention in a tower that packs all frames of all videos into one sequence."""

from typing import Any

import torch
from torch import Tensor
from transformers.models.qwen2.modeling_qwen2 import rotate_half

from holitom.hooks.tower.recorder import AttentionRecorder
from holitom.ops.attention_scores import received_by_segment


class PackedReceivedAttentionRecorder(AttentionRecorder):
    """Records the attention every patch receives (HoliTom, Sec. 3.2) in a tower like Qwen2-VL's: (patches,) fp32.

    The module is called with the packed patches of a batch, (patches, dim), with ``cu_seqlens``, where each frame
    begins, and with the rotary ``position_embeddings``. Its queries and keys are computed a second time. A patch's
    score is the mean over all heads and over all patches of its frame that ask; the order is that of the input.
    """

    signal = "received attention"
    needs = ("qkv", "num_heads", "scaling")

    @torch.no_grad()
    def _record(self, attention: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Pre-hook: record one call."""
        hidden: Tensor = args[0] if args else kwargs["hidden_states"]
        heads = attention.qkv(hidden).unflatten(-1, (3, attention.num_heads, -1))[:, :2].float()
        cos, sin = (part.to(heads)[:, None, None, :] for part in kwargs["position_embeddings"])
        query, key = (heads * cos + rotate_half(heads) * sin).permute(1, 2, 0, 3)
        lengths = kwargs["cu_seqlens"].diff().tolist()
        self._recorded.append(received_by_segment(query, key, lengths, attention.scaling))
