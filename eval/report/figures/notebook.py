"""Runs the code cells of a notebook in one namespace, in order, and writes what they print and show into it.

    python -m eval.report.figures.notebook notebooks/holitom_step_by_step.ipynb

For notebooks without magic commands; no Jupyter is needed. A cell's last expression is shown as PNG where it has
``_repr_png_``, else as text. The same code and machine give the same bytes.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.instruments.cli import Parser, user_errors
from eval.instruments.record import write_whole
from llava.errors import InputError


def executed(notebook: dict[str, Any]) -> dict[str, Any]:
    """A copy of a notebook with the outputs of its code cells.

    Args:
        notebook: of format 4, as ``json.load`` gives it.

    Raises:
        InputError: it is of another format.
        Exception: what a cell raises, as it is.
    """
    if notebook.get("nbformat") != 4:
        raise InputError(f"the notebook's format is {notebook.get('nbformat')!r}; it must be 4")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    cells = []
    count = 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            count += 1
            outputs = _outputs("".join(cell["source"]), namespace, count)
            cell = {**cell, "execution_count": count, "outputs": outputs}
        cells.append(cell)
    return {**notebook, "cells": cells}


def _outputs(source: str, namespace: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """What one cell prints, and its last expression."""
    tree = ast.parse(source, f"cell {count}")
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    said = io.StringIO()
    value = None
    with contextlib.redirect_stdout(said):
        exec(compile(tree, f"cell {count}", "exec"), namespace)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), f"cell {count}", "eval"), namespace)
    outputs: list[dict[str, Any]] = []
    if said.getvalue():
        text = said.getvalue().splitlines(keepends=True)
        outputs.append({"name": "stdout", "output_type": "stream", "text": text})
    if value is not None:
        data: dict[str, Any] = {"text/plain": [repr(value)]}
        if hasattr(value, "_repr_png_"):
            data["image/png"] = base64.b64encode(value._repr_png_()).decode("ascii")
        outputs.append({"data": data, "execution_count": count, "metadata": {}, "output_type": "execute_result"})
    return outputs


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("notebook", type=Path)
    path = parser.parse_args(arguments).notebook
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no readable notebook ({error})") from None
    found = executed(notebook)
    text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    write_whole(path, text)
    print(json.dumps({"notebook": str(path), "cells": len(found["cells"]), "bytes": len(text.encode())}))


if __name__ == "__main__":
    main()
