"""The notebook runs, says today what its committed outputs say, and is small."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from eval.report.figures.notebook import executed, main
from llava.errors import InputError

NOTEBOOK = Path(__file__).resolve().parents[3] / "notebooks" / "holitom_step_by_step.ipynb"


def outputs(notebook: dict[str, Any]) -> list[tuple[list[str], bool]]:
    """Of each code cell, what it says and whether it shows a picture."""
    found = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            parts = cell["outputs"]
            said = [line for part in parts for line in part.get("text", part.get("data", {}).get("text/plain", []))]
            found.append((said, any("image/png" in part.get("data", {}) for part in parts)))
    return found


def test_outputs_are_those_of_today() -> None:
    kept = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert len(NOTEBOOK.read_bytes()) < 600_000
    shown = outputs(kept)
    assert sum(picture for _, picture in shown) == 5
    assert sum(len(said) for said, _ in shown) > 20
    assert outputs(executed(kept)) == shown
    for cell in kept["cells"]:
        for part in cell.get("outputs", []):
            if "image/png" in part.get("data", {}):
                assert Image.open(io.BytesIO(base64.b64decode(part["data"]["image/png"]))).width == 960


def test_a_cell_that_fails_and_other_formats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cell = {"cell_type": "code", "metadata": {}, "source": ["x = 1\n", "print(x)\n", "x + 1"]}
    made = executed({"nbformat": 4, "cells": [cell, {**cell, "source": ["print(x + 4);"]}]})
    assert outputs(made) == [(["1\n", "2"], False), (["5\n"], False)]
    with pytest.raises(ZeroDivisionError):
        executed({"nbformat": 4, "cells": [{**cell, "source": ["1 / 0"]}]})
    with pytest.raises(InputError, match="format is 3"):
        executed({"nbformat": 3, "cells": []})
    (tmp_path / "x.ipynb").write_text("{")
    with pytest.raises(SystemExit):
        main([str(tmp_path / "x.ipynb")])
    assert "no readable notebook" in capsys.readouterr().err
