"""The small SVG looks like matplotlib's: the pixels of a browser, and the texts."""

from __future__ import annotations

import base64
import html
import io
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from eval.report.page import charts
from eval.report.page.blocks import Chart
from eval.report.page.charts import Series, curves, stacked
from eval.report.page.svg import small_svg, svg_address
from tests.eval.report.page.made import HOSTILE

NAMES = ["holitom", "vanilla", "dycoke", f"{HOSTILE} & 'ünïcode' \U0001f600 100 %", "a \x01 $b$", "#"]


def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Chart]]:
    """Charts with every marker, hatch and dash, and matplotlib's own text of each."""
    raw: list[str] = []

    def kept(text: str) -> str:
        raw.append(text)
        return small_svg(text)

    monkeypatch.setattr(charts, "small_svg", kept)
    lines = [
        Series(name, [1, 2, 3.5], [place + 0.1, None, 2 * place + 0.7], [0.1, None, 0.3], dashed=place % 2 == 1)
        for place, name in enumerate(NAMES)
    ]
    made = [
        curves("one", HOSTILE, lines, ("x < 1", "y"), "said", (1.0, 0.2, "band")),
        stacked("two", "bars", NAMES, {name: [1.5, 2, None, 4, 5, 6] for name in NAMES}, "seconds", "said"),
    ]
    return list(zip(raw, made, strict=True))


def pixels(page: Any, address: str) -> np.ndarray:
    page.set_content(f'<body style="margin:0"><img style="width:680px;display:block" src="{html.escape(address)}">')
    page.wait_for_function("document.images[0].complete && document.images[0].naturalWidth > 300")
    shot = page.locator("img").screenshot()
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)


def test_the_pixels_stay_and_the_bytes_go(browser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    page = browser.new_page(viewport={"width": 700, "height": 900})
    for raw, chart in drawn(monkeypatch):
        before = pixels(page, "data:image/svg+xml;base64," + base64.b64encode(raw.encode()).decode())
        after = pixels(page, chart.source)
        assert before.shape == after.shape
        assert before.std() > 10
        difference = np.abs(before - after).max(-1)
        assert difference.mean() < 0.1
        assert (difference > 60).mean() < 1e-3
        assert len(chart.source) < 0.6 * len(raw)  # that is 0.45 of its base64
        assert html.escape(chart.source) == chart.source  # nothing in it that HTML would lengthen
    page.close()


def test_the_texts_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    for raw, chart in drawn(monkeypatch):
        texts = [
            [element.text for element in ElementTree.fromstring(text).iter() if element.tag.endswith("}text")]
            for text in (raw, unquote(chart.source.removeprefix("data:image/svg+xml,")))
        ]
        assert texts[0] == texts[1]
        assert "a \ufffd $b$" in texts[0]
        assert svg_address(small_svg(raw)) == chart.source
