"""Packed questions against the decoder of transformers, one question at a time."""

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import Qwen2Config, Qwen2Model

from eval.synthetic.training.packed import prefix_pass, question_pass


@pytest.fixture(scope="module")
def decoder() -> Qwen2Model:
    torch.manual_seed(0)
    config = Qwen2Config(
        hidden_size=48, intermediate_size=64, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2,
        vocab_size=50, rope_parameters={"rope_theta": 1e6, "rope_type": "default"},
    )  # fmt: skip
    model = Qwen2Model(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model


def alone(decoder: Qwen2Model, prefix: Tensor, question: Tensor) -> Tensor:
    """One question behind one video, by transformers itself."""
    embeddings = torch.cat([prefix, decoder.embed_tokens(question)])[None]
    return decoder(inputs_embeds=embeddings).last_hidden_state[0, len(prefix) :]


@pytest.mark.parametrize(("videos", "questions", "prefix", "length"), [(1, 1, 1, 1), (2, 3, 7, 5), (3, 1, 2, 9)])
@torch.no_grad()
def test_equals_every_question_alone(
    decoder: Qwen2Model, videos: int, questions: int, prefix: int, length: int
) -> None:
    states = torch.randn(videos, prefix, 48)
    tokens = torch.randint(50, (videos, questions, length))
    cache, _ = prefix_pass(decoder, states)
    packed, _ = question_pass(decoder, cache, tokens)
    for video, question in np.ndindex(videos, questions):
        expected = alone(decoder, states[video], tokens[video, question])
        torch.testing.assert_close(packed[video, question], expected, atol=2e-4, rtol=1e-4)


@torch.no_grad()
def test_tap_gives_the_states_that_enter_a_layer(decoder: Qwen2Model) -> None:
    states = torch.randn(2, 6, 48)
    _, tapped = prefix_pass(decoder, states, tap=2)
    expected = decoder(inputs_embeds=states, output_hidden_states=True).hidden_states[2]
    torch.testing.assert_close(tapped, expected, atol=2e-4, rtol=1e-4)


@torch.no_grad()
def test_questions_are_tapped_too(decoder: Qwen2Model) -> None:
    states, tokens = torch.randn(1, 6, 48), torch.randint(50, (1, 1, 4))
    cache, _ = prefix_pass(decoder, states)
    _, tapped = question_pass(decoder, cache, tokens, tap=1)
    whole = torch.cat([states[0], decoder.embed_tokens(tokens[0, 0])])[None]
    expected = decoder(inputs_embeds=whole, output_hidden_states=True).hidden_states[1][0, 6:]
    torch.testing.assert_close(tapped[0, 0], expected, atol=2e-4, rtol=1e-4)


def test_gradients_reach_the_prefix_and_every_layer(decoder: Qwen2Model) -> None:
    states = torch.randn(1, 4, 48, requires_grad=True)
    cache, _ = prefix_pass(decoder, states)
    question_pass(decoder, cache, torch.randint(50, (1, 2, 3)))[0].square().sum().backward()
    assert states.grad is not None
    assert float(states.grad.abs().min()) > 0
    assert all(layer.self_attn.k_proj.weight.grad.abs().sum() > 0 for layer in decoder.layers)
