"""The commands of a package by name, each with the first line of its manual; nothing of them is imported."""

import ast
from collections.abc import Iterator
from pathlib import Path

from eval import HOME, PACKAGE

_GUARD = 'if __name__ == "__main__":'


def commands(package: str) -> Iterator[tuple[str, str]]:
    """Name for ``python -m`` and first line of every program below a package, the package itself left out."""
    package = package.replace("eval", PACKAGE, 1)  # as it is called here
    for path in sorted(Path(HOME, package.replace(".", "/")).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        name = ".".join(path.relative_to(HOME).with_suffix("").parts).removesuffix(".__main__")
        if f"\n{_GUARD}" in text and name != package:
            yield name, (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]


def show_commands(package: str) -> None:
    """Print them, one a line."""
    found = list(commands(package))
    width = max(len(name) for name, _ in found)
    for name, line in found:
        print(f"python -m {name:<{width}}  {line}")
