"""SigLIP's pooling head: equal to transformers' tower, in FastVID on the model, and wrong files."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import SiglipVisionConfig, SiglipVisionModel

from holitom.methods.fastvid import FastVidConfig
from holitom.methods.fastvid.pooling_head import PoolingHead
from holitom.tokens import TokenKind
from llava.errors import CheckpointError
from tests.references import fastvid as reference
from tests.tiny_models import prompt, video

WIDTH = 64  # of the tiny tower


def head_tensors(width: int = WIDTH, heads: int = 4) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """transformers' SigLIP with its head, and the tensors of norm and head under their names."""
    torch.manual_seed(5)
    tower = SiglipVisionModel(
        SiglipVisionConfig(
            hidden_size=width, intermediate_size=2 * width, num_attention_heads=heads, num_hidden_layers=1
        )
    ).eval()
    for parameter in tower.parameters():
        nn.init.normal_(parameter, std=0.3)
    parts = ("post_layernorm.", "head.")
    return tower, {name: tensor for name, tensor in tower.state_dict().items() if name.startswith(parts)}


@pytest.fixture
def head_file(tmp_path):
    """A file as a whole SigLIP checkpoint has it: with a prefix, and with tensors that are not needed."""
    tensors = {f"vision_model.{name}": tensor.contiguous() for name, tensor in head_tensors()[1].items()}
    tensors["text_model.head.weight"] = torch.zeros(2, 2)
    save_file(tensors, tmp_path / "siglip.safetensors")
    return tmp_path / "siglip.safetensors"


def test_the_head_equals_the_tower_of_transformers(head_file) -> None:
    tower, _ = head_tensors()
    hidden = torch.randn(20, 9, WIDTH, generator=torch.Generator().manual_seed(1))
    pooled, attention = PoolingHead(head_file, 4)(hidden)
    with torch.no_grad():
        want = tower.head(tower.post_layernorm(hidden))
    torch.testing.assert_close(pooled, want)
    # The attention of the probe, head by head from the packed projection.
    states = nn.functional.layer_norm(
        hidden, (WIDTH,), tower.post_layernorm.weight, tower.post_layernorm.bias, tower.config.layer_norm_eps
    )
    weight, bias = tower.head.attention.in_proj_weight, tower.head.attention.in_proj_bias
    query = (tower.head.probe[0] @ weight[:WIDTH].T + bias[:WIDTH]).view(4, 16)
    key = (states @ weight[WIDTH : 2 * WIDTH].T + bias[WIDTH : 2 * WIDTH]).view(20, 9, 4, 16)
    by_head = (torch.einsum("hc,fphc->fhp", query, key) / 4).softmax(-1)
    torch.testing.assert_close(attention, by_head.mean(1).detach())


def test_with_the_head_the_result_follows_it(model, head_file) -> None:
    config = FastVidConfig(retain_ratio=0.1, min_segments=2, head_weights=str(head_file), head_heads=4)
    frames = video(5, cuts=(2,))
    results = {}
    for name, settings in {"head": config, "fallback": FastVidConfig(0.1, 2)}.items():
        with settings.build().applied(model) as compressor:
            model.generate(prompt(5, "video", 9), images=[frames], modalities="video", max_new_tokens=2)
            results[name] = compressor.record.videos[0]
    assert results["head"].details.side_signals == "pooling_head"
    assert results["fallback"].details.side_signals == "received_attention"
    with torch.no_grad():
        vectors, saliency = PoolingHead(head_file, 4)(model.get_vision_tower()(frames))
        plain = model.model.mm_projector(model.get_vision_tower()(frames))
    pooled = nn.functional.interpolate(saliency.view(5, 1, 27, 27), size=(14, 14), mode="bilinear").view(5, 196)
    want = [set(row.topk(12).indices.tolist()) for row in pooled]
    kept = results["head"].details.token_kinds() == TokenKind.DYNAMIC_KEPT
    assert [set(row.nonzero().flatten().tolist()) for row in kept] == want
    assert results["head"].details.segments == reference.segments_of(vectors.double().numpy(), 2, 0.9)
    assert plain.shape[1] == 729
    assert results["head"].index.tolist() != results["fallback"].index.tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("head.probe"), "0 tensors called head.probe"),
        (
            lambda tensors: tensors.update({"x.head.probe": tensors["head.probe"].clone()}),
            "2 tensors called head.probe",
        ),
        (lambda tensors: tensors.pop("head.mlp.fc1.weight"), "lacks head.mlp.fc1.weight"),
        (lambda tensors: tensors.pop("post_layernorm.bias"), "lacks post_layernorm.bias"),
        (lambda tensors: tensors.pop("head.attention.in_proj_bias"), "lacks head.attention.in_proj_bias"),
        (
            lambda tensors: tensors.update({"head.layernorm.weight": torch.ones(3)}),
            "head.layernorm.weight of the wrong",
        ),
    ],
)
def test_wrong_head_files(tmp_path, change, message: str) -> None:
    tensors = {name: tensor.contiguous() for name, tensor in head_tensors()[1].items()}
    change(tensors)
    path = tmp_path / "head.safetensors"
    save_file(tensors, path)
    with pytest.raises(CheckpointError) as error:
        FastVidConfig(head_weights=str(path), head_heads=4).build()
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_absent_broken_and_unfitting_heads(tmp_path, head_file, model) -> None:
    with pytest.raises(CheckpointError, match="there is no file"):
        FastVidConfig(head_weights=str(tmp_path / "none.safetensors")).build()
    (tmp_path / "bad.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(CheckpointError, match="no readable safetensors"):
        FastVidConfig(head_weights=str(tmp_path / "bad.safetensors")).build()
    with pytest.raises(CheckpointError, match="no readable safetensors"):
        FastVidConfig(head_weights=str(tmp_path)).build()
    with pytest.raises(CheckpointError, match="7 attention heads"):
        FastVidConfig(head_weights=str(head_file), head_heads=7).build()
    wide = {name: tensor.contiguous() for name, tensor in head_tensors(128, 4)[1].items()}
    save_file(wide, tmp_path / "wide.safetensors")
    config = FastVidConfig(min_segments=1, head_weights=str(tmp_path / "wide.safetensors"), head_heads=4)
    with config.build().applied(model), pytest.raises(CheckpointError, match="width 128, the tower's output has 64"):
        model.generate(prompt(5, "video", 9), images=[video(1)], modalities="video", max_new_tokens=1)
