"""eval imports holitom imports llava, never the other way round; optional packages are imported where they are used."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {"llava": {"holitom", "eval", "tests"}, "holitom": {"eval", "tests"}, "eval": {"tests"}}
OPTIONAL = {"decord", "av", "matplotlib", "triton", "lmms_eval", "flash_attn", "deepspeed", "skvideo", "torchvision"}


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_one_direction(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        found = set(imports(ast.parse(path.read_text())))
        assert not found & FORBIDDEN[package], path


def writes_kernels(path: Path) -> bool:
    """Modules of Triton kernels import triton at the top; nobody else may import them there."""
    return path.parent == ROOT / "holitom/ops/kernels" and path.stem not in ("__init__", "dispatch")


@pytest.mark.parametrize("package", FORBIDDEN)
def test_modules_of_kernels_are_imported_lazily(package: str) -> None:
    for path in sorted((ROOT / package).rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("holitom.ops.kernels"):
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                decides = node.module == "holitom.ops.kernels.dispatch" or names == {"holitom.ops.kernels.dispatch"}
                assert decides or writes_kernels(path), path


@pytest.mark.parametrize("package", FORBIDDEN)
def test_optional_packages_are_imported_lazily(package: str) -> None:
    for path in sorted((ROOT / package).rglob("*.py")):
        if writes_kernels(path):
            continue
        tree = ast.parse(path.read_text())
        lazy = [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.If)]
        top = {name for node in lazy for name in imports(node)}
        assert not top & OPTIONAL, path
