"""A browser for the page, a page to open in it, and what the page said and asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from eval.report.__main__ import make_page
from eval.report.page.samples import RunAnswers, SampleSet
from eval.report.page.sources import read_sources
from tests.browsers import chromium
from tests.eval.report.page.made import ROOT, full_folder, record, write_json

MANY = 5000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One headless Chromium for a module."""
    with chromium() as running:
        yield running


@dataclass
class Opened:
    """An open page with everything it said and asked for."""

    page: Any
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def texts(self, selector: str) -> list[str]:
        return [" ".join(text.split()) for text in self.page.locator(selector).all_inner_texts()]


def many_samples() -> SampleSet:
    """5,000 questions with the answers of three methods, told from their numbers."""
    questions = [
        {"id": f"q{place}", "task": f"kind {place % 5}", "video": f"{place}.mp4", "text": f"What is number {place}?",
         "options": ["A. one", "B. two"], "target": "AB"[place % 2]}
        for place in range(MANY)
    ]  # fmt: skip
    runs = {}
    for number, name in enumerate(("vanilla", "holitom_r10", "random_r10"), start=1):
        right: list[bool | None] = [place % (number + 1) != 0 for place in range(MANY)]
        text: list[str | None] = [f"{place % 7}" for place in range(MANY)]
        runs[name] = RunAnswers(text, right, [1000 // number] * MANY, [500 // number] * MANY)
    return SampleSet("many questions", questions, [True] * MANY, runs, "an instrument")


@dataclass(frozen=True)
class OwnPage:
    """The page of the results that are committed.

    Attributes:
        text: of the page.
        problems: what it says is damaged.
        touched: files and folders of the results that are not as they were before it was made.
    """

    text: str
    problems: list[str]
    touched: list[str]


def changes_of(folder: Path) -> dict[str, int]:
    """When each file and folder was last changed."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture(scope="session")
def own_page(shared_folder: Path) -> OwnPage:
    """Made once for all tests and processes: five seconds."""
    path = shared_folder / "own_page.json"
    with FileLock(shared_folder / "own_page.lock"):
        if not path.exists():
            before = changes_of(ROOT / "results")
            sources = read_sources(ROOT / "results")
            text = make_page(sources)[0]
            after = changes_of(ROOT / "results")
            touched = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
            problems = [str(problem) for problem in sources.problems]
            path.write_text(json.dumps({"text": text, "problems": problems, "touched": touched}), encoding="utf-8")
    return OwnPage(**json.loads(path.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def made_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = full_folder(tmp_path_factory.mktemp("results"))
    sets = {"sets": {"absent": many_samples().packed()}}
    write_json(root / "tiny" / "answers.json", record(sets, "answers"))
    path = tmp_path_factory.mktemp("report") / "index.html"
    sources = read_sources(root)
    path.write_text(make_page(sources)[0], encoding="utf-8")
    assert not sources.problems
    return path


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[..., Opened]]:
    """Open a page; at the end it must have said nothing and asked for nothing but itself."""
    contexts, pages = [], []

    def start(path: Path, width: int = 1280, **more: Any) -> Opened:
        context = browser.new_context(viewport={"width": width, "height": 900}, **more)
        contexts.append(context)
        found = Opened(context.new_page())
        pages.append(found)
        found.page.on("console", lambda message: found.said.append(f"{message.type}: {message.text}"))
        found.page.on("pageerror", lambda error: found.said.append(str(error)))
        found.page.on("request", lambda request: found.asked.append(request.url))
        found.page.goto(path.as_uri())
        found.page.evaluate("document.querySelectorAll(`details`).forEach(part => { part.open = true; })")
        return found

    yield start
    for found in pages:
        assert not found.said
        assert all(url.startswith(("file:", "data:", "blob:")) for url in found.asked)
    for context in contexts:
        context.close()
