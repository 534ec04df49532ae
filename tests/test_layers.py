"""Where things stand: rooms on floors, imports that only go down, no circle; optional packages are imported lazily."""

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from jaxtyping import TypeCheckError
from torch import rand

from holitom.ops.similarity import similarity_and_norms
from tests.checked_shapes import MODULES

ROOT = Path(__file__).parent.parent
PACKAGES = ("llava", "holitom", "eval")
OPTIONAL = {
    "decord",
    "av",
    "matplotlib",
    "triton",
    "lmms_eval",
    "flash_attn",
    "deepspeed",
    "skvideo",
    "torchvision",
    "vllm",
}

_SHARED = {
    "llava",
    "holitom.errors",
    "holitom.shipped",
    "holitom.tokens",
    "holitom.encoded_video",
    "holitom.checks",
    "holitom.files",
    "holitom.cli",
}
_OPS = {"llava", "holitom.errors", "holitom.tokens", "holitom.checks"}
_HOOKS = {*_OPS, "holitom.encoded_video", "holitom.ops", "holitom.hooks"}
_MODELS = {"holitom.hooks.tower", "holitom.hooks.decoder", "holitom.hooks.prompt", "holitom.families", "holitom.record"}
_METHODS = {*_HOOKS, *_MODELS, "holitom.runtime", "holitom.stages", "holitom.compressor"}
_LIBRARY = {*_SHARED, *_METHODS, "holitom", "holitom.methods", "holitom.settings", "holitom.watching", "holitom.views"}
_LIBRARY |= {"holitom.byte_cache", "holitom.run_facts", "holitom.strict_yaml"}
_BELOW = {*_LIBRARY, "eval.paper", "eval.instruments"}

