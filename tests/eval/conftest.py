"""Miniature benchmarks and a tiny checkpoint, made once for all processes of a test run."""

import os
from pathlib import Path

import pytest
from filelock import FileLock

from eval.benchmarks.data.fixtures import make_fixtures
from eval.instruments.models.random_checkpoint import make_random_checkpoint


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all processes of pytest-xdist."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def benchmarks(shared_folder: Path) -> Path:
    """The fixtures of the four benchmarks; never change them."""
    with FileLock(shared_folder / "benchmarks.lock"):
        return make_fixtures(shared_folder / "benchmarks", 2)


@pytest.fixture(scope="session")
def tiny(shared_folder: Path) -> Path:
    """A tiny random checkpoint under a name that is the same in every process."""
    with FileLock(shared_folder / "tiny.lock"):
        folder = shared_folder / "tiny"
        return folder if (folder / "config.json").exists() else make_random_checkpoint(folder, seed=1)
