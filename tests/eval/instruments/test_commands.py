"""``python -m eval`` names every command, at once."""

import subprocess
import sys
from pathlib import Path

import pytest

from eval import HOME
from eval.instruments.commands import commands


def test_every_program_has_a_line() -> None:
    found = dict(commands("eval"))
    assert {"eval.demo", "eval.claims", "eval.claims.parity", "eval.efficiency.flops", "eval.report.tables"} <= set(
        found
    )
    assert "eval" not in found
    assert all(found.values()), "a command without a manual"
    programs = [path for path in Path(HOME, "eval").rglob("*.py") if '\nif __name__ == "__main__":' in path.read_text()]
    assert len(found) == len(programs) - 1


@pytest.mark.parametrize("room", ["eval", "eval.benchmarks", "eval.synthetic"])
def test_listed_without_torch(room: str) -> None:
    code = f"import runpy, sys; runpy.run_module({room!r}, run_name='__main__', alter_sys=True)\n"
    code += "assert not {'torch', 'transformers', 'holitom', 'llava'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=HOME)
    lines = done.stdout.splitlines()
    assert len(lines) == len(list(commands(room)))
    assert all(line.startswith(f"python -m {room}.") for line in lines)