# Room -> the rooms it may import, from the ground up; a module belongs to the longest name that fits.
ROOMS: dict[str, set[str]] = {
    "llava": set(),
    "holitom.errors": {"llava"},
    "holitom.runtime": {"holitom.errors"},
    "holitom.shipped": {"holitom.errors"},
    "holitom.tokens": set(),
    "holitom.encoded_video": {"holitom.tokens"},
    "holitom.checks": {"holitom.errors"},
    "holitom.files": {"holitom.errors"},
    "holitom.cli": {"holitom.errors", "holitom.files"},
    "holitom.strict_yaml": {"holitom.errors"},
    "holitom.ops": _OPS,
    "holitom.hooks": _OPS,
    "holitom.hooks.tower": _HOOKS,
    "holitom.hooks.decoder": _HOOKS,
    "holitom.hooks.prompt": {*_HOOKS, "holitom.hooks.tower", "holitom.hooks.decoder"},
    "holitom.families": {
        *_HOOKS,
        "holitom.runtime",
        "holitom.hooks.tower",
        "holitom.hooks.decoder",
        "holitom.hooks.prompt",
    },
    "holitom.record": {*_SHARED, "holitom.hooks.decoder"},
    "holitom.stages": {*_OPS, *_MODELS, "holitom.encoded_video"},
    "holitom.compressor": {*_HOOKS, *_MODELS, "holitom.stages"},
    "holitom.budget": {*_OPS, "holitom.encoded_video", "holitom.ops", "holitom.stages"},
    "holitom.methods": _METHODS,
    "holitom.settings": {*_METHODS, "holitom.budget", "holitom.methods", "holitom.shipped", "holitom.strict_yaml"},
    "holitom.watching": {*_METHODS, "holitom.budget"},
    "holitom": {*_METHODS, "holitom.methods", "holitom.settings"},
    "holitom.run_facts": {*_SHARED, "holitom.settings"},
    "holitom.views": {*_SHARED, "holitom.record", "holitom.methods"},
    "holitom.show": _LIBRARY,
    "holitom.byte_cache": {"holitom.errors"},
    "holitom.serving": _LIBRARY,
    "eval.paper": {
        "llava",
        "holitom.errors",
        "holitom.methods",
        "holitom.settings",
        "holitom.shipped",
        "holitom.strict_yaml",
    },
    "eval.instruments": {*_LIBRARY, "eval.paper"},
    "eval": {"eval.instruments", "holitom.errors"},
    "eval.synthetic": _BELOW,
    "eval.benchmarks": {*_BELOW, "eval.synthetic", "holitom.serving"},
    "eval.efficiency": {*_BELOW, "eval.synthetic", "holitom.serving"},
    "eval.demo": {*_BELOW, "eval.synthetic", "eval.benchmarks", "eval.efficiency"},
    "eval.claims": {*_BELOW, "eval.synthetic", "eval.benchmarks", "eval.efficiency"},
    "eval.report": {*_BELOW, "eval.synthetic", "eval.benchmarks", "eval.efficiency", "eval.claims"},
}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_name(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def imported_names(tree: ast.AST) -> Iterator[str]:
    """Every name that is imported anywhere: in functions and under TYPE_CHECKING too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def graph_of(sources: dict[str, str]) -> dict[str, set[str]]:
    """Module -> the modules of ours that it imports, its own packages apart."""
    graph = {}
    for name, source in sources.items():
        found = {one if one in sources else one.rpartition(".")[0] for one in imported_names(ast.parse(source))}
        graph[name] = {one for one in found if one in sources and one != name and not name.startswith(f"{one}.")}
    return graph


GRAPH = graph_of({name: path.read_text() for name, path in FILES.items()})


def room_of(module: str) -> str:
    return max((room for room in ROOMS if module == room or module.startswith(f"{room}.")), key=len)


def strays(graph: dict[str, set[str]]) -> list[str]:
    """Imports that no room's row allows."""
    return [
        f"{name} -> {other}"
        for name, others in graph.items()
        for other in sorted(others)
        if room_of(other) not in ROOMS[room_of(name)] | {room_of(name)}
    ]


def circle(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_the_table_is_a_building() -> None:
    assert set().union(*ROOMS.values()) <= set(ROOMS)
    assert circle(ROOMS) == []
    empty = [room for room in ROOMS if not any(room_of(name) == room for name in FILES)]
    assert empty == []


def test_imports_go_down() -> None:
    assert len(GRAPH) > 250
    assert strays(GRAPH) == []


def test_the_product_knows_no_test() -> None:
    for path in FILES.values():
        assert not any(name.split(".")[0] == "tests" for name in imported_names(ast.parse(path.read_text()))), path


def test_no_circle() -> None:
    assert circle(GRAPH) == []


def test_holitom_imports_llava_where_it_is_used() -> None:
    """transformers' own classes need none of it; ``holitom.errors`` looks first whether it is ours."""
    for name, path in FILES.items():
        if name.startswith("holitom"):
            top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
            assert not [one for node in top for one in imported_names(node) if one.startswith("llava")], name


# EarlyTom's stage inside the LLM is HoliTom's own.
BORROWED = {f"holitom.methods.earlytom -> holitom.methods.holitom.{part}" for part in ("config", "inner")}


def test_no_method_imports_another() -> None:
    inside = {name: ".".join(name.split(".")[:3]) for name in GRAPH if name.startswith("holitom.methods.")}
    across = [f"{a} -> {b}" for a in inside for b in GRAPH[a] if b in inside and inside[a] != inside[b]]
    assert len(set(inside.values())) >= 11
    assert set(across) == BORROWED


@pytest.mark.parametrize(
    "source",
    [
        "from eval.report.sheets import table",
        "def late():\n    from eval.report import sheets",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from eval.report.sheets import Sheet",
    ],
)
def test_the_net_catches_an_arrow_back_up_and_a_circle(source: str) -> None:
    sources = {"eval.claims.judging": source, "eval.report.sheets": "import eval.claims.judging", "eval.report": ""}
    graph = graph_of(sources)
    assert strays(graph) == ["eval.claims.judging -> eval.report.sheets"]
    assert set(circle(graph)) == {"eval.claims.judging", "eval.report.sheets"}


def test_no_module_takes_a_name_of_the_standard_library() -> None:
    names = {name: name.rpartition(".")[2] for name in FILES}
    assert [name for name, last in names.items() if last in sys.stdlib_module_names - {"__main__"}] == []


def test_flat_in_eval_lies_nothing() -> None:
    assert sorted(path.name for path in (ROOT / "eval").glob("*.py")) == ["__init__.py", "__main__.py"]


def test_shapes_are_checked_in_every_module_of_pure_functions() -> None:
    assert {"holitom.ops.similarity", "holitom.methods.holitom.outer", "holitom.methods.fastvid.anchors"} <= set(
        MODULES
    )
    with pytest.raises(TypeCheckError):
        similarity_and_norms(rand(4, 5))


def writes_kernels(path: Path) -> bool:
    """Modules of Triton kernels import triton at the top; nobody else may import them there."""
    return path.parent == ROOT / "holitom/ops/kernels" and path.stem != "__init__"


@pytest.mark.parametrize("package", PACKAGES)
def test_kernels_are_found_by_the_functions_that_ask_and_imported_by_nobody(package: str) -> None:
    kernels = {name for name in FILES if name.startswith("holitom.ops.kernels.")}
    for path in sorted((ROOT / package).rglob("*.py")):
        assert not GRAPH[module_name(path)] & kernels or writes_kernels(path), path


@pytest.mark.parametrize("package", PACKAGES)
def test_optional_packages_are_imported_lazily(package: str) -> None:
    for path in sorted((ROOT / package).rglob("*.py")):
        if writes_kernels(path):
            continue
        tree = ast.parse(path.read_text())
        lazy = [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.If)]
        top = {name.split(".")[0] for node in lazy for name in imported_names(node)}
        assert not top & OPTIONAL, path
