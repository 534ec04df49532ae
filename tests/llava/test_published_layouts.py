"""Published checkpoints are recognised by their tensor names and fit the model exactly; nothing is downloaded."""

import json
import os
from pathlib import Path

import pytest
import torch

from llava.errors import CheckpointError
from llava.model.checkpoint import read_config, rename_key
from llava.model.language_model.llava_qwen import LlavaQwenForCausalLM
from llava.model.stored import check_stored, recognise_layout, stored_shapes
from llava.model.visual_inputs import VisualEncoder
from tests.llava.published_layouts import CHECKPOINTS, PREFIXES, head_shapes, shapes, write_folder

SMALL = "lmms-lab/llava-onevision-qwen2-0.5b-ov"


def spellings(name: str) -> list[str]:
    return [spelling for spelling in PREFIXES if spelling.startswith(CHECKPOINTS[name][1])]


def on_meta(config) -> LlavaQwenForCausalLM:
    with torch.device("meta"):
        return LlavaQwenForCausalLM(config)


@pytest.mark.parametrize(("name", "spelling"), [(name, each) for name in CHECKPOINTS for each in spellings(name)])
def test_published_names_and_shapes_are_exactly_those_of_the_model(tmp_path, name: str, spelling: str) -> None:
    sizes, layout, _ = CHECKPOINTS[name]
    published = shapes(sizes, spelling)
    folder = write_folder(tmp_path, name, published)
    assert stored_shapes(folder) == published
    assert recognise_layout(published) == layout
    config = read_config(str(folder))
    model = on_meta(config)
    want = {key: tuple(tensor.shape) for key, tensor in model.named_parameters(remove_duplicate=False)}
    got = {rename_key(key): shape for key, shape in published.items()}
    assert len(got) == len(published)
    assert config.tie_word_embeddings is sizes.tied
    if sizes.tied:
        assert want.pop("lm_head.weight") == want["model.embed_tokens.weight"]
    assert got == want
    check_stored(str(folder), config, LlavaQwenForCausalLM)
    used = sum(os.stat(file).st_blocks for file in folder.iterdir()) * 512
    assert used < 20e6, "the files hold no weights"


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        (SMALL, 894),
        ("lmms-lab/llava-onevision-qwen2-7b-ov", 8030),
        ("lmms-lab/llava-onevision-qwen2-72b-ov-sft", 73180),
    ],
)
def test_the_sizes_are_those_of_the_model_cards(name: str, millions: int) -> None:
    """Parameters in millions, as the cards state them: 0.9B, 8B and 73B."""
    total = 0
    for shape in shapes(CHECKPOINTS[name][0], "lmms-lab").values():
        total += torch.Size(shape).numel()
    assert round(total / 1e6) == pytest.approx(millions, rel=2e-3)


def test_llava_video_is_told_by_its_configuration(tmp_path) -> None:
    name = "lmms-lab/LLaVA-Video-7B-Qwen2"
    config = read_config(str(write_folder(tmp_path, name, {"model.mm_projector.0.weight": (1, 1)}, files=1)))
    encoder = VisualEncoder(on_meta(config).model, config, None)
    assert (encoder.newline_mode, encoder.tokens_per_frame) == ("grid", 169)
    other = read_config(str(write_folder(tmp_path / "ov", "lmms-lab/llava-onevision-qwen2-7b-ov", {}, files=1)))
    encoder = VisualEncoder(on_meta(other).model, other, None)
    assert (encoder.newline_mode, encoder.tokens_per_frame) == ("one_token", 196)


@pytest.mark.parametrize("spelling", PREFIXES)
def test_the_cut_layer_and_the_head_of_a_whole_tower_are_left_out(tmp_path, spelling: str) -> None:
    name = SMALL if spelling == "lmms-lab" else "llava-hf/llava-onevision-qwen2-0.5b-ov-hf"
    whole = shapes(CHECKPOINTS[name][0], spelling, tower_layers=27) | head_shapes(spelling)
    folder = write_folder(tmp_path, name, whole)
    raw = json.loads((folder / "config.json").read_text())
    if spelling != "lmms-lab":  # a file that says so: all 27 layers, of which the last but one is read
        raw["vision_config"]["num_hidden_layers"], raw["vision_feature_layer"] = 27, -2
        (folder / "config.json").write_text(json.dumps(raw))
    config = read_config(str(folder))
    check_stored(str(folder), config, LlavaQwenForCausalLM)
    tower = PREFIXES[spelling][2]
    beyond = whole | {f"{tower}encoder.layers.27.layer_norm1.weight": (1152,)}
    with pytest.raises(CheckpointError, match=r"1 tensors unexpected: .*layers\.27"):
        check_stored(str(write_folder(tmp_path / "more", name, beyond)), config, LlavaQwenForCausalLM)


