"""Loading checkpoints: what loads, and what a damaged or foreign folder is told."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from llava.errors import CheckpointError, InputError
from llava.model.builder import load_pretrained_model
from llava.model.checkpoint import rename_key
from llava.model.language_model.llava_qwen import LlavaQwenConfig


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def edit_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    config.update(changes)
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value != "DROP"}))


def shard(folder: Path) -> None:
    """Split the weights into three files with an index, as the 7B checkpoints are."""
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, index = sorted(state), {}
    for number in range(3):
        part = {name: state[name] for name in names[number::3]}
        file = f"model-0000{number + 1}-of-00003.safetensors"
        save_file(part, folder / file, metadata={"format": "pt"})
        index.update(dict.fromkeys(part, file))
    contents = {"metadata": {"total_size": 1}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(contents))


@pytest.mark.parametrize("model_type", ["llava", "llava_qwen"])
@pytest.mark.parametrize("sharded", [False, True])
def test_published_layouts_load_every_tensor(checkpoint, folder, model_type: str, sharded: bool) -> None:
    edit_config(folder, model_type=model_type)
    if sharded:
        shard(folder)
    tokenizer, model, processor, context = load_pretrained_model(folder, None, "x", torch_dtype="float32")
    want = load_file(checkpoint / "model.safetensors")
    got = model.state_dict()
    assert {rename_key(name) for name in want} == set(got)
    assert all(torch.equal(got[rename_key(name)], tensor) for name, tensor in want.items())
    assert context == 32768
    assert not model.training
    assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    assert processor.size["height"] == 384
    assert tokenizer.pad_token_id == 256


def test_buffers_are_those_of_a_model_built_without_loading(loaded) -> None:
    """Buffers are in no checkpoint; a loader that leaves them empty gives wrong rotary positions without an error."""
    model = loaded[1]
    fresh = type(model)(model.config)
    want = dict(fresh.named_buffers())
    assert want.keys() == dict(model.named_buffers()).keys()
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(buffer, want[name], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("dtype", "expected"), [("float16", torch.float16), ("bfloat16", torch.bfloat16), (None, torch.float32)]
)
def test_dtype(checkpoint, dtype, expected) -> None:
    if dtype is None and torch.cuda.is_available():
        expected = torch.float16
    assert load_pretrained_model(checkpoint, None, "x", torch_dtype=dtype)[1].dtype == expected


def test_flags_that_harnesses_read_exist_in_both_layouts(checkpoint, hf_checkpoint) -> None:
    for path in (checkpoint, hf_checkpoint):
        assert load_pretrained_model(path, None, "x")[1].config.mm_use_im_start_end is False


def test_overwrite_config_reaches_the_model(checkpoint) -> None:
    model = load_pretrained_model(checkpoint, None, "x", overwrite_config={"mm_spatial_pool_mode": "average"})[1]
    assert model.config.mm_spatial_pool_mode == "average"


def test_tied_embeddings_without_lm_head(folder) -> None:
    """The 0.5B checkpoint ties the head to the embeddings and does not store it."""
    state = load_file(folder / "model.safetensors")
    del state["lm_head.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    edit_config(folder, tie_word_embeddings=True)
    model = load_pretrained_model(folder, None, "x", torch_dtype="float32")[1]
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda state: state.pop("model.image_newline"), "1 tensors missing: model.image_newline"),
        (
            lambda state: state.update({"model.mystery.weight": torch.zeros(2)}),
            "1 tensors unexpected: model.mystery.weight",
        ),
        (lambda state: state.update({"model.norm.weight": torch.zeros(3)}), "model.norm.weight"),
    ],
)
def test_names_and_shapes_must_fit(folder, damage, message: str) -> None:
    state = load_file(folder / "model.safetensors")
    damage(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError) as error:
        load_pretrained_model(folder, None, "x", torch_dtype="float32")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_shard_truncated_file_and_missing_weights(folder) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    with pytest.raises(CheckpointError, match="cannot load the weights"):
        load_pretrained_model(folder, None, "x")
    weights.unlink()
    with pytest.raises(CheckpointError, match="cannot load the weights"):
        load_pretrained_model(folder, None, "x")


def test_incomplete_sharded_checkpoint(folder) -> None:
    shard(folder)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match="model-00002-of-00003"):
        load_pretrained_model(folder, None, "x")


def test_absent_and_empty_folders(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="there is no folder"):
        load_pretrained_model(tmp_path / "nowhere", None, "x")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_pretrained_model(tmp_path, None, "x")


def test_damaged_tokenizer(folder) -> None:
    (folder / "vocab.json").write_text("{")
    with pytest.raises(CheckpointError, match="no tokenizer"):
        load_pretrained_model(folder, None, "x")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_on_a_machine_without_it(checkpoint) -> None:
    with pytest.raises(InputError, match="'cuda:0' needs a CUDA device"):
        load_pretrained_model(checkpoint, None, "x", device_map="cuda:0")


def test_dtype_by_its_newer_name(checkpoint) -> None:
    assert load_pretrained_model(checkpoint, None, "x", dtype="bfloat16")[1].dtype == torch.bfloat16


def test_missing_tokenizer(folder) -> None:
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(CheckpointError, match="no tokenizer"):
        load_pretrained_model(folder, None, "x")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "'llama'"),
        ({"architectures": ["LlavaMistralForCausalLM"]}, "LlavaMistralForCausalLM"),
        ({"mm_vision_tower": "openai/clip-vit-large-patch14", "vision_config": "DROP"}, "clip-vit-large-patch14"),
        ({"mm_vision_select_layer": -5}, "mm_vision_select_layer = -5"),
        ({"mm_projector_type": "qformer"}, "mm_projector_type = 'qformer'"),
        ({"mm_resampler_type": "perceiver"}, "mm_resampler_type = 'perceiver'"),
        ({"mm_hidden_size": "DROP"}, "lacks mm_hidden_size"),
        ({"hidden_size": "wide"}, "wrong value"),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end = true"),
    ],
)
def test_other_architectures_are_refused(folder, changes: dict, message: str) -> None:
    edit_config(folder, **changes)
    with pytest.raises(CheckpointError) as error:
        load_pretrained_model(folder, None, "x")
    assert message in str(error.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"attn_implementation": "flash_attention_2"},
        {"attn_implementation": "sdap"},
        {"device_map": "foo"},
        {"torch_dtype": "int8"},
        {"load_8bit": True},
        {"model_base": "lmsys/vicuna-7b"},
    ],
)
def test_unsupported_arguments(checkpoint, arguments: dict) -> None:
    with pytest.raises(InputError):
        load_pretrained_model(**{"model_path": checkpoint, "model_base": None, "model_name": "x", **arguments})


def test_auto_config_knows_llava_qwen(checkpoint) -> None:
    """lmms-eval asks AutoConfig before it loads anything."""
    assert isinstance(AutoConfig.from_pretrained(checkpoint), LlavaQwenConfig)


@pytest.mark.parametrize(
    ("published", "ours"),
    [
        ("model.layers.27.self_attn.q_proj.bias", "model.layers.27.self_attn.q_proj.bias"),
        (
            "model.vision_tower.vision_tower.vision_model.encoder.layers.25.mlp.fc1.weight",
            "model.vision_tower.vision_tower.encoder.layers.25.mlp.fc1.weight",
        ),
        ("language_model.model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        ("language_model.lm_head.weight", "lm_head.weight"),
        ("model.language_model.norm.weight", "model.norm.weight"),
        (
            "vision_tower.vision_model.embeddings.patch_embedding.bias",
            "model.vision_tower.vision_tower.embeddings.patch_embedding.bias",
        ),
        (
            "model.vision_tower.embeddings.patch_embedding.bias",
            "model.vision_tower.vision_tower.embeddings.patch_embedding.bias",
        ),
        ("multi_modal_projector.linear_2.weight", "model.mm_projector.2.weight"),
        ("model.multi_modal_projector.linear_1.bias", "model.mm_projector.0.bias"),
        ("image_newline", "model.image_newline"),
        ("model.image_newline", "model.image_newline"),
    ],
)
def test_rename_table(published: str, ours: str) -> None:
    assert rename_key(published) == ours
