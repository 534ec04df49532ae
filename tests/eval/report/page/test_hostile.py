"""Hostile results: nothing of them becomes markup."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eval.report.page.charts import plain
from eval.report.page.render import embedded
from tests.eval.benchmarks.made_results import share, write_run
from tests.eval.report.page.made import (
    HOSTILE,
    MODEL,
    TINY,
    Page,
    built,
    claim,
    claims,
    full_folder,
    latency,
    record,
    tiny,
    write_json,
)


def harmless(page: Page, clean: Page) -> None:
    """No element or attribute of the page that a page of plain names lacks."""
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in clean.tags}
    names = {name for _, found in page.tags for name in found}
    assert names <= {name for _, found in clean.tags for name in found}
    assert not [name for name in names if name.startswith("on")]


def hostile_folder(root: Path, text: str) -> Path:
    """Every text that a result can bring, replaced by ``text``; file and folder names too as far as they can be."""
    name = text.replace("/", "").replace("\u2028", "")[:60]
    found = claim("c", "partly", claim=text, source=text, why=text, needs=text, paper={text: 1.0, "b": 2},
                  ours={text: text}, difference=text,
                  evidence=dict.fromkeys(("command", "commit", "device", "file"), text))  # fmt: skip
    write_json(root / "claims.json", claims({**found, "id": text}, commit=text, device=text, torch=text))
    rows = {**TINY, text: (0.5, 0.5)}
    table = tiny(
        rows, notice=text, split=text, duels={f"{text} - b": {"difference": 0, "low": 0, "high": 0, "verdict": text}}
    )
    for row in table["rows"].values():
        row["families"] = {text: 0.5}
        row["verdict"] = text
    table["ablations"] = {
        text: {"title": text, "points": {text: {"changes": [f"{text.replace('=', '')}={json.dumps(text)}"]}}}
    }
    write_json(
        root / name / f"{name}.json", record(table, command=text, commit=text, device=text, date=text, torch=text)
    )
    data = latency(command=text, device=text, commit=text)
    data["result"] |= {"geometry": f"onevision 7b {text}", "dtype": text, "attention": text}
    for row in data["result"]["rows"]:
        row["config"] = text
    write_json(root / "latency.json", data)

    def spoil(samples: list[dict[str, Any]]) -> None:
        for sample in samples:
            sample |= dict.fromkeys(("prompt", "video", "target", "answer", "subtask", "task"), text)
            sample |= {"options": [text, text]}

    folder = write_run(root / "run" / name, f"{MODEL}/vanilla", {"videomme": share(6, 3)}, fixture=True, samples=spoil)
    result = json.loads((folder / "result.json").read_text())
    result["tasks"] = {text: {"questions": 6}}
    result |= {"commit": text, "versions": {"torch": text}, "times": {"finished": text}}
    result["setup"] |= {"device": text, "tasks": [text]}
    write_json(folder / "result.json", result)
    (root / f"{name}.json").write_text(f"{text} is no JSON", encoding="utf-8")
    return root


def test_nothing_in_a_result_becomes_markup(tmp_path: Path) -> None:
    clean, _ = built(full_folder(tmp_path / "clean"))
    (tmp_path / "hostile").mkdir()
    page, sources = built(hostile_folder(tmp_path / "hostile", HOSTILE))
    harmless(page, clean)
    assert "window.hit" in page.text  # it is shown, as text
    assert "<b>bold</b>" in page.text
    assert "{{ 7*7 }}" in page.text
    assert "<b>bold" not in page.source
    # only the file that is no JSON is damaged: nothing hostile was left out of the page by being refused
    assert len(sources.problems) == 1
    assert "is no JSON" in sources.problems[0].reason
    for kind in ("claims-table", "evidence-table", "rehearsal-runs", "problem-table"):
        assert page.tables[kind]
    assert [link for link in page.links if not link.startswith("#")] == ["data:,"]
    [packed] = [found for found in page.data["browser-data"] if "rehearsal" in found["title"]]
    assert packed["questions"][0][1:3] == [HOSTILE, HOSTILE]
    assert packed["questions"][0][4:] == [[HOSTILE, HOSTILE], HOSTILE]
    assert packed["runs"]["vanilla"]["text"] == [HOSTILE] * 6


def test_json_inside_a_script_cannot_end_it() -> None:
    value = {"a": HOSTILE, "b": [float("nan"), float("inf"), 1.5, None], "<!--": "]]>"}
    text = embedded(value)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": HOSTILE, "b": [None, None, 1.5, None], "<!--": "]]>"}


def test_chart_labels_are_text() -> None:
    assert plain("<a href='javascript:x'>y</a>") == "&lt;a href='javascript:x'&gt;y&lt;/a&gt;"
    assert plain("a & b") == "a &amp; b"


def test_labels_in_charts_are_escaped(tmp_path: Path) -> None:
    page, _ = built(hostile_folder(tmp_path, HOSTILE))
    charts = json.dumps({name: spec for name, spec in page.data.items() if name.endswith("-spec")})
    assert "window.hit" in charts
    assert "<script" not in charts
    assert "<b>" not in charts
