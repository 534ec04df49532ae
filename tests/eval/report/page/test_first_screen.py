"""What a reader sees without scrolling sideways: the cards, the counts, the surprises, and the first rows of claims."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eval.claims.catalogue import all_claims
from eval.claims.judging import ACCURACY, ARITHMETIC, KINDS, RULE, SPEED
from eval.report.page.first_screen import ABSTRACT, UNKNOWN_KIND, first_screen, kind_of_claim, surprises
from eval.report.page.render import TEMPLATES
from eval.report.page.sources import read_sources
from tests.eval.report.page.conftest import OwnPage
from tests.eval.report.page.made import claim, claims, write_json

ROOT = Path(__file__).resolve().parents[4]
OUTSIDE = """(width) => [...document.querySelectorAll('#claims-table tbody tr')].slice(0, 20).flatMap(row =>
  [...row.cells].slice(0, 3).filter(cell => {
    const box = cell.getBoundingClientRect();
    return box.left < 0 || box.right > width || box.width < 10;
  }).map(cell => cell.textContent))"""
HEADS = "[...document.querySelectorAll('#claims-table .titles th')].slice(0, 3).map(cell => cell.textContent.trim())"
# of every table that scrolls: where its first two cells stand before and behind scrolling to its end
HELD = """() => [...document.querySelectorAll('.sheet .scroll')].filter(box => box.scrollWidth > box.clientWidth + 40)
  .map(box => {
    const cells = [...box.querySelector('tbody tr').cells].slice(0, 2);
    const left = element => element.getBoundingClientRect().left;
    const place = () => cells.map(cell => Math.round(left(cell) - left(box)));
    const before = place();
    box.scrollLeft = 9999;
    return [box.parentElement.id, before, place(), box.clientWidth, cells.map(cell => cell.offsetWidth)];
  })"""


@pytest.fixture(scope="module")
def own_file(tmp_path_factory: pytest.TempPathFactory, own_page: OwnPage) -> Path:
    """The page of the committed results."""
    path = tmp_path_factory.mktemp("own") / "index.html"
    path.write_text(own_page.text, encoding="utf-8")
    return path


@pytest.fixture(params=[1440, 768, 390])
def seen(request: pytest.FixtureRequest, browser: Any, own_file: Path) -> Iterator[tuple[int, Any]]:
    page = browser.new_page(viewport={"width": request.param, "height": 900})
    page.goto(own_file.as_uri())
    yield request.param, page
    page.close()


def test_claim_ours_and_verdict_are_in_view(seen: tuple[int, Any]) -> None:
    width, page = seen
    assert page.evaluate(HEADS) == ["verdict", "claim", "ours"]
    assert page.locator("#claims-table tbody tr").count() > 20
    assert page.evaluate(OUTSIDE, width) == []
    assert page.locator(".cards li").count() == len(ABSTRACT)
    if width == 1440:  # cards and counts need no scrolling at all
        assert page.evaluate("document.querySelector('#kinds-table table').getBoundingClientRect().bottom") < 900


def test_only_tables_scroll_and_their_first_columns_stay(seen: tuple[int, Any]) -> None:
    width, page = seen
    page.evaluate("document.querySelectorAll(`details`).forEach(part => { part.open = true; })")
    page.wait_for_timeout(100)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    held = page.evaluate(HELD)
    assert len(held) >= 3
    for name, before, after, room, widths in held:
        assert after[0] == before[0], name
        if sum(widths) <= 0.7 * room or name == "claims-table":
            assert after[1] == before[1], name
    assert any(after[1] == before[1] for name, before, after, *_ in held if name != "claims-table")


def test_every_claim_says_its_kind() -> None:
    kinds = {claim.identity: claim.kind for claim in all_claims()}
    assert set(kinds.values()) == set(KINDS)
    some = {"accuracy-99.1": ACCURACY, "ttft-2.28": SPEED, "flops-6.9": ARITHMETIC, "rule-outer": RULE,
            "tiny-guard": ACCURACY, "figure-decode-fastv": SPEED, "release-dpc": RULE}  # fmt: skip
    assert {name: kinds[name] for name in some} == some


def test_counts_follow_the_records_kinds(tmp_path: Path) -> None:
    made = [{**claim("flops-6.9", "reproduced"), "kind": "speed"}, claim("tokens-90", "partly"), claim("new", "partly")]
    write_json(tmp_path / "claims.json", claims(*made))
    assert [kind_of_claim(one) for one in made] == [SPEED, ARITHMETIC, UNKNOWN_KIND]
    *_, counts = first_screen(read_sources(tmp_path)).blocks
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in counts.rows}  # type: ignore[union-attr]
    assert rows[SPEED] == ["1", "0", "0", "0", "0"]
    assert rows[UNKNOWN_KIND] == rows[ARITHMETIC] == ["0", "1", "0", "0", "0"]
    assert rows[RULE] == ["0"] * 5


def test_counts_of_the_committed_claims_leave_none_out() -> None:
    records = json.loads((ROOT / "results" / "claims.json").read_text())["claims"]
    *_, counts = first_screen(read_sources(ROOT / "results")).blocks
    shown = [sum(int(row[place].text) for row in counts.rows) for place in range(1, 6)]  # type: ignore[union-attr]
    found = Counter(record["verdict"] for record in records)
    assert shown == [found[column.title] for column in counts.columns[1:]]  # type: ignore[union-attr]
    assert {row[0].text for row in counts.rows} == set(KINDS)  # type: ignore[union-attr]


def test_surprises_say_the_numbers_of_their_records() -> None:
    sources = read_sources(ROOT / "results")
    [block] = surprises(sources).blocks
    facts = {source: (number, sentence) for number, sentence, source in block.facts}  # type: ignore[union-attr]
    known = {record["id"]: record for record in json.loads((ROOT / "results" / "claims.json").read_text())["claims"]}
    everything = known["flops-6.9-everything"]
    number, sentence = facts[everything["evidence"]["command"]]
    assert number == "{:.2f} % and {:.2f} %".format(*everything["ours"].values())
    assert "6.9 %" in sentence
    number, sentence = facts["configs/llava_onevision_72b/holitom_r15.yaml"]
    tflops = [known[f"table2-ov-72b-flops-holitom{name}-r15"]["ours"]["TFLOPs"] for name in ("-without-inner", "")]
    assert number == "{:.1f} instead of {:.1f} TFLOPs".format(*tflops)
    assert "inner stage" in sentence
    decoding = json.loads((ROOT / "results/cpu/bench_decode.json").read_text())["result"]["rows"]
    ratios = next(row for row in decoding if row["config"] == "holitom_r10")["against_vanilla"]
    assert all(f"{ratio:.2f}x {name}" in facts["cpu/bench_decode.json"][0] for name, ratio in ratios.items() if ratio)
    scores = json.loads((ROOT / "results/tiny/ablations.json").read_text())["result"]["rows"]
    for causal, layer in (("true", 2), ("false", 5)):
        score = 100 * scores[f"holitom_r15,inner.causal={causal},inner.merge_layer={layer}"]["score"]
        assert f"{score:.1f} %" in facts["tiny/ablations.json"][0]
    assert not sources.problems


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_contrast_of_every_text() -> None:
    """At least 4.5 to 1 (WCAG 2.2, 1.4.3) for each ink on what it stands on."""
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]+);", (TEMPLATES / "page.css").read_text()))
    pairs = [(ink, ground) for ink in ("ink", "soft", "link") for ground in ("white", "wash", "part-wash", "bad-wash")]
    pairs += [(tone, f"{tone}-wash") for tone in ("good", "bad", "part", "open")]
    for ink, ground in pairs:
        light, dark = luminance({**colours, "white": "#fff"}[ground]), luminance(colours[ink])
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, ground)
