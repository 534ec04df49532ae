"""Another package called llava, as LLaVA-NeXT installs one: named where it is in the way, and never imported."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from holitom import errors, runtime
from llava.errors import CheckpointError, InputError

ROOT = Path(__file__).parent.parent.parent
THEIR_MODEL = """
import torch
from transformers import LlavaOnevisionForConditionalGeneration
from holitom import holitom
model = LlavaOnevisionForConditionalGeneration.from_pretrained(CHECKPOINT).eval()
holitom(model, retain_ratio=0.2)
ids = torch.tensor([[1, 2, *[model.config.video_token_id] * (4 * 196 + 1), 3]])
video = torch.randn(1, 4, 3, 384, 384, generator=torch.Generator().manual_seed(0))
out = model.generate(input_ids=ids, pixel_values_videos=video, max_new_tokens=4, do_sample=False, output_logits=True,
                     return_dict_in_generate=True, eos_token_id=None)
record = model.visual_compressor.record
print(out.sequences[0, -4:].tolist(), record.tokens_after_outer, record.inner.kept[0, -9:].tolist())
"""
BESIDE = """
import sys, holitom, pathlib
from holitom.errors import InputError
from holitom.families import find_family
from holitom.show import main, record_methods
assert not [name for name in sys.modules if name.partition(".")[0] == "llava"], "llava was imported"
class LlavaQwenForCausalLM: __module__ = "llava.model.language_model.llava_qwen"
for refused in (lambda: find_family(LlavaQwenForCausalLM()), lambda: record_methods("talk.mp4", {"a": None}, frames=1)):
    try:
        refused()
    except InputError as error:
        print(error)
"""


def foreign(folder: Path) -> Path:
    """A package llava that must not be imported, let alone believed."""
    package = folder / "llava"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AttributeError('the other llava was imported')\n")
    (package / "errors.py").write_text("")
    return package


def python(code: str, folder: Path) -> list[str]:
    """Lines that code prints in a fresh process in a folder whose packages go first."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1"}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_beside_another_llava_their_classes_work_and_ours_are_refused(tmp_path: Path, hf_checkpoint: Path) -> None:
    package = foreign(tmp_path)
    code = THEIR_MODEL.replace("CHECKPOINT", repr(str(hf_checkpoint)))
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(code, {})
    same, *refusals = python(code + BESIDE, tmp_path)
    assert same == said.getvalue().strip()
    assert len(refusals) == 2
    for line in refusals:
        assert f"the package llava at {package} is not the one that holitom brings" in line
        assert f"put {ROOT} first on PYTHONPATH" in line


def test_a_llava_laid_over_ours_is_told_by_its_init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip unpacks both into one folder: our files stay, the __init__ is theirs."""
    package = foreign(tmp_path)
    monkeypatch.setattr(errors, "runtime_found", lambda: package / "__init__.py")
    assert runtime.foreign_runtime() == package
    with pytest.raises(InputError, match="not the one that holitom brings"):
        runtime.require_runtime()
    (package / "__init__.py").write_text((ROOT / "llava" / "__init__.py").read_text())
    assert runtime.foreign_runtime() is None
    runtime.require_runtime()


def test_without_any_llava(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "runtime_found", lambda: None)
    assert runtime.foreign_runtime() is None
    with pytest.raises(InputError, match="is not installed: install holitom again"):
        runtime.require_runtime()


def test_ours_is_ours_and_its_errors_are_one_class_with_holitom_s() -> None:
    assert runtime.runtime_problem() is None
    assert errors.InputError is InputError
    assert errors.CheckpointError is CheckpointError
