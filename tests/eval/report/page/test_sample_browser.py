"""The sample browser in a real browser: pages, search, filters, sorting, thousands of questions."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from tests.eval.report.page.conftest import MANY, Opened, many_samples


def test_sample_browser(opened: Callable[..., Opened], made_page: Path) -> None:
    found = opened(made_page)
    rows = "#browser tbody tr"
    assert found.page.locator("#browser select >> nth=0").locator("option").all_inner_texts()[0] == "many questions"
    assert found.page.locator(rows).count() == 50
    assert "1 to 50 of 5000 questions" in found.texts("#browser output")
    assert "an instrument" in found.texts("#browser .notice")
    first = found.texts(f"{rows}:first-child > *")
    assert first[:2] == ["q0 0.mp4", "kind 0"]
    assert first[2] == "What is number 0? A. one (right) B. two"
    assert first[3:] == ["✗ wrong 0 1000 → 500 tokens", "✗ wrong 0 500 → 250 tokens", "✗ wrong 0 333 → 166 tokens"]
    found.page.locator("#browser .on").click()
    assert found.texts(f"{rows}:first-child > th") == ["q50 50.mp4"]
    selects = found.page.locator("#browser select")
    selects.nth(1).select_option("kind 3")
    assert "1 to 50 of 1000 questions" in found.texts("#browser output")
    selects.nth(2).select_option("lost")
    lost = [place for place in range(3, MANY, 5) if place % 2 and (place % 3 == 0 or place % 4 == 0)]
    assert f"1 to 50 of {len(lost)} questions" in found.texts("#browser output")
    assert found.texts(f"{rows} > th")[:2] == [f"q{place} {place}.mp4" for place in lost[:2]]
    found.page.locator("#browser input[type=search]").fill(f"NUMBER {lost[-1]}?")
    assert found.texts(f"{rows} > th") == [f"q{lost[-1]} {lost[-1]}.mp4"]
    selects.nth(1).select_option("kind 4")
    assert "no questions" in found.texts("#browser output")
    assert found.texts(f"{rows} > th") == []
    selects.nth(1).select_option("")
    assert found.texts(f"{rows} > th") == [f"q{lost[-1]} {lost[-1]}.mp4"]
    found.page.locator("#browser input[value=random_r10]").uncheck()
    assert len(found.texts("#browser thead th")) == 5


def test_sample_browser_sorts(opened: Callable[..., Opened], made_page: Path) -> None:
    found = opened(made_page)
    heading = found.page.locator("#browser thead th >> nth=0")
    heading.locator("button").click()
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    assert found.texts("#browser tbody th")[:2] == ["q4999 4999.mp4", "q4998 4998.mp4"]
    method = found.page.locator("#browser thead th >> nth=3")
    method.locator("button").focus()
    found.page.keyboard.press("Enter")
    assert found.page.evaluate("document.activeElement.textContent") == "vanilla"  # the focus stays where it was
    assert all(text.startswith("✗ wrong 0") for text in found.texts("#browser tbody td:nth-child(4)"))
    assert method.get_attribute("aria-sort") == "ascending"
    method.locator("button").click()
    assert found.texts("#browser tbody td:nth-child(4)")[0].startswith("✓ right 6")


def test_five_thousand_questions_stay_quick(opened: Callable[..., Opened], made_page: Path) -> None:
    """A page of rows is made at a time, so the number of elements does not grow with the questions."""
    found = opened(made_page)
    assert found.page.locator("#browser tbody tr").count() == 50
    start = time.monotonic()
    for words in ("number 1", "number 12", "number 123", ""):
        found.page.locator("#browser input[type=search]").fill(words)
    found.page.locator("#browser thead button >> nth=3").click()
    assert time.monotonic() - start < 10  # five passes over all questions, on a busy machine


def test_data_of_the_browser_is_the_answers(made_page: Path) -> None:
    text = made_page.read_text(encoding="utf-8")
    start = text.index('id="browser-data">') + len('id="browser-data">')
    sets = json.loads(text[start : text.index("</script>", start)])
    assert sets[0] == json.loads(json.dumps(many_samples().packed()))
