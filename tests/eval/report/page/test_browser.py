"""The page in a real browser: sorting, filtering, sample browser, keyboard, a phone's width, printing; no request."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eval.report.__main__ import make_page
from eval.report.page.samples import RunAnswers
from eval.report.page.sources import read_sources
from tests.eval.benchmarks.made_results import share, write_run
from tests.eval.report.page.conftest import Opened, many_samples
from tests.eval.report.page.made import HOSTILE, MODEL, TINY, record, write_json
from tests.eval.report.page.test_hostile import hostile_folder
from tests.eval.report.page.test_token_maps import saved


def column(opened: Opened, table: str, place: int) -> list[str]:
    return opened.texts(f'table[data-sheet="{table}"] tbody tr:not([hidden]) > :nth-child({place})')


def test_no_error_no_request_and_charts_are_drawn(opened: Callable[..., Opened], made_page: Path) -> None:
    found = opened(made_page)
    charts = found.page.locator(".plot").count()
    assert charts >= 6
    drawn = (
        "[...document.querySelectorAll('.plot')].every(plot => plot.complete && plot.naturalWidth > 300 && plot.alt)"
    )
    assert found.page.evaluate(drawn)
    assert [url for url in found.asked if url != made_page.as_uri()] in ([], ["data:,"])


def test_sorting_by_mouse_and_keyboard(opened: Callable[..., Opened], made_page: Path) -> None:
    found = opened(made_page)
    table = "tiny--main"
    heading = found.page.locator(f'table[data-sheet="{table}"] .titles th >> nth=1')
    assert heading.get_attribute("aria-sort") is None
    heading.locator("button").click()
    ascending = sorted(TINY, key=lambda name: TINY[name][0])
    assert column(found, table, 1) == ascending
    assert heading.get_attribute("aria-sort") == "ascending"
    heading.locator("button").focus()
    found.page.keyboard.press("Enter")
    assert column(found, table, 1) == ascending[::-1]
    assert heading.get_attribute("aria-sort") == "descending"
    name = found.page.locator(f'table[data-sheet="{table}"] .titles th >> nth=0')
    name.locator("button").focus()
    found.page.keyboard.press("Space")
    assert column(found, table, 1) == sorted(TINY)
    assert heading.get_attribute("aria-sort") is None
    assert "Sorted by run, ascending" in found.page.locator("#status").inner_text()


def test_numbers_sort_as_numbers_and_missing_ones_stand_last(opened: Callable[..., Opened], made_page: Path) -> None:
    found = opened(made_page)
    place = found.texts('table[data-sheet="main"] .titles th').index("VideoMME: paper") + 1
    button = found.page.locator(f'table[data-sheet="main"] .titles th:nth-child({place}) button')
    for sign in (1, -1):
        button.click()
        values = column(found, "main", place)
        numbers = [float(value) for value in values if value != "\u2013"]
        assert numbers == sorted(numbers, reverse=sign < 0)
        assert values[len(numbers) :] == ["\u2013"] * (len(values) - len(numbers))
        assert len(numbers) == 24


def test_filtering(opened: Callable[..., Opened], made_page: Path) -> None:
    found = opened(made_page)
    tools = found.page.locator("#main .tools")
    assert "40 of 40 rows" in tools.inner_text()
    tools.locator("input").fill("holitom w/o")
    assert column(found, "main", 1) == ["HoliTom (w/o M)"] * 4
    assert "4 of 40 rows" in tools.inner_text()
    tools.locator("input").fill("nothing like it")
    assert column(found, "main", 1) == []
    tools.locator("input").fill("")
    assert len(column(found, "main", 1)) == 40


def test_keyboard(opened: Callable[..., Opened], made_page: Path) -> None:
    found = opened(made_page)
    found.page.keyboard.press("Tab")
    skip = "document.activeElement.getBoundingClientRect()"
    assert found.page.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert found.page.evaluate(f"{skip}.left >= 0 && {skip}.width > 50")
    found.page.keyboard.press("Enter")
    assert found.page.evaluate("document.activeElement.id") == "content"
    seen = []
    for _ in range(12):
        found.page.keyboard.press("Tab")
        seen.append(
            found.page.evaluate(
                "[document.activeElement.tagName, getComputedStyle(document.activeElement).outlineStyle]"
            )
        )
    assert ["BUTTON", "solid"] in seen  # headings that sort can be reached, and the focus is seen
    assert all(outline != "none" for _, outline in seen)
    boxes = "[...document.querySelectorAll('.scroll')].map(box => [box.tabIndex, box.getAttribute('role')])"
    assert {tuple(box) for box in found.page.evaluate(boxes)} == {(0, "region")}


@pytest.mark.parametrize("width", [320, 375, 768, 1280])
def test_no_width_scrolls_the_page_sideways(opened: Callable[..., Opened], made_page: Path, width: int) -> None:
    found = opened(made_page, width)
    assert found.page.evaluate("document.documentElement.scrollWidth") == width
    if width == 375:  # tables scroll inside their box
        assert found.page.evaluate(
            "(box => box.scrollWidth > box.clientWidth)(document.querySelector('#main .scroll'))"
        )


def test_prints(opened: Callable[..., Opened], made_page: Path) -> None:
    found = opened(made_page, 794)
    pdf = found.page.pdf(format="A4")
    assert pdf.startswith(b"%PDF")
    assert pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") + pdf.count(b"/Type/Page/") > 3
    found.page.emulate_media(media="print")
    assert not found.page.locator(".tools >> nth=0").is_visible()
    # nothing is cut off: on paper a table is as wide as the page at most
    tables = "[...document.querySelectorAll('.sheet table')]"
    ends = found.page.evaluate(f"{tables}.map(table => [table.dataset.sheet, table.getBoundingClientRect().right])")
    assert [name for name, right in ends if right > 795] == []


def test_without_scripts_the_tables_are_whole(opened: Callable[..., Opened], made_page: Path) -> None:
    found = opened(made_page, java_script_enabled=False)
    assert found.page.locator('table[data-sheet="main"] tbody tr').count() == 40
    assert "Without JavaScript" in found.page.locator("noscript, .notice").all_inner_texts()[0]


def test_hostile_results_run_nothing(opened: Callable[..., Opened], tmp_path: Path) -> None:
    root = hostile_folder(tmp_path / "results", HOSTILE)
    sets = many_samples()
    sets.runs = {HOSTILE: sets.runs["vanilla"]}
    sets.questions = [
        {**question, **dict.fromkeys(("id", "task", "text", "video"), HOSTILE)} for question in sets.questions[:60]
    ]
    run = sets.runs[HOSTILE]
    sets.runs[HOSTILE] = RunAnswers(
        [HOSTILE] * 60, run.right[:60], run.before_llm[:60], run.inside_llm[:60], ["javascript:window.hit=1"] * 60
    )
    sets.scored, sets.title, sets.notice = sets.scored[:60], HOSTILE, HOSTILE
    packed = sets.packed()
    write_json(root / "tiny" / "answers.json", record({"sets": {"absent": packed}}, "answers"))
    path = tmp_path / "index.html"
    path.write_text(make_page(read_sources(root))[0], encoding="utf-8")
    found = opened(path)
    found.page.wait_for_selector("#browser tbody tr")
    for heading in found.page.locator("#browser thead button").all():
        heading.click()
    found.page.locator("#browser select >> nth=0").select_option("1")
    found.page.locator("table[data-sheet] .titles button >> nth=0").click()
    assert found.page.evaluate("window.hit") is None
    assert (
        found.page.locator(
            "img:not(.plot), iframe, main script:not([type='application/json']), main b:not(.tally b)"
        ).count()
        == 0
    )
    links = found.page.evaluate("[...document.querySelectorAll('a')].map(link => link.getAttribute('href'))")
    assert all(link.startswith("#") for link in links)
    hover = found.page.evaluate("[...document.querySelectorAll('svg a')].length")
    assert hover == 0


def test_link_to_a_token_map(opened: Callable[..., Opened], tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", f"{MODEL}/vanilla", {"videomme": share(2, 1)}, fixture=True,
                    samples=lambda found: found[1].update(record="records/videomme-1.npz"))  # fmt: skip
    saved(run / "records" / "videomme-1.npz", method="vanilla")
    path = tmp_path / "index.html"
    path.write_text(make_page(read_sources(tmp_path))[0], encoding="utf-8")
    found = opened(path)
    link = found.page.locator("#browser tbody a")
    assert link.count() == 1
    link.click()
    assert found.page.url.endswith("#map-1")
    assert found.page.evaluate("document.querySelector('#map-1 img').naturalWidth") > 300


def test_a_foreign_script_would_not_run(
    opened: Callable[..., Opened], browser: Any, made_page: Path, tmp_path: Path
) -> None:
    """The policy of the page forbids what the escaping keeps out anyway."""
    text = made_page.read_text(encoding="utf-8").replace(
        "<main", "<script>window.hit=1</script><img src=x onerror='window.hit=2'><main", 1
    )
    path = tmp_path / "spoiled.html"
    path.write_text(text, encoding="utf-8")
    context = browser.new_context()
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(path.as_uri())
    assert page.evaluate("window.hit") is None
    assert any("Content Security Policy" in text for text in said)
    context.close()
