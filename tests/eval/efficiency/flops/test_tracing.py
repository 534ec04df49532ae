"""What watches a run: bytes alive, fused attention without values, FLOPs of modules."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from eval.efficiency.flops.tracing import FusedAttention, LiveBytes, ModuleFlops


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_live_bytes_follow_what_is_alive(device: str) -> None:
    weight = torch.empty(50, 50, device=device)
    with LiveBytes() as alive:
        first = torch.empty(1000, device=device)
        assert alive.now == 4000
        view = first.view(10, 100).t()
        weight.t()
        assert alive.now == 4000
        second = first + 1
        assert alive.now == 8000
        del second
        assert (alive.now, alive.peak) == (4000, 8000)
        first.add_(1)
        del first
        assert alive.now == 4000  # the view holds it
        del view
        assert alive.now == 0
        low, high = torch.empty(10, device=device, dtype=torch.bfloat16).split(5)
        assert alive.now == 20
        del low
        assert alive.now == 20
        del high
    assert (alive.now, alive.peak) == (0, 8000)


@pytest.mark.parametrize(("queries", "keys", "causal"), [(7, 7, True), (7, 7, False), (1, 7, False), (1, 1, True)])
def test_fused_attention_counts_the_triangle(queries: int, keys: int, causal: bool) -> None:
    query = torch.empty(2, 6, queries, 8, device="meta")
    key = torch.empty(2, 3, keys, 8, device="meta")
    with FusedAttention() as attention, FlopCounterMode(display=False) as counter:
        out = F.scaled_dot_product_attention(query, key, key, is_causal=causal, enable_gqa=True)
    assert out.shape == query.shape
    assert out.dtype == query.dtype
    pairs = sum(row + 1 for row in range(queries)) if causal else queries * keys
    assert counter.get_total_flops() == 2 * 2 * 2 * 6 * 8 * queries * keys
    assert counter.get_total_flops() - attention.masked == 2 * 2 * 2 * 6 * 8 * pairs


def test_fused_attention_leaves_tensors_with_values_alone() -> None:
    query = torch.randn(1, 2, 5, 8, generator=torch.Generator().manual_seed(0))
    expected = F.scaled_dot_product_attention(query, query, query, is_causal=True)
    with FusedAttention() as attention:
        assert torch.equal(F.scaled_dot_product_attention(query, query, query, is_causal=True), expected)
    assert attention.masked == 0


def test_fused_attention_writes_no_map() -> None:
    query = torch.empty(1, 2, 500, 8, device="meta")
    with LiveBytes() as alive, FusedAttention():
        F.scaled_dot_product_attention(query, query, query)
    assert alive.peak < 500 * 500 * 4


def test_modules_are_counted_without_the_hooks_before_them() -> None:
    linear, other = nn.Linear(4, 5, device="meta"), nn.Linear(4, 4, device="meta")
    linear.register_forward_pre_hook(lambda module, args: (other(args[0]),))
    states = torch.empty(3, 4, device="meta")
    with FlopCounterMode(display=False) as counter:
        modules = ModuleFlops(counter).watch([linear])
        linear(states)
        linear(states)
        other(states)
        assert modules.stop() == 2 * 2 * 3 * 4 * 5
        linear(states)
    assert modules.total == 2 * 2 * 3 * 4 * 5
    assert counter.get_total_flops() == 3 * 2 * 3 * 4 * 5 + 4 * 2 * 3 * 4 * 4
    assert not linear._forward_hooks
