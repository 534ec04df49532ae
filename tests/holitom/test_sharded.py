"""A model whose parts lie in several places answers and keeps what it does in one place."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from accelerate import cpu_offload
from packaging.version import Version

from llava.errors import InputError
from llava.model.builder import load_pretrained_model
from tests.holitom.sharded_runs import METHODS, answers
from tests.tiny_models import pixels, prompt

OUTSIDE = [f"model.{name}" for name in ("embed_tokens", "vision_tower", "mm_projector", "norm", "rotary_emb")] + [
    "lm_head"
]
LAYERS = [f"model.layers.{number}" for number in range(6)]
NEWLINE = {"model.image_newline": "cpu"}
# Half of the layers on the disk; all but the layers on the disk; everything; the decoder and what is in it.
DEVICE_MAPS: dict[str, dict[str, str]] = {
    "later layers": {**NEWLINE, **dict.fromkeys([*OUTSIDE, *LAYERS[:3]], "cpu"), **dict.fromkeys(LAYERS[3:], "disk")},
    "all but the layers": {**NEWLINE, **dict.fromkeys(OUTSIDE, "disk"), **dict.fromkeys(LAYERS, "cpu")},
    "everything": {"": "disk"},
    "the decoder": {"model": "disk", "lm_head": "cpu"},
}
pytestmark = pytest.mark.filterwarnings("ignore:The following device_map keys do not match")


@pytest.fixture(scope="module")
def in_one_place(checkpoint: Path) -> dict[str, Any]:
    found = answers(load_pretrained_model(checkpoint, torch_dtype="float32")[1])
    assert len({json.dumps(each["tokens"]) for each in found.values()}) >= 4, "methods must differ for a test of them"
    return found


@pytest.mark.parametrize("name", DEVICE_MAPS)
def test_offloaded_to_the_disk(checkpoint, tmp_path, in_one_place, name: str) -> None:
    places = DEVICE_MAPS[name]
    model = load_pretrained_model(checkpoint, torch_dtype="float32", device_map=places, offload_folder=tmp_path)[1]
    assert any(parameter.is_meta for parameter in model.parameters()), "nothing was offloaded"
    assert answers(model) == in_one_place


def test_offloaded_by_accelerate(checkpoint, in_one_place) -> None:
    model = load_pretrained_model(checkpoint, torch_dtype="float32")[1]
    cpu_offload(model, execution_device=torch.device("cpu"))
    assert all(parameter.is_meta for parameter in model.parameters())
    assert answers(model) == in_one_place


def test_offloaded_images_get_their_newline(checkpoint, tmp_path, loaded) -> None:
    model = load_pretrained_model(checkpoint, torch_dtype="float32", device_map={"": "disk"}, offload_folder=tmp_path)[
        1
    ]
    ids, inputs = prompt(3, "image", 4), {"images": [pixels(1)], "image_sizes": [(384, 384)]}
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids, **inputs).logits, loaded[1](input_ids=ids, **inputs).logits)


def test_labels_may_lie_anywhere(model) -> None:
    """Ids, mask and labels follow the embeddings; here they only have to pass."""
    ids = prompt(5, seed=3)
    assert model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss.isfinite()


def test_a_newline_offloaded_by_itself_is_refused(checkpoint, tmp_path) -> None:
    places = {**DEVICE_MAPS["all but the layers"], "model.image_newline": "disk"}
    with pytest.raises(InputError, match=r"'model\.image_newline' by itself"):
        load_pretrained_model(checkpoint, torch_dtype="float32", device_map=places, offload_folder=tmp_path)


def program(arguments: list[str], checkpoint: Path, layout: str, output: Path) -> list[dict[str, Any]]:
    """What each process of :mod:`tests.holitom.sharded_runs` writes."""
    module = ["-m", "tests.holitom.sharded_runs", str(checkpoint), layout, str(output)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd(), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run([sys.executable, *arguments, *module], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(file.read_text()) for file in sorted(output.iterdir())]


def test_on_two_devices(checkpoint, tmp_path, in_one_place) -> None:
    """Tensors that say they are on different devices, and may not be mixed: as with ``device_map="auto"`` on GPUs."""
    (found,) = program([], checkpoint, "two-devices", tmp_path)
    assert found == in_one_place


@pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.18"),
    reason="transformers 5.17 cannot split a vocabulary of odd size: its own message says so",
)
def test_tensor_parallel_over_two_processes(checkpoint, tmp_path, in_one_place) -> None:
    """Each process has half of the heads, and yet both keep the same tokens as one process does."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    found = program(torchrun, checkpoint, "tensor-parallel", tmp_path)
    assert len(found) == 2
    for each in found:
        for name in METHODS:
            assert each[name] == in_one_place[name], name
