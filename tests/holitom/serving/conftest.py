"""A small checkpoint for the tests of serving, and our own runtime on it."""

from pathlib import Path
from typing import Any

import pytest

from llava.model.builder import load_pretrained_model
from tests.holitom.serving.serving_cases import small_checkpoint


@pytest.fixture(scope="session")
def served_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the layout of lmms-lab."""
    return small_checkpoint(tmp_path_factory.mktemp("served") / "small")


@pytest.fixture(scope="session")
def ours(served_checkpoint: Path) -> tuple[Any, ...]:
    """Our own runtime on it, in float32."""
    return load_pretrained_model(served_checkpoint, None, "llava_qwen", torch_dtype="float32")
