"""Where weights may lie, and what is told to whoever asks for the impossible."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from llava.errors import InputError
from llava.model import placement
from llava.model.builder import load_pretrained_model
from llava.model.placement import compute_device, tensor_parallel_arguments, whole_parameter, zero3

HEADS = SimpleNamespace(num_attention_heads=4, num_key_value_heads=2)
SETTINGS = json.loads(Path("configs/launch/zero3.json").read_text())


@pytest.fixture
def under_zero3(monkeypatch):
    """As if DeepSpeed's configuration were active, without the package."""
    monkeypatch.setattr(placement, "is_deepspeed_zero3_enabled", lambda: True)


def test_tensor_parallelism_needs_several_processes(checkpoint, monkeypatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(InputError, match=r"tp_plan = 'auto' with 1 process .* torchrun --nproc_per_node 2"):
        load_pretrained_model(checkpoint, tp_plan="auto")


def test_tensor_parallelism_divides_heads_and_takes_no_device_map(monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    arguments = tensor_parallel_arguments("auto", "auto", HEADS)
    assert arguments["device_map"] is None
    assert arguments["distributed_config"].tp_plan == "auto"
    assert tensor_parallel_arguments("auto", None, HEADS)["device_map"] is None
    for device_map in ("cpu", {"": "cpu"}):
        with pytest.raises(InputError, match="cannot be joined with a device_map"):
            tensor_parallel_arguments("auto", device_map, HEADS)
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(InputError, match="num_key_value_heads = 2 cannot be divided over 4 processes"):
        tensor_parallel_arguments("auto", None, HEADS)
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(InputError, match="num_attention_heads = 4 cannot be divided over 3"):
        tensor_parallel_arguments("auto", None, HEADS)


def test_under_zero3_there_is_no_device_map(under_zero3, monkeypatch) -> None:
    assert placement.resolve_device_map("auto") is None
    assert placement.resolve_device_map(None) is None
    for device_map in ("cpu", "cuda:0", {"": "cpu"}):
        with pytest.raises(InputError, match="not possible under ZeRO-3"):
            placement.resolve_device_map(device_map)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="cannot be joined"):
        tensor_parallel_arguments("auto", None, HEADS)


def test_zero3_without_deepspeed_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr(placement, "is_deepspeed_available", lambda: False)
    with pytest.raises(InputError, match=r"pip install 'holitom\[deepspeed\]'"), zero3(SETTINGS):
        raise AssertionError("the block was entered")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no readable JSON file"),
        ("{", "no readable JSON file"),
        ("[]", "holds no settings"),
        ("{}", "zero_optimization.stage = None"),
        ('{"zero_optimization": {"stage": 2}}', "zero_optimization.stage = 2 does not shard"),
    ],
)
def test_wrong_zero3_settings(tmp_path, monkeypatch, text: str | None, message: str) -> None:
    monkeypatch.setattr(placement, "is_deepspeed_available", lambda: True)
    path = tmp_path / "zero3.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message), zero3(path):
        raise AssertionError("the block was entered")


def test_zero3_is_active_inside_the_block_alone(monkeypatch) -> None:
    """transformers forgets the configuration with the last reference to it."""
    alive = []

    class Configuration:
        def __init__(self, settings: dict) -> None:
            assert settings == SETTINGS
            alive.append(True)

        def __del__(self) -> None:
            alive.pop()

    monkeypatch.setattr(placement, "is_deepspeed_available", lambda: True)
    monkeypatch.setattr(placement, "HfDeepSpeedConfig", Configuration)
    with zero3("configs/launch/zero3.json") as settings:
        assert settings == SETTINGS
        assert alive == [True]
    assert alive == []


def test_offloaded_modules_compute_where_their_hook_says() -> None:
    module = nn.Linear(2, 2)
    assert compute_device(module) == torch.device("cpu")
    module.to("meta")
    module._hf_hook = SimpleNamespace(execution_device=0 if torch.cuda.is_available() else "cpu")
    assert compute_device(module).type != "meta"
    module._hf_hook = SimpleNamespace(hooks=(SimpleNamespace(), SimpleNamespace(execution_device="cpu")))
    assert compute_device(module) == torch.device("cpu")


def test_a_resident_parameter_is_itself_and_may_be_trained() -> None:
    module = nn.Linear(2, 2)
    assert whole_parameter(module, "bias") is module.bias
