"""vLLM's folder: Qwen2's configuration beside links, and the LLM's tensors by their names in either layout."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, Qwen2ForCausalLM

from eval.instruments.models.cut_checkpoint import cut_config
from holitom.serving.__main__ import main
from holitom.serving.decoder_folder import decoder_folder, default_cache, qwen2_config
from holitom.serving.plugin import ARCHITECTURE
from holitom.serving.vllm_decoder import llm_weights
from llava.errors import CheckpointError, InputError
from llava.model.builder import load_pretrained_model, load_without_decoder
from tests.holitom.serving.serving_cases import frames


def test_the_folder_links_and_copies_nothing(served_checkpoint: Path, tmp_path: Path) -> None:
    folder = decoder_folder(served_checkpoint, tmp_path)
    assert folder.name.startswith(f"{served_checkpoint.name}-")
    own = [path for path in folder.iterdir() if not path.is_symlink()]
    assert [path.name for path in own] == ["config.json"]
    assert own[0].stat().st_size < 10_000
    weights = folder / "model.safetensors"
    assert weights.resolve() == (served_checkpoint / "model.safetensors").resolve()
    before = folder.stat().st_mtime_ns
    assert decoder_folder(served_checkpoint, tmp_path) == folder
    assert folder.stat().st_mtime_ns == before
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


@pytest.mark.parametrize("layout", ["checkpoint", "hf_checkpoint"])
def test_qwen2_s_own_class_answers_from_it(request: pytest.FixtureRequest, tmp_path: Path, layout: str) -> None:
    """transformers' plain Qwen2, given configuration and tensors as vLLM's is, computes what our decoder computes."""
    source: Path = request.getfixturevalue(layout)
    folder = decoder_folder(source, tmp_path)
    config = AutoConfig.from_pretrained(folder)
    assert config.architectures == [ARCHITECTURE]
    assert config.model_type == "qwen2"
    plain = Qwen2ForCausalLM(config).eval()
    stored = {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}
    weights = dict(llm_weights(stored.items()))
    assert 0 < len(weights) < len(stored)
    plain.load_state_dict(weights, strict=True)
    model = load_pretrained_model(source, None, "llava_qwen", torch_dtype="float32")[1]
    embeds = torch.randn(1, 9, config.hidden_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(plain(inputs_embeds=embeds).logits, model(inputs_embeds=embeds).logits)


def test_tied_embeddings_stay_tied(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(cut_config("llava-onevision-0.5b", 2, 2)))
    config = qwen2_config(tmp_path)
    assert config["tie_word_embeddings"] is True
    assert (config["hidden_size"], config["num_attention_heads"], config["num_key_value_heads"]) == (896, 14, 2)


def test_other_checkpoints_are_refused(tmp_path: Path, served_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no folder"):
        decoder_folder(tmp_path / "absent", tmp_path)
    (tmp_path / "config.json").write_text((served_checkpoint / "config.json").read_text())
    with pytest.raises(CheckpointError, match=r"no \*\.safetensors"):
        decoder_folder(tmp_path, tmp_path / "cache")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be a folder"):
        decoder_folder(served_checkpoint, tmp_path / "file" / "below")


def test_the_command_prints_the_folder(
    served_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["serving", str(served_checkpoint), "--cache", str(tmp_path)])
    main()
    assert Path(capsys.readouterr().out.strip()) == decoder_folder(served_checkpoint, tmp_path)


def test_the_cache_is_where_caches_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/there")
    assert default_cache() == Path("/there/holitom/decoders")


def test_without_the_decoder_the_rest_is_the_same(served_checkpoint: Path, ours: tuple[Any, ...]) -> None:
    _, model = load_without_decoder(served_checkpoint, torch_dtype="float32")
    whole = ours[1].state_dict()
    mine = model.state_dict()
    left_out = {name for name in whole if name.startswith(("model.layers.", "lm_head."))}
    assert set(mine) == set(whole) - left_out
    assert all(torch.equal(mine[name], whole[name]) for name in mine)
    pixels = model.get_vision_tower().image_processor.preprocess(frames(2, 1), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        assert torch.equal(model.get_vision_tower()(pixels), ours[1].get_vision_tower()(pixels))


def test_a_damaged_decoder_is_told_without_loading_it(served_checkpoint: Path, tmp_path: Path) -> None:
    for path in served_checkpoint.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"num_hidden_layers": 3', '"num_hidden_layers": 4', 1))
    with pytest.raises(CheckpointError, match=r"missing.*model\.layers\.3\."):
        load_without_decoder(tmp_path, torch_dtype="float32")
