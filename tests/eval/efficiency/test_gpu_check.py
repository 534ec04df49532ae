"""The script for minutes on a GPU, with an interpreter that only notes what it is asked to run."""

import os
import subprocess
from pathlib import Path

import pytest

PARTS = ["kernels", "equality", "times", "outer", "latency", "decode", "video", "figure"]
# which packages are missing and which device there is are the script's only questions; the rest is work
STUB = """#!/bin/sh
case "$*" in
  *find_spec*) for name; do if [ "$name" = matplotlib ]; then echo matplotlib; fi; done ;;
  *torch.cuda*) echo h200 ;;
  *)
    echo "$*" >>"$NOTES"
    case "$*" in
      *"$BROKEN"*) exit 7 ;;
      *"$SLOW"*) exec sleep 20 ;;
    esac
    echo done
    ;;
esac
"""


def check(tmp_path: Path, *arguments: str, broken: str = "-", slow: str = "-", **more: str):
    """The finished script, and what it would have run."""
    stub, notes = tmp_path / "python", tmp_path / "notes"
    stub.write_text(STUB)
    stub.chmod(0o755)
    environment = {**os.environ, "NO_INSTALL": "1", "PYTHON": str(stub), "NOTES": str(notes)}
    environment |= {"BROKEN": f"eval.{broken}", "SLOW": f"eval.{slow}", **more}
    root = Path(__file__).parents[3]
    command = ["bash", str(root / "scripts/gpu_check.sh"), "--results", "found", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    return done, notes.read_text() if notes.exists() else ""


def test_all_parts_run_and_write_where_they_are_told(tmp_path: Path) -> None:
    done, notes = check(tmp_path)
    assert done.returncode == 0, done.stderr
    for words in ("tests/holitom/ops/kernels", "tests/cuda", "bench_kernels.json", "bench_outer.json",
                  "latency_llava-onevision-7b.json", "bench_decode.json", "latency_llava-video-7b.json"):  # fmt: skip
        assert notes.count(words) == 1, words
    assert notes.count("eval.instruments.record") == notes.count(f"record {tmp_path}/found/") == 5
    assert "left out: the figure" in done.stdout + done.stderr
    assert "figures.latency" not in notes
    assert "eval.report.readme" not in notes, "the README is made from results/ alone"
    assert sorted(path.stem for path in (tmp_path / "found").glob("*.log")) == sorted(PARTS)
    assert (tmp_path / "found/outer.log").read_text() == "done\n"


def test_a_part_that_fails_stops_no_other(tmp_path: Path) -> None:
    done, notes = check(tmp_path, "bench", broken="efficiency.outer")
    assert done.returncode == 1
    assert done.stderr.endswith("error: failed: outer\n")
    assert "latency_llava-video-7b.json" in notes
    assert "tests/cuda" not in notes


@pytest.mark.parametrize(
    ("arguments", "status"),
    [({"broken": "efficiency.kernels"}, 7), ({"slow": "efficiency.kernels", "LIMIT": "1"}, 124)],
)
def test_a_single_part_ends_with_its_own_status(tmp_path: Path, arguments: dict, status: int) -> None:
    done, notes = check(tmp_path, "times", **arguments)
    assert done.returncode == status
    assert len(notes.splitlines()) == 1
    assert ("times was stopped after 1 s" in done.stderr) == (status == 124)
