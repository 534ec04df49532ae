"""The parity command: passes on the recorded cases, fails where a value or a selection differs, refuses nonsense."""

import contextlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file, save_file

from eval.claims.parity.__main__ import main

GOLDENS = Path(__file__).parents[3] / "goldens"
NEWER = Path(__file__).parents[3] / "goldens_newer"


def started(folder: Path) -> tuple[int, list[str], str]:
    """The command as a user starts it."""
    done = subprocess.run(
        [sys.executable, "-m", "eval.claims.parity", str(folder)], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout.splitlines(), done.stderr


def parity(folder: Path) -> tuple[int, list[str], str]:
    """The same in this process, which has loaded torch already."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    arguments = mock.patch.object(sys, "argv", ["parity", str(folder)])
    with arguments, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return code, out.getvalue().splitlines(), err.getvalue()


def subset(folder: Path, *names: str) -> Path:
    for name in names:
        for suffix in (".json", ".safetensors"):
            shutil.copy((GOLDENS if (GOLDENS / f"{name}.json").exists() else NEWER) / f"{name}{suffix}", folder)
    return folder


def test_every_recorded_case() -> None:
    code, lines, errors = started(GOLDENS)
    result = json.loads(lines[-1])
    assert (code, result["failed"]) == (0, []), errors
    assert result["cases"] == len(lines) - 1 == 50
    limits = {"outer": 1e-5, "inner": 1e-5, "dpc": 1e-5, "e2e": 1e-3}
    assert all(result["max_abs_error"][kind] <= limit for kind, limit in limits.items())


def test_every_case_of_the_newer_methods() -> None:
    code, lines, errors = parity(NEWER)
    result = json.loads(lines[-1])
    assert (code, result["failed"]) == (0, []), errors
    assert result["cases"] == len(lines) - 1 == 31
    found = {kind: error for kind, error in result["max_abs_error"].items() if error is not None}
    assert set(found) == {
        "flashvid",
        "flashvid_llm_prune",
        "earlytom_merge",
        "earlytom_select",
        "earlytom_tower",
    }
    assert all(error <= (1e-4 if kind == "earlytom_tower" else 1e-5) for kind, error in found.items())


def test_a_subset_and_its_missing_kinds(tmp_path: Path) -> None:
    code, lines, _ = parity(subset(tmp_path, "dpc_20_to_5_k5_small"))
    assert code == 0
    assert json.loads(lines[-1])["max_abs_error"]["outer"] is None


@pytest.mark.parametrize(
    ("name", "tensor", "change"),
    [
        ("outer_two_frames_T2", "merged", lambda t: t + 2e-5),
        ("outer_two_frames_T2", "windows", lambda t: t + 1),
        ("outer_two_frames_T2", "merged", lambda t: t[:-1].clone()),
        ("outer_two_frames_T2", "merged", lambda t: t * torch.nan),
        ("inner_ov_even_128_r50", "keep_indices", lambda t: t.roll(1)),
        ("inner_ov_even_128_r50", "merged_hidden", lambda t: t + 1e-3),
        ("dpc_20_to_5_k5_small", "centers", lambda t: t + 1),
        ("flashvid_random_T6", "tokens", lambda t: t + 2e-5),
        ("flashvid_random_T6", "picked", lambda t: t.roll(1, 1)),
        ("flashvid_random_T6", "index", lambda t: t.roll(1)),
        ("flashvid_llm_prune_n120", "keep", lambda t: t.roll(1)),
        ("earlytom_merge_random_T6", "aux_sources", lambda t: t + 1),
        ("earlytom_merge_random_T6", "merged_attn", lambda t: t + 2e-5),
        ("earlytom_select_rounding", "index", lambda t: t.roll(1)),
    ],
)
def test_a_difference_fails(tmp_path: Path, name: str, tensor: str, change) -> None:
    path = subset(tmp_path, name) / f"{name}.safetensors"
    tensors = load_file(path)
    tensors[tensor] = change(tensors[tensor])
    save_file(tensors, path)
    code, lines, _ = parity(tmp_path)
    assert code == 1
    assert lines[0].startswith("FAIL")
    assert json.loads(lines[-1])["failed"] == [name]


def test_a_damaged_case_fails_and_the_others_run(tmp_path: Path) -> None:
    subset(tmp_path, "dpc_20_to_5_k5_small", "dpc_30_to_30_all")
    (tmp_path / "dpc_30_to_30_all.json").unlink()
    code, lines, _ = parity(tmp_path)
    assert (code, json.loads(lines[-1])["failed"]) == (1, ["dpc_30_to_30_all"])


def test_nothing_to_compare(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        code, lines, errors = parity(folder)
        assert (code, lines) == (2, [])
        assert errors.startswith("error: ")
        assert errors.count("\n") == 1
