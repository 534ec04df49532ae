"""What an import brings: modelling code of transformers and the compiler of torch cost seconds and wait for a model.

Whoever reads a setting, a record or an error pays for torch alone, at most.
"""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import llava
from llava.model.language_model.llava_qwen import LlavaQwenConfig, LlavaQwenForCausalLM

ROOT = Path(__file__).parent.parent
HEAVY = ("transformers", "torch._dynamo", "torch.distributed.tensor", "scipy", "accelerate", "PIL", "matplotlib")


def brought(code: str, modules: tuple[str, ...] = HEAVY) -> list[str]:
    """Which of the modules a fresh process has after some code."""
    show = f"\nimport sys; print(*[name for name in {modules} if name in sys.modules])"
    words = [sys.executable, "-c", code + show]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


def test_the_runtime_without_a_class_needs_not_even_torch() -> None:
    assert brought("import llava, llava.errors, llava.constants, llava.conversation", ("torch", *HEAVY)) == []


def test_the_library_with_all_its_methods_needs_no_model_code() -> None:
    code = "from holitom import *; available_methods(); from holitom import holitom"
    assert brought(code, ("torch", *HEAVY)) == ["torch"]


@pytest.mark.parametrize("command", ["eval.benchmarks.run", "eval.benchmarks.lmms.worker", "eval.instruments.record"])
def test_a_command_that_starts_others_needs_no_model_code(command: str) -> None:
    assert brought(f"import {command}", ("torch", *HEAVY[:5])) == ["torch"]


def test_the_names_of_the_runtime_are_found_as_before() -> None:
    found: dict[str, object] = {}
    exec("from llava import *", found)
    assert found["LlavaQwenForCausalLM"] is LlavaQwenForCausalLM
    assert found["LlavaQwenConfig"] is llava.LlavaQwenConfig is LlavaQwenConfig
    assert set(llava.__all__) <= set(dir(llava))
    assert pickle.loads(pickle.dumps(llava.LlavaQwenForCausalLM)) is LlavaQwenForCausalLM
    assert not hasattr(llava, "LlavaMistralForCausalLM")
    with pytest.raises(ImportError, match="LlavaMistral"):
        exec("from llava import LlavaMistralForCausalLM")
