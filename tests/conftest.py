"""Shared fixtures: tiny random checkpoints in both published layouts.

Model code is imported inside them: the process that hands out the tests reads this file too, before any worker starts.
"""

import copy
import gc
import os
from collections.abc import Generator
from pathlib import Path

import pytest
import torch

if gc.isenabled():
    # Nothing that is imported goes away: looking for garbage in it was 7 of the 17 seconds a worker took to collect.
    gc.disable()

if not torch.cuda.is_available():
    # Without a GPU the kernels are interpreted, which triton decides when it is first imported.
    os.environ["TRITON_INTERPRET"] = "1"

from tests import checked_shapes  # noqa: F401 - before anything that it checks

torch.set_num_threads(1)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """From the first test on garbage is collected again, but not looked for among modules and collected tests."""
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random checkpoint in the layout of lmms-lab."""
    from eval.instruments.models.random_checkpoint import make_random_checkpoint  # noqa: PLC0415

    return make_random_checkpoint(tmp_path_factory.mktemp("lmms-lab"), seed=1)


@pytest.fixture(scope="session")
def hf_checkpoint(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """The same weights in the layout of Hugging Face, written by transformers' own class."""
    from tests.tiny_models import save_hugging_face  # noqa: PLC0415

    return save_hugging_face(checkpoint, tmp_path_factory.mktemp("hugging-face"))


@pytest.fixture(scope="session")
def loaded_once(checkpoint: Path):
    """What :func:`loaded` copies; nothing else touches it."""
    from llava.model.builder import load_pretrained_model  # noqa: PLC0415

    return load_pretrained_model(checkpoint, None, "llava_qwen", torch_dtype="float32")


@pytest.fixture
def loaded(loaded_once):
    """Tokenizer, model, image processor and context length of the tiny checkpoint, in float32; a copy of its own."""
    return copy.deepcopy(loaded_once)


@pytest.fixture
def model(loaded):
    """The tiny model."""
    return loaded[1]
