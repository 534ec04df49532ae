"""What the meta run of :mod:`~eval.efficiency.flops.counted` watches: attention, living bytes, FLOPs of modules."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.weak import WeakIdKeyDictionary


class FusedAttention(TorchFunctionMode):
    """Has unmasked attention on the meta device run by the fused operator, as CPU and CUDA do.

    The meta device has no fused attention of its own and would write out the maps of all heads, which costs no other
    FLOPs but another memory. It also notes what the counter leaves out: FlopCounterMode counts the full square of a
    causal attention, of which a fused kernel computes the lower triangle.

    Attributes:
        masked: FLOPs counted above the diagonal of causal attentions.
    """

    def __init__(self) -> None:
        super().__init__()
        self.masked = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention or not args[0].is_meta or kwargs.get("attn_mask") is not None:
            return func(*args, **kwargs)
        query, key, value = args
        causal = bool(kwargs.get("is_causal", False))
        if causal:
            batch, heads, seq, head_dim = query.shape
            # seq * (seq - 1) / 2 pairs of the square lie above the diagonal, in both products
            self.masked += 2 * batch * heads * head_dim * seq * (seq - 1)
        fused = torch.ops.aten._scaled_dot_product_flash_attention
        return fused(query, key, value, 0.0, causal, scale=kwargs.get("scale"))[0]


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that come into being in a ``with`` block for as long as they live.

    Views share the bytes of their base; what existed before (weights) does not count. Works on every device, also
    without data.

    Attributes:
        now: bytes alive.
        peak: most bytes alive at one time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor):
                self._known.setdefault(tensor.untyped_storage(), None)
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._born(tensor.untyped_storage())
        return result

    def _born(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known[storage] = None
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._died, size).atexit = False

    def _died(self, size: int) -> None:
        self.now -= size


@dataclass
class ModuleFlops:
    """FLOPs inside the forward passes of some modules, without what hooks on them do before.

    Args:
        counter: running around the calls.

    Attributes:
        total: FLOPs so far.
    """

    counter: FlopCounterMode
    total: int = 0
    _handles: list[Any] = field(default_factory=list)
    _before: int = 0

    def watch(self, modules: Iterable[nn.Module]) -> ModuleFlops:
        """Watch modules that do not contain each other; hooks registered up to now stay outside the count."""
        for module in modules:
            self._handles.append(module.register_forward_pre_hook(self._enter))
            self._handles.append(module.register_forward_hook(self._leave))
        return self

    def stop(self) -> int:
        """Take the hooks off; returns the total."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        return self.total

    def _enter(self, *_: Any) -> None:
        self._before = self.counter.get_total_flops()

    def _leave(self, *_: Any) -> None:
        self.total += self.counter.get_total_flops() - self._before
