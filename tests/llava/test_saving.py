"""A loaded model that is saved can be loaded again, from any layout; it is written in the layout of lmms-lab."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from llava.model.builder import load_pretrained_model
from llava.model.stored import recognise_layout, stored_shapes
from tests.tiny_models import hugging_face_model


def saved(path: Path, folder: Path, **options: Any) -> tuple[Any, Any]:
    """A model, and what is loaded of its saved copy."""
    tokenizer, model, _, _ = load_pretrained_model(path, torch_dtype="float32")
    model.save_pretrained(folder, **options)
    tokenizer.save_pretrained(folder)
    return model, load_pretrained_model(folder, torch_dtype="float32")[1]


def newer_names(checkpoint: Path, hf_checkpoint: Path, folder: Path) -> Path:
    """The Hugging Face layout under the names of the class in memory, as newer files have them."""
    shutil.copytree(hf_checkpoint, folder)
    state = {name: tensor.contiguous() for name, tensor in hugging_face_model(checkpoint).state_dict().items()}
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    assert "model.language_model.norm.weight" in state
    return folder


@pytest.mark.parametrize("layout", ["lmms-lab", "hugging-face", "hugging-face-new"])
@pytest.mark.parametrize("options", [{}, {"max_shard_size": "300KB"}], ids=["one file", "several"])
def test_a_round_trip(layout: str, options: dict, checkpoint: Path, hf_checkpoint: Path, tmp_path: Path) -> None:
    path = checkpoint if layout == "lmms-lab" else hf_checkpoint
    path = newer_names(checkpoint, hf_checkpoint, tmp_path / "new") if layout.endswith("new") else path
    folder = tmp_path / "saved"
    model, again = saved(path, folder, **options)
    theirs = again.state_dict()
    assert model.state_dict().keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in model.state_dict().items())
    names = stored_shapes(folder)
    assert recognise_layout(names) == "lmms-lab"
    with safe_open(checkpoint / "model.safetensors", "pt") as file:
        assert set(names) == set(file.keys())
    assert len(list(folder.glob("*.safetensors"))) == (1 if not options else len(list(folder.glob("*-of-*"))))
    twice = saved(folder, tmp_path / "twice")[1].state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in twice.items())
    for key in ("mm_vision_select_layer", "mm_newline_position", "image_grid_pinpoints", "vision_config"):
        assert getattr(model.config, key) == getattr(again.config, key), key