def test_a_tied_checkpoint_may_store_its_head_all_the_same(tmp_path) -> None:
    sizes = CHECKPOINTS[SMALL][0]
    both = shapes(sizes, "lmms-lab") | {"lm_head.weight": (sizes.vocabulary, sizes.width)}
    folder = write_folder(tmp_path, SMALL, both)
    check_stored(str(folder), read_config(str(folder)), LlavaQwenForCausalLM)


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        check_stored(str(folder), read_config(str(folder)), LlavaQwenForCausalLM)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found.pop("model.layers.3.mlp.up_proj.weight"), "1 tensors missing: model.layers.3.mlp.up_proj"),
        (lambda found: found.pop("model.image_newline"), "1 tensors missing: model.image_newline"),
        (lambda found: found.update({"model.layers.24.mlp.up_proj.weight": (4864, 896)}), "1 tensors unexpected"),
        (lambda found: found.update({"model.vision_resampler.weight": (3,)}), "unexpected: model.vision_resampler"),
        (
            lambda found: found.update({"model.embed_tokens.weight": (152064, 896)}),
            "1 tensors mismatched: model.embed_tokens.weight (152064, 896) instead of (151936, 896)",
        ),
    ],
)
def test_what_does_not_fit_is_named_before_any_weight_is_read(tmp_path, change, message: str) -> None:
    found = shapes(CHECKPOINTS[SMALL][0], "lmms-lab")
    change(found)
    assert message in refusal(write_folder(tmp_path, SMALL, found))


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["model.embed_tokens.weight", "lm_head.weight"],
        ["model.mm_projector.0.weight", "multi_modal_projector.linear_1.weight"],
        ["model.vision_resampler.query", "transformer.wte.weight"],
    ],
)
def test_unknown_layouts(names: list[str]) -> None:
    with pytest.raises(CheckpointError, match=f"the {len(names)} tensors .* are of no published layout") as error:
        recognise_layout(names)
    assert "\n" not in str(error.value)


def test_unknown_layout_missing_file_and_damaged_index(tmp_path) -> None:
    found = shapes(CHECKPOINTS[SMALL][0], "lmms-lab")
    foreign = {key.replace("mm_projector", "connector"): shape for key, shape in found.items()}
    assert "no published layout" in refusal(write_folder(tmp_path / "a", SMALL, foreign))
    folder = write_folder(tmp_path / "b", SMALL, found)
    file = folder / "model-00003-of-00004.safetensors"
    whole = file.read_bytes()[:2000]
    file.write_bytes(whole)
    assert "model-00003-of-00004.safetensors" in refusal(folder)
    file.unlink()
    message = refusal(folder)
    assert "lacks 1 of the 4 files of its index: model-00003-of-00004.safetensors" in message
    index = folder / "model.safetensors.index.json"
    for text in ("{", "[]", "{}", '{"weight_map": []}'):
        index.write_text(text)
        assert "is no index of safetensors files" in refusal(folder)


def test_an_index_that_names_more_than_its_files_hold(tmp_path) -> None:
    folder = write_folder(tmp_path, SMALL, shapes(CHECKPOINTS[SMALL][0], "lmms-lab"))
    index = folder / "model.safetensors.index.json"
    contents = json.loads(index.read_text())
    contents["weight_map"]["model.ghost"] = "model-00001-of-00004.safetensors"
    index.write_text(json.dumps(contents))
    assert "names 1 tensors that no file holds: model.ghost" in refusal(folder)


def test_only_a_hub_id_is_left_to_transformers(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="cannot load the weights"):
        stored_shapes(tmp_path)
    assert stored_shapes("lmms-lab/llava-onevision-qwen2-7b-ov") is None
