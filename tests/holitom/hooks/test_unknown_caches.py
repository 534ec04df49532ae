"""A decode step needs a prefill of ours, and a prefill its stages: else nothing is compressed, and nobody knows."""

from pathlib import Path

import pytest
import torch
from transformers import DynamicCache, Qwen2Model

from eval.instruments.models.random_checkpoint import tiny_config
from holitom import holitom
from holitom.hooks.decoder.pruning import pruning_stages
from holitom.hooks.decoder.rules import DecoderStage
from holitom.hooks.decoder.staged import StagedCompression
from llava.model.language_model.llava_qwen import LlavaQwenConfig
from tests.tiny_models import hook_count, hugging_face_model

TEXT = torch.zeros(1, 0, 2, dtype=torch.long)


def _decoder() -> Qwen2Model:
    torch.manual_seed(0)
    return Qwen2Model(LlavaQwenConfig(**tiny_config())).eval()


def _stages() -> StagedCompression:
    return pruning_stages([DecoderStage(2, lambda length: length // 2), DecoderStage(4, lambda length: length // 2)])


@torch.no_grad()
def _call(
    decoder: Qwen2Model, start: int, count: int, cache: DynamicCache | None, spans: torch.Tensor | None
) -> object:
    states = torch.randn(1, count, decoder.config.hidden_size, generator=torch.Generator().manual_seed(start))
    extra = {} if spans is None else {"video_spans": spans}
    places = torch.arange(start, start + count)[None]
    return decoder(None, None, places, cache, inputs_embeds=states, use_cache=True, **extra)


def test_a_cache_that_was_filled_before_the_stage_came() -> None:
    decoder, cache = _decoder(), DynamicCache()
    _call(decoder, 0, 12, cache, None)
    with _stages().applied(decoder), pytest.raises(RuntimeError, match="12 tokens of a prompt that was not compressed"):
        _call(decoder, 12, 1, cache, None)


@pytest.mark.parametrize("given", [True, False])
def test_a_prompt_with_nothing_to_compress_goes_on(given: bool) -> None:
    """Whether the caller brings the cache or the decoder makes it."""
    decoder, cache = _decoder(), DynamicCache() if given else None
    with _stages().applied(decoder):
        out = _call(decoder, 0, 12, cache, TEXT)
        filled = next(each for each in out.to_tuple() if isinstance(each, DynamicCache))  # type: ignore[attr-defined]
        _call(decoder, 12, 1, filled, None)
    assert filled.get_seq_length() == 13


def test_a_prefill_whose_stages_did_not_act() -> None:
    """A decoder that leaves layers out, as one does whose layers are called in another way."""
    decoder = _decoder()
    with _stages().applied(decoder):
        decoder.config.num_hidden_layers = 3
        with pytest.raises(RuntimeError, match=r"1 of 2 stages acted .*transformers >= 5\.17"):
            _call(decoder, 0, 12, DynamicCache(), torch.tensor([[[2, 10]]]))
        decoder.config.num_hidden_layers = 6
        _call(decoder, 0, 12, DynamicCache(), torch.tensor([[[2, 10]]]))
    assert hook_count(decoder) == 0


@pytest.mark.parametrize("inner", [True, False])
def test_transformers_own_class(checkpoint: Path, inner: bool) -> None:
    model = hugging_face_model(checkpoint)
    ids, cache = torch.arange(3, 12)[None], DynamicCache()
    with torch.no_grad():
        model(input_ids=ids, past_key_values=cache)
        holitom(model, inner=inner)
        with pytest.raises(RuntimeError, match="9 tokens of a prompt that was not compressed here"):
            model(input_ids=ids[:, :1], past_key_values=cache)
        fresh = DynamicCache()
        model(input_ids=ids, past_key_values=fresh)
        model(input_ids=ids[:, :1], past_key_values=fresh)
    assert fresh.get_seq_length() == 10
