"""The two processes of scripts/test.sh: one file stays in one of them, so that what a module makes is made once."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULE = """
import os
from pathlib import Path
import pytest

@pytest.mark.parametrize("number", range(6))
def test_one(number):
    with open(Path(__file__).with_suffix(".ran"), "a") as ran:
        ran.write(os.environ["PYTEST_XDIST_WORKER"] + "\\n")
"""


def options(script: str) -> list[str]:
    """The distribution options that a script hands to pytest."""
    found = re.search(r'set -- -n "\$\{TEST_WORKERS:-2\}" (.+)', (ROOT / "scripts" / script).read_text())
    assert found is not None, f"scripts/{script} no longer says how tests are distributed"
    return found[1].split()


def test_both_scripts_distribute_alike() -> None:
    assert options("test.sh") == options("test_newest.sh")


@pytest.mark.parametrize("name", ["first", "second"])
def test_a_file_stays_in_one_process(name: str, ran: dict[str, list[str]]) -> None:
    assert len(ran[name]) == 6
    assert len(set(ran[name])) == 1


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Which process ran each test of two files, by a run with the options of scripts/test.sh."""
    folder = tmp_path_factory.mktemp("two")
    for name in ("first", "second"):
        (folder / f"test_{name}.py").write_text(MODULE)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={folder}", "-n", "2"]
    subprocess.run([*command, *options("test.sh"), str(folder)], check=True, capture_output=True, timeout=120)
    return {name: (folder / f"test_{name}.ran").read_text().split() for name in ("first", "second")}
