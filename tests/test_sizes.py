"""How long files and functions may be: a file of at most 300 lines, a function of at most 45 without its docstring."""

import ast
from collections.abc import Iterator

from tests.test_layers import FILES

FILE, FUNCTION = 300, 45
# what may be longer, and why
EXCEPTIONS = {"eval.benchmarks.run.parser": "a list of options, each described once"}


def function_lengths(module: str, source: str) -> Iterator[tuple[str, int]]:
    """Every function, methods and inner ones too, with the lines from its first statement behind the docstring on."""
    todo: list[tuple[str, ast.AST]] = [(module, ast.parse(source))]
    while todo:
        name, node = todo.pop()
        for child in ast.iter_child_nodes(node):
            inside = f"{name}.{child.name}" if isinstance(child, ast.FunctionDef | ast.ClassDef) else name
            todo.append((inside, child))
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                body = child.body if ast.get_docstring(child, clean=False) is None else child.body[1:]
                yield f"{name}.{child.name}", (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def too_long(sources: dict[str, str], file: int = FILE, function: int = FUNCTION) -> dict[str, int]:
    """Files and functions that are longer than they may be."""
    lengths = {name: len(source.splitlines()) for name, source in sources.items()}
    found = {name: length for name, length in lengths.items() if length > file}
    for name, source in sources.items():
        found |= {one: length for one, length in function_lengths(name, source) if length > function}
    return found


def test_files_and_functions_are_short() -> None:
    found = too_long({name: path.read_text() for name, path in FILES.items()})
    assert set(found) == set(EXCEPTIONS), found


def test_the_measure_leaves_docstrings_out_and_sees_what_is_inside() -> None:
    source = '''
class Large:
    def method(self):
        """One.

        Two.
        """
        first = 1

        def inner():
            return (
                first
            )

        return inner


async def later():
    """Only this."""
'''
    assert dict(function_lengths("m", source)) == {"m.Large.method": 8, "m.Large.method.inner": 3, "m.later": 0}
    assert too_long({"m": source}, file=18, function=7) == {"m": 19, "m.Large.method": 8}
    assert too_long({"m": source}, file=19, function=8) == {}
