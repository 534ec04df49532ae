"""What a prefill must not do: logits of all positions, a mask where none is needed, keys repeated for grouped heads."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from holitom import available_methods
from holitom.settings import from_mapping
from tests.holitom.test_every_method import SMALL
from tests.tiny_models import prompt, video

STEPS = 3
OPTIONS = {"max_new_tokens": STEPS, "do_sample": False, "eos_token_id": None, "pad_token_id": 256}
CLIP = {"images": [video(5, cuts=(2,))], "modalities": ["video"]}


class AttentionCalls(TorchFunctionMode):
    """Arguments of every scaled dot product attention in a ``with`` block."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Tensor, Tensor, dict[str, Any]]] = []

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            self.calls.append((args[0], args[1], kwargs or {}))
        return func(*args, **(kwargs or {}))


def prefill_calls(model, **inputs: Any) -> list[tuple[Tensor, Tensor, dict[str, Any]]]:
    """Attention of the decoder in the prefill of one answer, one entry per layer."""
    ids = inputs.pop("ids")
    with AttentionCalls() as seen:
        model.generate(ids, **{**OPTIONS, "max_new_tokens": 1}, **inputs)
    tower = model.get_vision_tower().config
    patches = (tower.image_size // tower.patch_size) ** 2
    return [call for call in seen.calls if call[0].shape[2] != patches]


@pytest.mark.parametrize("decoding", ["eager", "static"])
@pytest.mark.parametrize("rows", [1, 2])
def test_only_the_last_position_gets_logits(model, decoding: str, rows: int) -> None:
    counted: list[int] = []
    handle = model.lm_head.register_forward_pre_hook(lambda head, args: counted.append(args[0].shape[:-1].numel()))
    ids, clips = prompt(5, "video", 9).expand(rows, -1), CLIP["images"] * rows
    model.generate(ids, decoding=decoding, images=clips, modalities="video", **OPTIONS)
    handle.remove()
    assert counted == [rows] * STEPS


@pytest.mark.parametrize("name", [None, *sorted(available_methods())])
def test_attention_runs_without_mask_and_without_repeated_keys(model, name: str | None) -> None:
    """One prompt without padding: causal by a flag, and as many key heads as the cache holds, in every layer."""
    if name is None:
        calls = prefill_calls(model, ids=prompt(5, "video", 9), **CLIP)
    else:
        with from_mapping(available_methods()[name], SMALL.get(name, {})).build().applied(model):
            calls = prefill_calls(model, ids=prompt(5, "video", 9), **CLIP)
    assert len(calls) == model.config.num_hidden_layers
    kv_heads = model.config.num_key_value_heads
    assert kv_heads < model.config.num_attention_heads
    for query, key, arguments in calls:
        assert arguments.get("attn_mask") is None
        assert arguments["is_causal"] is True
        assert arguments["enable_gqa"] is True
        assert key.shape[1] == kv_heads
        assert query.shape[2] == key.shape[2]


def test_the_tower_runs_without_mask(model) -> None:
    with AttentionCalls() as seen, torch.no_grad():
        model.get_vision_tower()(video(2))
    assert len(seen.calls) == len(model.get_vision_tower().vision_tower.encoder.layers)
    assert all(call.get("attn_mask") is None and not call.get("is_causal") for *_, call in seen.calls)


@pytest.mark.parametrize("decoding", ["eager", "static"])
def test_decode_steps_repeat_no_keys(model, decoding: str) -> None:
    with AttentionCalls() as seen:
        model.generate(prompt(30), decoding=decoding, **OPTIONS)
    steps = [(query, key) for query, key, _ in seen.calls[model.config.num_hidden_layers :]]
    assert len(steps) == model.config.num_hidden_layers * (STEPS - 1)
    for _, key in steps:
        assert key.shape[1] == model.config.num_key_value_heads
