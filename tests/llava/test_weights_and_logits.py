"""No score of a broken model: weights are looked at when they are loaded, logits at the end of a generation."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from llava.errors import CheckpointError, InputError
from llava.model.builder import load_pretrained_model
from llava.model.weight_checks import check_values, check_weights, summaries
from tests.tiny_models import greedily, prompt, video

NAME = "model.layers.3.mlp.up_proj.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of a small checkpoint that a test may damage."""
    return Path(shutil.copytree("checkpoints/tiny", tmp_path / "copy"))


def damage(folder: Path, name: str, change: Callable[[Tensor], Tensor]) -> None:
    state = load_file(folder / "model.safetensors")
    save_file({**state, name: change(state[name]).contiguous()}, folder / "model.safetensors", {"format": "pt"})


def one(value: float) -> Callable[[Tensor], Tensor]:
    """One entry of a tensor becomes ``value``."""

    def change(tensor: Tensor) -> Tensor:
        tensor.view(-1)[-1] = value
        return tensor

    return change


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        (NAME, one(float("nan")), f"1 tensors with NaN or infinite values ({NAME})"),
        (NAME, one(float("inf")), "NaN or infinite"),
        ("model.layers.0.self_attn.q_proj.bias", one(-float("inf")), "NaN or infinite"),
        ("model.image_newline", one(float("nan")), "model.image_newline"),
        ("model.vision_tower.vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias", one(float("nan")), "fc1.bias"),
        (NAME, lambda tensor: tensor.float().mul_(1e30), "NaN or infinite"),  # more than float16 holds
        (NAME, torch.zeros_like, f"1 tensors of zeros alone ({NAME})"),
        ("model.norm.weight", torch.zeros_like, "model.norm.weight"),
        ("model.embed_tokens.weight", torch.zeros_like, "zeros alone"),
        (NAME, lambda tensor: tensor.to(torch.int8), f"({NAME} is I8)"),
        (NAME, lambda tensor: tensor.bool(), f"({NAME} is BOOL)"),
        ("model.norm.weight", lambda tensor: tensor.to(torch.int64), "is I64"),
        (NAME, lambda tensor: tensor.to(torch.float8_e4m3fn), "is F8_E4M3"),
    ],
)
def test_weights_that_no_answer_comes_from(folder: Path, name: str, change: Callable, words: str) -> None:
    damage(folder, name, change)
    with pytest.raises(CheckpointError) as error:
        load_pretrained_model(folder, torch_dtype="float16")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_what_may_be_zero_or_small(folder: Path) -> None:
    """Biases of zeros are common, and one weight is enough for a matrix; large but finite values are no damage."""
    damage(folder, "model.layers.0.self_attn.q_proj.bias", torch.zeros_like)
    damage(folder, NAME, lambda tensor: one(1.0)(torch.zeros_like(tensor)))
    damage(folder, "model.norm.weight", lambda tensor: tensor.float().fill_(1e30))
    load_pretrained_model(folder, torch_dtype="float32")
    load_pretrained_model(folder, torch_dtype="bfloat16")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_every_entry_is_looked_at(dtype: torch.dtype) -> None:
    """Against a count: a value that is not finite is found wherever it stands, and nothing else is called one."""
    generator = torch.Generator().manual_seed(0)
    for trial in range(60):
        tensor = torch.randn(3, 37, generator=generator).to(dtype)
        place = int(torch.randint(tensor.numel(), (1,), generator=generator))
        value = (float("nan"), float("inf"), -float("inf"), 0.0, torch.finfo(dtype).max)[trial % 5]
        tensor.view(-1)[place] = value
        refused = False
        try:
            check_values(summaries([("a", torch.ones(0)), ("b.weight", tensor)]), "path")
        except CheckpointError:
            refused = True
        assert refused == (not bool(torch.isfinite(tensor).all())), (value, place)


def test_weights_on_the_disk_are_read_from_the_files(folder: Path, tmp_path: Path) -> None:
    damage(folder, NAME, one(float("nan")))
    with torch.device("meta"):
        model = torch.nn.Module()
        inner = model
        for part in NAME.split(".")[:-1]:
            child = torch.nn.Module()
            inner.add_module(part, child)
            inner = child
        inner.weight = torch.nn.Parameter(torch.empty(2, 2))
    with pytest.raises(CheckpointError, match="NaN"):
        check_weights(model, str(folder))


def test_a_run_on_a_damaged_checkpoint_has_no_score(folder: Path) -> None:
    """Weights that were damaged after the check, or overflow on the way: the first answer stops the run."""
    model = load_pretrained_model(folder, torch_dtype="float32")[1]
    assert json.loads((folder / "config.json").read_text())["hidden_size"] == 128
    with torch.no_grad():
        model.lm_head.weight[3, 5] = float("inf")
    with pytest.raises(InputError, match="logits are NaN or infinite"):
        model.generate(torch.arange(5)[None], max_new_tokens=2, do_sample=False)


@pytest.mark.parametrize("decoding", ["eager", "preallocated", "static"])
@pytest.mark.parametrize("when", ["prefill", "later"])
def test_logits_that_are_not_finite(model, decoding: str, when: str) -> None:
    """In every way of decoding; also if only a single step's are not, after the last look at any cache."""
    calls = []

    def spoil(head, args, output):
        calls.append(output.shape)
        return output * (float("nan") if len(calls) == (1 if when == "prefill" else 3) else 1)

    inputs = {"images": [video(2)], "modalities": ["video"], "decoding": decoding}
    with model.lm_head.register_forward_hook(spoil), pytest.raises(InputError, match="logits are NaN"):
        greedily(model, prompt(5, "video", 6), 5, **inputs)
    assert len(calls) >= 3
    wanted = greedily(model, prompt(5, "video", 6), 5, **inputs)  # nothing of it is left
    assert len(wanted.logits) == 5


def test_the_watch_waits_for_nothing_while_tokens_are_made(model, monkeypatch) -> None:
    """One conversion to a Python value per generation, at its end."""
    from llava.model.finite_logits import LogitsWatch  # noqa: PLC0415

    seen, checks = [], []
    monkeypatch.setattr(LogitsWatch, "see", lambda self, logits: seen.append(logits.shape))
    monkeypatch.setattr(LogitsWatch, "check", lambda self: checks.append(len(seen)))
    greedily(model, prompt(5, "video", 6), 4, images=[video(2)], modalities=["video"])
    assert checks == [4]
    assert {shape[1] for shape in seen} == {1}
