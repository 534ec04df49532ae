"""The decode step's norm: as exact as transformers', one launch where torch has a kernel, and never instead of more."""

from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

from llava.model import decode_attention, static_decoding
from llava.model.decode_norm import normalize
from tests.references.replay import Recording
from tests.tiny_models import prompt

DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()


def norm_of(width: int, dtype: torch.dtype, device: str = "cpu") -> Qwen2RMSNorm:
    norm = Qwen2RMSNorm(width, eps=1e-6).to(device, dtype)
    norm.weight.data = (1 + torch.randn(width, generator=torch.Generator().manual_seed(1))).to(norm.weight)
    return norm


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
@torch.no_grad()
def test_no_farther_from_float64_than_the_module(device, dtype, scale) -> None:
    norm = norm_of(896, dtype, device)
    states = (scale * torch.randn(3, 896, generator=torch.Generator().manual_seed(0))).to(device, dtype)
    wide = states.double()
    wanted = wide / (wide.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight.double()
    errors = [
        float((found.double() - wanted).norm() / wanted.norm()) for found in (normalize(norm, states), norm(states))
    ]
    assert normalize(norm, states).dtype == dtype
    assert errors[0] <= 1.05 * errors[1]
    assert errors[0] <= torch.finfo(dtype).eps


@pytest.mark.parametrize("how", ["hook", "early hook", "class", "forward", "dtype"])
@torch.no_grad()
def test_what_does_more_is_called_itself(how: str) -> None:
    class Gemma(Qwen2RMSNorm):
        def forward(self, hidden_states: Tensor) -> Tensor:
            return hidden_states * 7

    norm, states = norm_of(16, torch.float32), torch.randn(2, 16).bfloat16()
    if how != "dtype":
        norm = norm.bfloat16()
    if how == "hook":
        norm.register_forward_hook(lambda module, given, out: out * 2)
    elif how == "early hook":
        norm.register_forward_pre_hook(lambda module, given: (given[0] * 2,))
    elif how == "class":
        norm.__class__ = Gemma
    elif how == "forward":
        norm.forward = lambda states: states + 1  # as libraries that move weights do
    found = normalize(norm, states)
    assert found.dtype == (torch.float32 if how == "dtype" else torch.bfloat16)
    assert torch.equal(found, norm(states))


@pytest.fixture
def as_on_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What CUDA runs instead, each one operator: its kernel of the norm, and products of halves that give float32."""

    def fused(states: Tensor, shape: list[int], weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        factor = (states.float().pow(2).mean(-1, keepdim=True) + eps).rsqrt()
        return (states.float() * factor * weight.float()).to(states.dtype), factor

    def product(left: Tensor, right: Tensor) -> Tensor:
        return left.new_zeros(*left.shape[:2], right.shape[2], dtype=torch.float32)

    monkeypatch.setattr(static_decoding, "attend_to_cache", decode_attention.split_attention)
    monkeypatch.setattr(decode_attention, "_product", product)
    with torch.library._scoped_library("aten", "IMPL") as library:
        library.impl("_fused_rms_norm", fused, "CPU", allow_override=True)
        yield


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_step_takes_27_operators_a_layer(model, as_on_cuda, dtype: torch.dtype) -> None:
    """torch hands its norm to the kernel in every dtype; transformers' module would take 7 more in its place."""
    model.to(dtype)
    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "pad_token_id": 256}
    model.generate(prompt(9), decoding="static", **options)
    decoder = model.idle_decoder._decoders[-1]
    decoder.used = 0
    with Recording() as recording:
        decoder.step()
    found, layers = Counter(recording.names()), model.config.num_hidden_layers
    assert found["aten._fused_rms_norm"] == 2 * layers + 1
    assert not found["aten.rsqrt"]
    assert found.total() <= 27 * layers + 20
