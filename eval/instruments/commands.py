"""The commands of a package by name, each with the first line of its manual; nothing of them is imported."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_GUARD = 'if __name__ == "__main__":'


def commands(package: str) -> Iterator[tuple[str, str]]:
    """Name for ``python -m`` and first line of every program below a package, the package itself left out."""
    for path in sorted((ROOT / package.replace(".", "/")).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
        if f"\n{_GUARD}" in text and name != package:
            yield name, (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]


def show_commands(package: str) -> None:
    """Print them, one a line."""
    found = list(commands(package))
    width = max(len(name) for name, _ in found)
    for name, line in found:
        print(f"python -m {name:<{width}}  {line}")
