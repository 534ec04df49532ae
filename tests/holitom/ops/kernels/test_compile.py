"""Every kernel compiles for Hopper, with or without a GPU at hand."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
LARGEST_SHARED = 100 * 1024  # of the smallest GPU that is supported


def test_every_kernel_compiles_for_hopper(tmp_path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(HERE.parents[3])}
    command = [sys.executable, "-W", "ignore", str(HERE / "compile_all.py")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    shared = {name: int(size) for name, size in (line.split() for line in done.stdout.splitlines())}
    written = sum(
        path.read_text().count("@triton.jit") for path in (HERE.parents[3] / "holitom/ops/kernels").glob("*.py")
    )
    private = 2  # called by kernels, not launched
    assert len(shared) == written - private
    assert max(shared.values()) <= LARGEST_SHARED, shared
