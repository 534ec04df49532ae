"""One word, one meaning: no two public classes of the product have one name."""

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping

from tests.test_layers import FILES

# ``holitom`` works without ``llava``: where it is absent, ``holitom.errors`` defines the errors of ``llava.errors``.
STAND_INS = {"CheckpointError", "InputError"}


def public_classes(source: str) -> Iterator[str]:
    """Names of the classes at the top of a module, those under a condition included."""
    todo: list[ast.stmt] = list(ast.parse(source).body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name
        elif isinstance(node, ast.If):
            todo += [*node.body, *node.orelse]
        elif isinstance(node, ast.Try):
            todo += [*node.body, *node.orelse, *(one for handler in node.handlers for one in handler.body)]


def shared_names(sources: Mapping[str, str]) -> dict[str, list[str]]:
    """Class names that more than one module defines, with those modules."""
    found: dict[str, list[str]] = defaultdict(list)
    for module, source in sources.items():
        for name in public_classes(source):
            found[name].append(module)
    return {name: modules for name, modules in found.items() if len(modules) > 1}


SHARED = shared_names({module: path.read_text() for module, path in FILES.items()})


def test_a_class_name_is_taken_once() -> None:
    assert {name: at for name, at in SHARED.items() if name not in STAND_INS} == {}


def test_what_holitom_and_llava_call_something_they_call_it_once() -> None:
    lower = {name: [one for one in at if not one.startswith("eval.")] for name, at in SHARED.items()}
    assert {name for name, at in lower.items() if len(at) > 1} == STAND_INS


def test_the_net_sees_a_second_class_wherever_it_stands() -> None:
    first = "class Stage: ...\nclass _Call: ...\n"
    conditional = "if True:\n    pass\nelse:\n    class Stage: ...\n"
    tried = "try:\n    import x\nexcept ImportError:\n    class Stage: ...\n"
    for second in ("class Stage(int): ...", conditional, tried):
        assert shared_names({"a": first, "b": second, "c": "class _Call: ..."}) == {"Stage": ["a", "b"]}
    assert shared_names({"a": first, "b": "class Place: ...\ndef f():\n    class Stage: ..."}) == {}
