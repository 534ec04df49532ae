"""Damaged checkpoint folders: each is told in one line what is wrong with it, and nothing of it reaches a score."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from eval.instruments.fingerprints import checkpoint_identity
from llava.errors import CheckpointError
from llava.model.builder import load_pretrained_model

TINY = Path("checkpoints/tiny")  # smaller than any with the true geometry


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(TINY, tmp_path / "copy"))


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        load_pretrained_model(folder, torch_dtype="float32")
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 900
    return message


def edit(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config.update(changes)
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_act": "bogus"}, "hidden_act = 'bogus'"),
        ({"hidden_act": ["silu"]}, "hidden_act = ['silu']"),
        ({"vision_config": 3}, "vision_config = 3"),
        ({"vision_config": {"hidden_size": 128}}, "vision_config lacks"),
        ({"architectures": [3]}, "architectures = [3]"),
        ({"architectures": "Qwen"}, "architectures = 'Qwen'"),
        ({"num_attention_heads": 0}, "num_attention_heads = 0"),
        ({"num_attention_heads": 7}, "hidden_size = 128 cannot be divided into 7"),
        ({"num_key_value_heads": 3}, "is no multiple of 3"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers = 1000000000"),
        ({"num_hidden_layers": 8.5}, "num_hidden_layers = 8.5"),
        ({"hidden_size": True}, "hidden_size = True"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps = nan"),
        ({"rms_norm_eps": 0}, "rms_norm_eps = 0"),
        ({"rms_norm_eps": "1e-6"}, "rms_norm_eps = '1e-6'"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": float("inf")}}, "rope_theta = inf"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 0.0}}, "rope_parameters.rope_theta = 0.0"),
        ({"rope_parameters": {"rope_type": "spiral", "rope_theta": 1e6}}, "config.json"),
        ({"mm_projector_type": 3}, "mm_projector_type = 3"),
        ({"mm_projector_type": None}, "lacks mm_projector_type"),
        ({"mm_spatial_pool_stride": 0}, "mm_spatial_pool_stride = 0"),
        ({"mm_vision_select_layer": "last"}, "mm_vision_select_layer = 'last'"),
        ({"tokenizer_model_max_length": "long"}, "tokenizer_model_max_length = 'long'"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings = 'yes'"),
        ({"model_type": 5}, "model_type 5"),
    ],
)
def test_values_of_the_configuration(folder: Path, changes: dict[str, Any], words: str) -> None:
    edit(folder, **changes)
    assert words in refusal(folder)


@pytest.mark.parametrize("text", ["null", "", "3", "[]", "{", "[" * 100_000, '{"a":' * 90_000, "{}", '"x"', "\0"])
def test_configurations_that_are_no_object(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    assert "config.json" in refusal(folder)
    if text != "{}":  # which has an identity, and no model
        with pytest.raises(CheckpointError):
            checkpoint_identity(folder)


def test_deep_values(folder: Path) -> None:
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    edit(folder, extra=deep)
    assert "nested deeper" in refusal(folder)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (3, "no index of safetensors"),
        (None, "no index of safetensors"),
        ("../elsewhere.safetensors", "of its own folder"),
        ("/etc/passwd", "of its own folder"),
        ("sub/model.safetensors", "of its own folder"),
        ("model.bin", "of its own folder"),
        ("..", "of its own folder"),
        ("", "of its own folder"),
        ("absent.safetensors", "lacks 1 of the 1 files"),
    ],
)
def test_indices(folder: Path, name: Any, words: str) -> None:
    """One that names files elsewhere would be read, and its digest would not cover them."""
    names = load_file(folder / "model.safetensors")
    shutil.move(folder / "model.safetensors", folder.parent / "elsewhere.safetensors")
    (folder / "sub").mkdir()
    os.link(folder.parent / "elsewhere.safetensors", folder / "sub" / "model.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, name)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert words in refusal(folder)


@pytest.mark.parametrize("text", ["null", "[]", '{"weight_map": []}', '{"weight_map": {}}', "{", "[" * 99_999])
def test_indices_that_are_none(folder: Path, text: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(text)
    assert "model.safetensors.index.json" in refusal(folder)


def test_what_the_digest_covers_is_all_that_is_read(folder: Path) -> None:
    """A split checkpoint: a change in any of its files changes its identity."""
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    first = dict(list(state.items())[: len(state) // 2])
    save_file(first, folder / "a.safetensors")
    save_file({name: tensor for name, tensor in state.items() if name not in first}, folder / "b.safetensors")
    index = {
        "metadata": {},
        "weight_map": {name: "a.safetensors" if name in first else "b.safetensors" for name in state},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    load_pretrained_model(folder)
    before = checkpoint_identity(folder)["weights_sha256"]
    save_file({name: tensor * 2 for name, tensor in first.items()}, folder / "a.safetensors")
    assert checkpoint_identity(folder)["weights_sha256"] != before


def test_pickles_are_not_read(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    assert "pytorch_model.bin, which may run code" in refusal(folder)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n")
    assert "pytorch_model.bin, which may run code" in refusal(folder)


def test_adapters_are_not_followed(folder: Path) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/elsewhere"}))
    assert "holds an adapter" in refusal(folder)


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "{",  # transformers goes on without a word, and generation ends at other tokens
        "[]",
        "[" * 99_999,
        '{"eos_token_id": "x"}',
        '{"eos_token_id": [487, 100000]}',
        '{"pad_token_id": 1.5}',
        '{"temperature": "hot"}',
        '{"temperature": NaN}',
        '{"max_length": -1}',
    ],
)
def test_generation_settings(folder: Path, text: str) -> None:
    (folder / "generation_config.json").write_text(text)
    assert "generation_config.json" in refusal(folder)


def test_generation_settings_that_are_none_or_sound(folder: Path) -> None:
    for text in ("{}", '{"eos_token_id": [487, 486], "temperature": 0.7, "top_k": null}'):
        (folder / "generation_config.json").write_text(text)
        load_pretrained_model(folder)
    (folder / "generation_config.json").unlink()
    load_pretrained_model(folder)
