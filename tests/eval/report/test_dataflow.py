"""The figure of the data flow: its stages stand in order, its counts are those of the paper's table, light and dark."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

FIGURE = Path(__file__).resolve().parents[3] / "docs" / "dataflow.svg"
SVG = "{http://www.w3.org/2000/svg}"
FRAMES, TOKENS = 32, 196


def test_stages_counts_and_both_schemes() -> None:
    root = ElementTree.parse(FIGURE).getroot()
    stages = root.findall(f"{SVG}g")
    assert [stage.get("id") for stage in stages] == ["video", "tower", "projector", "outer", "llm"]
    places = [float(stage.find(f"{SVG}rect").get("x")) for stage in stages]  # type: ignore[union-attr, arg-type]
    assert places == sorted(places)
    kept = FRAMES * math.ceil(0.15 * TOKENS)
    counts = [text.text for text in root.iter(f"{SVG}text") if text.get("class") == "count"]
    assert counts == [f"{FRAMES * TOKENS:,} tokens", f"{kept} at 15 %", f"{kept // 2} from layer 18 of 28"]
    assert root.find(f"{SVG}title") is not None
    assert root.find(f"{SVG}desc") is not None
    style = str(root.find(f"{SVG}style").text)  # type: ignore[union-attr]
    light, dark = style.split("@media (prefers-color-scheme: dark)")
    for name in ("ground", "box", "own", "text", "small", "count", "line", "side"):
        assert name in light
        assert name in dark
