"""Reading received attention in a tower that packs all frames of all videos into one sequence."""

from typing import Any

import torch
from torch import Tensor, nn

from holitom.errors import InputError
from holitom.hooks.call_names import argument
from holitom.hooks.tower.parts import Recorder, TowerPlaces
from holitom.hooks.tower.recorder import AttentionRecorder
from holitom.ops.attention_scores import received_by_segment


class PackedReceivedAttentionRecorder(AttentionRecorder):
    """Records the attention every patch receives (HoliTom, Sec. 3.2) in a tower like Qwen2-VL's: (patches,) fp32.

    The module is called with the packed patches of a batch, (patches, dim), with ``cu_seqlens``, where each frame
    begins, and with the rotary ``position_embeddings``. Its queries and keys are computed a second time, by ``qkv`` or
    by ``q_proj`` and ``k_proj``, in the dtype in which the tower itself multiplies them; sums are fp32. A patch's score
    is the mean over all heads and over all patches of its frame that ask; the order is that of the input.
    """

    signal = "received attention"
    needs = ("num_heads", "scaling")
    asks = ("hidden_states", "cu_seqlens", "position_embeddings")

    @torch.no_grad()
    def _record(self, attention: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Pre-hook: record one call."""
        from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb_vision  # noqa: PLC0415

        hidden: Tensor = args[0] if args else argument(kwargs, "hidden_states")
        if hasattr(attention, "qkv"):
            query, key = attention.qkv(hidden).unflatten(-1, (3, attention.num_heads, -1)).unbind(1)[:2]
        else:
            query, key = (
                projection(hidden).unflatten(-1, (attention.num_heads, -1))
                for projection in (attention.q_proj, attention.k_proj)
            )
        query, key = apply_rotary_pos_emb_vision(query, key, *argument(kwargs, "position_embeddings"))
        lengths = argument(kwargs, "cu_seqlens").diff().tolist()
        self._recorded.append(
            received_by_segment(query.transpose(0, 1), key.transpose(0, 1), lengths, attention.scaling)
        )


def packed_recorder(attention: nn.Module, name: str) -> Recorder:
    """The recorder of a signal on one attention module of such a tower.

    Raises:
        InputError: for signals that are SigLIP's.
    """
    if name != "received_attention":
        raise InputError(
            f"the method needs the signal {name} of a SigLIP tower, which this model has not: use holitom, another "
            "method that needs received_attention alone, or one without signals"
        )
    return PackedReceivedAttentionRecorder().apply(attention)


def no_tower_places(model: nn.Module) -> TowerPlaces:
    """None: the tower packs the patches of all frames into one sequence.

    Raises:
        InputError: always.
    """
    raise InputError(
        "the method merges frames inside a SigLIP tower, which this model has not: use holitom, or another method "
        "without a stage inside the tower"
    )
