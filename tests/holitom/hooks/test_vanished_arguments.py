"""A release of transformers that renames what hooks read from its calls: errors, never another result."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import DynamicCache, Qwen2Model, SiglipVisionConfig
from transformers.models.siglip.modeling_siglip import SiglipAttention

from eval.instruments.models.random_checkpoint import tiny_config
from holitom.hooks.decoder.pruning import pruning_stages
from holitom.hooks.decoder.rules import DecoderStage
from holitom.hooks.decoder.staged import StagedCompression
from holitom.hooks.prompt.kept_positions import KeptPositions
from holitom.hooks.tower.received_attention import ReceivedAttentionRecorder
from holitom.methods.dycoke.decode import DycokeDecodePruning
from llava.errors import InputError
from llava.model.builder import load_pretrained_model
from llava.model.language_model.llava_qwen import LlavaQwenConfig
from tests.tiny_models import prompt

OF_ATTENTION = ("hidden_states", "position_embeddings")
OF_LAYERS = ("attention_mask", "position_ids", "position_embeddings")


def _decoder() -> Qwen2Model:
    torch.manual_seed(0)
    return Qwen2Model(LlavaQwenConfig(**tiny_config())).eval()


def _without(name: str) -> Callable[..., Any]:
    """A pre-hook that renames an argument, put on before the hooks under test."""

    def rename(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return args, {f"new_{each}" if each == name else each: value for each, value in kwargs.items()}

    return rename


def _run(decoder: Qwen2Model) -> None:
    states, cache = torch.randn(1, 12, decoder.config.hidden_size), DynamicCache()
    spans = torch.tensor([[[2, 10]]])
    with torch.no_grad():
        decoder(None, None, torch.arange(12)[None], cache, inputs_embeds=states, video_spans=spans)
        decoder(None, None, torch.tensor([[12]]), cache, inputs_embeds=states[:, :1])


def _stages() -> StagedCompression:
    return pruning_stages([DecoderStage(2, lambda length: length // 2)])


@pytest.mark.parametrize("name", OF_ATTENTION)
def test_attention_that_is_called_with_another_name(name: str) -> None:
    decoder = _decoder()
    decoder.layers[1].self_attn.register_forward_pre_hook(_without(name), with_kwargs=True)
    with _stages().applied(decoder), pytest.raises(RuntimeError, match=rf"no {name}: .*transformers >= 5\.17"):
        _run(decoder)


def test_decode_pruning_needs_layers_that_name_the_mask() -> None:
    decoder = _decoder()
    decoder.layers[2].register_forward_pre_hook(_without("attention_mask"), with_kwargs=True)
    with DycokeDecodePruning(layer=2).applied(decoder), pytest.raises(RuntimeError, match="no attention_mask: "):
        _run(decoder)


@pytest.mark.parametrize("name", OF_LAYERS)
def test_layers_that_are_called_with_another_name(name: str) -> None:
    decoder = _decoder()
    for layer in decoder.layers[2:]:
        layer.register_forward_pre_hook(_without(name), with_kwargs=True)
    with _stages().applied(decoder), pytest.raises(RuntimeError, match=rf"no {name}: .*transformers >= 5\.17"):
        _run(decoder)


def test_positions_with_gaps_need_layers_that_name_them() -> None:
    decoder = _decoder()
    decoder.layers[0].register_forward_pre_hook(_without("position_ids"), with_kwargs=True)
    with KeptPositions().applied(decoder), pytest.raises(RuntimeError, match="no position_ids"):
        decoder(inputs_embeds=torch.randn(1, 4, decoder.config.hidden_size))


def test_positions_with_gaps_need_a_decoder_that_is_known() -> None:
    class Renamed(nn.Module):
        layers = (nn.Identity(),)

        def forward(self, inputs_embeds: Any, attention_mask: Any, places: Any, cache: Any) -> None: ...

    with pytest.raises(InputError, match="no position_ids"):
        KeptPositions().apply(Renamed())


def test_the_cache_under_both_names_is_refused(checkpoint: Path) -> None:
    model = load_pretrained_model(str(checkpoint), torch_dtype="float32")[1]
    with pytest.raises(InputError, match="one argument under two names"):
        model(prompt(3), cache=DynamicCache(), past_key_values=DynamicCache())


class _Renamed(SiglipAttention):
    """Attention of a tower whose release calls the states or the mask otherwise."""

    def forward(self, states: torch.Tensor, mask: torch.Tensor | None = None) -> Any:
        return super().forward(states, mask)


def _tower_attention(kind: type[SiglipAttention] = SiglipAttention) -> SiglipAttention:
    return kind(SiglipVisionConfig(hidden_size=16, num_attention_heads=2, intermediate_size=16)).eval()


def test_a_tower_whose_attention_names_otherwise_is_refused() -> None:
    with pytest.raises(InputError, match=r"and no hidden_states, attention_mask: .*transformers >= 5\.17"):
        ReceivedAttentionRecorder().apply(_tower_attention(_Renamed))


def test_a_tower_that_is_called_with_another_name() -> None:
    attention = _tower_attention()
    attention.register_forward_pre_hook(_without("hidden_states"), with_kwargs=True)
    recorder = ReceivedAttentionRecorder().apply(attention)
    with recorder.recording(), pytest.raises(RuntimeError, match=r"no hidden_states: .*transformers >= 5\.17"):
        attention(hidden_states=torch.randn(1, 4, 16))
