"""Every kernel compiles for Hopper and Ampere, with or without a GPU at hand, and reads its vectors in wide pieces."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
LARGEST_SHARED = 100 * 1024  # of the smallest GPU that is supported


WIDE = (
    "row_log_sums",
    "column_sums",
    "block_logits",
    "best_in_block",
    "adjacent",
    "fold",
    "mean_over_frames",
    "partial_products",
    "merge_members",
)


def test_every_kernel_compiles(tmp_path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(HERE.parents[3])}
    command = [sys.executable, "-W", "ignore", str(HERE / "compile_all.py")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    variants = [(name, dtype, *map(int, (architecture, *numbers)))
                for name, architecture, dtype, *numbers in map(str.split, done.stdout.splitlines())]  # fmt: skip
    written = sum(
        path.read_text().count("@triton.jit") for path in (HERE.parents[3] / "holitom/ops/kernels").glob("*.py")
    )
    private = 3  # called by kernels, not launched
    assert len({name for name, *_ in variants}) == written - private
    assert {architecture for _, _, architecture, *_ in variants} == {80, 90}
    for name, dtype, architecture, shared, wide, copies, halves in variants:
        assert shared <= LARGEST_SHARED, (name, shared)
        if name in WIDE:  # every kernel that reads vectors
            assert wide + copies > 0, f"{name} reads {dtype} value by value on sm_{architecture}"
            assert halves == 0, f"{name} reads halves one by one on sm_{architecture}"
