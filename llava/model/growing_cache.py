"""A cache with room for later tokens: a decode step writes its entry in place instead of copying all others."""

from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class _RoomyLayer(DynamicLayer):
    """One layer. ``keys`` and ``values`` are the filled part of larger tensors.

    Others may put tensors of their own into ``keys`` and ``values``, as beam search and pruning of the cache do; the
    next update sees that and takes them over.
    """

    keys: Tensor
    values: Tensor

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.copied = 0  # bytes moved to make room
        self._all_keys: Tensor | None = None
        self._all_values: Tensor | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append (batch, kv_heads, new, head_dim); returns all keys and values."""
        past = self.get_seq_length()
        total = past + key_states.shape[-2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if not self._fits(self._all_keys, self.keys, past, total):
            self._all_keys = self._moved(self.keys, key_states, past, total)
            self._all_values = self._moved(self.values, value_states, past, total)
        assert self._all_keys is not None
        assert self._all_values is not None
        self._all_keys[:, :, past:total] = key_states
        self._all_values[:, :, past:total] = value_states
        self.keys, self.values = self._all_keys[:, :, :total], self._all_values[:, :, :total]
        return self.keys, self.values

    @staticmethod
    def _fits(whole: Tensor | None, part: Tensor, past: int, total: int) -> bool:
        """Whether ``part`` is the beginning of ``whole`` and there is room for ``total`` entries."""
        if whole is None or whole.shape[-2] < total:
            return False
        same = past == 0 or part.data_ptr() == whole.data_ptr()
        return same and (past == 0 or part.shape[:2] == whole.shape[:2])

    def _moved(self, part: Tensor, new: Tensor, past: int, total: int) -> Tensor:
        whole = new.new_empty(*new.shape[:2], total + self.room, new.shape[-1])
        if past:
            whole[:, :, :past] = part
            self.copied += part.numel() * part.element_size()
        return whole


class GrowingCache(DynamicCache):
    """A :class:`DynamicCache` whose entries stay where they are while tokens are appended.

    Layers may have different lengths, and everything that takes a :class:`DynamicCache` takes it.

    Args:
        layers: layers of the decoder, all with full attention.
        room: tokens that fit behind the first ones before entries are moved; they move again after as many more.
    """

    def __init__(self, layers: int, room: int) -> None:
        super().__init__()
        self.layers = [_RoomyLayer(room) for _ in range(layers)]
        self.layer_class_to_replicate = None

    @property
    def copied_bytes(self) -> int:
        """Bytes of entries that were moved so far."""
        return sum(layer.copied for layer in self.layers)
