"""The recorder returns what eager attention with output_attentions would, and changes nothing."""

import copy

import pytest
import torch
from accelerate import cpu_offload
from transformers import SiglipVisionConfig, SiglipVisionModel

from holitom.hooks.tower.received_attention import ReceivedAttentionRecorder
from llava.errors import InputError
from tests.tiny_models import hook_count


def tower(attention: str = "sdpa") -> SiglipVisionModel:
    config = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=28,
        patch_size=7,
        attn_implementation=attention,
        vision_use_head=False,
    )
    torch.manual_seed(0)
    model = SiglipVisionModel._from_config(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture
def pixels():
    return torch.randn(5, 3, 28, 28, generator=torch.Generator().manual_seed(2))


def self_attention(model, layer):
    return [module for module in model.modules() if hasattr(module, "q_proj")][layer]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("layer", [0, -1])
@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_equals_output_attentions(pixels, layer, attention, chunk):
    maps = tower("eager")(pixels, output_attentions=True).attentions[layer]
    model = tower(attention)
    recorder = ReceivedAttentionRecorder(chunk).apply(self_attention(model, layer))
    before = model(pixels).last_hidden_state
    with recorder.recording():
        during = model(pixels).last_hidden_state
    received = recorder.take()
    assert received.shape == (5, 16)
    assert torch.allclose(received, maps.mean(dim=(1, 2)), atol=1e-6)
    assert torch.allclose(received.sum(1), torch.ones(5))
    assert torch.equal(before, during)


def test_calls_are_concatenated_and_taken_once(pixels):
    model = tower()
    recorder = ReceivedAttentionRecorder().apply(self_attention(model, 1))
    with recorder.recording():
        model(pixels)
        whole = recorder.take()
        model(pixels[:2])
        model(pixels[2:])
        assert torch.allclose(recorder.take(), whole, atol=1e-6)
        with pytest.raises(RuntimeError, match="no received attention"):
            recorder.take()
        model(pixels)
    with recorder.recording():
        model(pixels[:1])
    assert recorder.take().shape == (1, 16)


def test_records_only_while_armed(pixels):
    model = tower()
    recorder = ReceivedAttentionRecorder().apply(self_attention(model, 0))
    assert hook_count(model) == 0
    model(pixels)
    with pytest.raises(RuntimeError, match="no received attention"):
        recorder.take()
    with recorder.recording():
        assert hook_count(model) == 1
    assert hook_count(model) == 0
    with pytest.raises(ZeroDivisionError), recorder.recording():
        raise ZeroDivisionError
    assert hook_count(model) == 0


def test_remove_disarms_and_forgets(pixels):
    model = tower()
    recorder = ReceivedAttentionRecorder().apply(self_attention(model, 0))
    with recorder.recording():
        model(pixels)
        recorder.remove()
        assert hook_count(model) == 0
        model(pixels)
    with pytest.raises(RuntimeError, match="no received attention"):
        recorder.take()
    with pytest.raises(RuntimeError, match="call apply"), recorder.recording():
        pass
    recorder.apply(self_attention(model, 1)).remove()


def test_misuse_is_refused(pixels):
    model = tower()
    with pytest.raises(InputError, match="must have q_proj"):
        ReceivedAttentionRecorder().apply(model)
    with pytest.raises(InputError, match="chunk = 0"):
        ReceivedAttentionRecorder(chunk=0)
    recorder = ReceivedAttentionRecorder().apply(self_attention(model, 0))
    with pytest.raises(RuntimeError, match="applied already"):
        recorder.apply(self_attention(model, 1))
    with recorder.recording(), pytest.raises(RuntimeError, match="recording is on"), recorder.recording():
        pass
    states = torch.randn(1, 16, 32)
    with recorder.recording(), pytest.raises(NotImplementedError, match="masks"):
        self_attention(model, 0)(states, attention_mask=torch.ones(1, 1, 16, 16, dtype=torch.bool))


def test_positional_states_and_no_graph(pixels):
    model = tower().requires_grad_(True)
    recorder, states = ReceivedAttentionRecorder().apply(self_attention(model, 0)), torch.randn(2, 16, 32)
    received = []
    for call in (lambda module: module(states), lambda module: module(hidden_states=states)):
        with recorder.recording():
            call(self_attention(model, 0))
        received.append(recorder.take())
    assert torch.equal(*received)
    assert not received[0].requires_grad


def test_offloaded_weights_are_read(pixels):
    model = tower()
    offloaded = copy.deepcopy(model)
    cpu_offload(offloaded, execution_device=torch.device("cpu"))
    received = []
    for each in (model, offloaded):
        recorder = ReceivedAttentionRecorder().apply(self_attention(each, -1))
        with recorder.recording():
            each(pixels)
        received.append(recorder.take())
    assert torch.equal(*received)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_recorded_in_fp32(pixels, dtype):
    model = tower().to(dtype)
    recorder = ReceivedAttentionRecorder().apply(self_attention(model, 0))
    with recorder.recording():
        model(pixels.to(dtype))
    received = recorder.take()
    assert received.dtype == torch.float32
    assert torch.allclose(received.sum(1), torch.ones(5), atol=1e-5)
