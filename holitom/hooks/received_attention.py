"""Reading how much attention each patch receives in one layer of the vision tower, without eager attention."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from holitom.attention_scores import received_attention
from holitom.config import is_integer, require
from llava.errors import InputError


class ReceivedAttentionRecorder:
    """Records the attention every patch receives (HoliTom, Sec. 3.2) while the tower runs as always.

    The queries and keys of one attention module are computed a second time from its input; no output changes. The
    pre-hook exists only while recording, so a recorder that is not armed costs nothing.

    Args:
        chunk: images whose attention maps are in memory at one time.
    """

    def __init__(self, chunk: int = 1) -> None:
        require(is_integer(chunk) and chunk >= 1, "chunk", chunk, "an integer of at least 1", "1 uses the least memory")
        self.chunk = chunk
        self._attention: nn.Module | None = None
        self._handle: RemovableHandle | None = None
        self._recorded: list[Tensor] = []

    def apply(self, attention_module: nn.Module) -> "ReceivedAttentionRecorder":
        """Choose the attention module to read, ``layers[i].self_attn`` of a SigLIP encoder.

        Raises:
            InputError: if the module lacks ``q_proj``, ``k_proj``, ``num_heads`` or ``scale``.
            RuntimeError: if a module is chosen already.
        """
        if self._attention is not None:
            raise RuntimeError("ReceivedAttentionRecorder is applied already; call remove() first")
        missing = [name for name in ("q_proj", "k_proj", "num_heads", "scale") if not hasattr(attention_module, name)]
        if missing:
            raise InputError(
                f"{type(attention_module).__name__} cannot be read: it must have {', '.join(missing)}; "
                "give layers[i].self_attn of a SigLIP encoder"
            )
        self._attention = attention_module
        return self

    def remove(self) -> None:
        """Stop recording and forget the module and everything recorded."""
        self._disarm()
        self._recorded.clear()
        self._attention = None

    @contextmanager
    def recording(self) -> Iterator["ReceivedAttentionRecorder"]:
        """Record every call of the module inside the ``with`` block, from an empty record on.

        Raises:
            RuntimeError: if no module was chosen, or recording is on already.
        """
        if self._attention is None:
            raise RuntimeError("no attention module to record: call apply() first")
        if self._handle is not None:
            raise RuntimeError("recording is on already: leave the running with block first")
        self._recorded.clear()
        self._handle = self._attention.register_forward_pre_hook(self._record, with_kwargs=True)
        try:
            yield self
        finally:
            self._disarm()

    def take(self) -> Float[Tensor, "images patches"]:
        """What was recorded since ``recording()`` or the last ``take()``, (images, patches) fp32; empties the record.

        Raises:
            RuntimeError: if nothing was recorded.
        """
        if not self._recorded:
            raise RuntimeError("no received attention recorded: run the vision tower inside recording() first")
        recorded = torch.cat(self._recorded)
        self._recorded.clear()
        return recorded

    def _disarm(self) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    @torch.no_grad()
    def _record(self, attention: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Pre-hook: received attention from the layer-normed states the module is about to read."""
        hidden = args[0] if args else kwargs["hidden_states"]
        if kwargs.get("attention_mask") is not None or len(args) > 1:
            raise NotImplementedError("received attention is defined over all patches: attention masks are unsupported")
        query, key = (
            projection(hidden).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
            for projection in (attention.q_proj, attention.k_proj)
        )
        self._recorded.append(received_attention(query, key, attention.scale, self.chunk))
