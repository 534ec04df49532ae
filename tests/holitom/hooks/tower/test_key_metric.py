"""The recorder returns the keys that the attention module itself computes, averaged over its heads."""

import pytest
import torch
from torch import nn

from holitom.hooks.tower.key_metric import KeyMetricRecorder
from holitom.hooks.tower.received_attention import ReceivedAttentionRecorder
from llava.errors import InputError
from tests.holitom.hooks.tower.test_received_attention import self_attention, tower
from tests.tiny_models import hook_count


def naive(attention: nn.Module, calls: list[torch.Tensor]) -> torch.Tensor:
    """Head by head, in float64, from what ``k_proj`` returned to the module."""
    keys = torch.cat(calls).double()
    width = keys.shape[-1] // attention.num_heads
    heads = [keys[..., head * width : (head + 1) * width] for head in range(attention.num_heads)]
    return sum(heads) / len(heads)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("layer", [0, -1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_the_keys_of_the_module(layer: int, attention: str, dtype: torch.dtype) -> None:
    model = tower(attention).to(dtype)
    module = self_attention(model, layer)
    pixels = torch.randn(3, 3, 28, 28, generator=torch.Generator().manual_seed(2)).to(dtype)
    seen: list[torch.Tensor] = []
    with module.k_proj.register_forward_hook(lambda *call: seen.append(call[-1])):
        before = model(pixels).last_hidden_state
    recorder = KeyMetricRecorder().apply(module)
    with recorder.recording():
        during = model(pixels).last_hidden_state
    metric = recorder.take()
    assert metric.shape == (3, 16, 8)
    assert metric.dtype == torch.float32
    torch.testing.assert_close(metric.double(), naive(module, seen), atol=1e-6, rtol=1e-5)
    assert torch.equal(before, during)


def test_calls_are_joined_and_two_recorders_do_not_disturb_each_other() -> None:
    model, pixels = tower(), torch.randn(4, 3, 28, 28, generator=torch.Generator().manual_seed(3))
    keys = KeyMetricRecorder().apply(self_attention(model, -1))
    received = ReceivedAttentionRecorder().apply(self_attention(model, -1))
    with keys.recording():
        model(pixels)
    alone = keys.take()
    with received.recording(), keys.recording():
        model(pixels[:1])
        model(pixels[1:])
    assert keys.take().shape == alone.shape
    assert received.take().shape == (4, 16)
    assert hook_count(model) == 0
    with pytest.raises(RuntimeError, match="no key metric recorded"):
        keys.take()


def test_other_modules_are_refused() -> None:
    with pytest.raises(InputError, match="must have k_proj, num_heads"):
        KeyMetricRecorder().apply(nn.Linear(2, 2))
