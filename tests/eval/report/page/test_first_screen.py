"""What a reader sees without scrolling sideways: the cards, and verdict, claim and ours of the first rows."""

from pathlib import Path

from eval.report.__main__ import make_page
from eval.report.page.first_screen import ABSTRACT
from eval.report.page.sources import read_sources
from tests.browsers import chromium

ROOT = Path(__file__).resolve().parents[4]
OUTSIDE = """(width) => [...document.querySelectorAll('#claims-table tbody tr')].slice(0, 20).flatMap(row =>
  [...row.cells].slice(0, 3).filter(cell => {
    const box = cell.getBoundingClientRect();
    return box.left < 0 || box.right > width || box.width < 10;
  }).map(cell => cell.textContent))"""
HEADS = "[...document.querySelectorAll('#claims-table .titles th')].slice(0, 3).map(cell => cell.textContent.trim())"


def test_claim_ours_and_verdict_are_in_view(tmp_path: Path) -> None:
    text, _ = make_page(read_sources(ROOT / "results"), 0)
    path = tmp_path / "index.html"
    path.write_text(text, encoding="utf-8")
    with chromium() as browser:
        for width in (1440, 768, 390):
            page = browser.new_page(viewport={"width": width, "height": 900})
            page.goto(path.as_uri())
            assert page.evaluate(HEADS) == ["verdict", "claim", "ours"]
            assert page.locator("#claims-table tbody tr").count() > 20
            assert page.evaluate(OUTSIDE, width) == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.locator(".cards li").count() == len(ABSTRACT)
            page.close()
