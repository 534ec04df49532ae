"""Hostile, empty, partial and damaged results: none becomes markup, and the page or an error says what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eval.report.__main__ import main
from tests.eval.benchmarks.made_results import share, write_run
from tests.eval.report.page.conftest import OwnPage, changes_of
from tests.eval.report.page.made import (
    MODEL,
    TINY,
    built,
    full_folder,
    record,
    tiny,
    write_json,
)


def test_empty_folder_says_so(tmp_path: Path) -> None:
    page, sources = built(tmp_path)
    assert "Nothing was measured" in page.text
    assert "no claims.json" in page.text
    assert "No answers among the results" in page.text
    assert "Latency: not measured" in page.text
    assert page.tallies[-1]["not measured"] == 104
    assert not sources.problems
    assert "problems" not in page.ids


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.json", "", "is no JSON"),
        ("a.json", "[1, 2]", "is a JSON list, not an object"),
        ("a.json", '{"result": 3}', "lacks command, commit, device, result"),
        ("a.json", '{"result": {}, "command": "x"', "is no JSON"),
        ("a.json", '{"result": {}, "command": ["x"], "commit": "a", "device": "b"}', "lacks command"),
        ("a.json", "[" * 100000, "is no JSON"),
        ("a.json", b"\xff\xfe\x00", "is no JSON"),
        ("claims.json", '{"schema": 2, "claims": []}', "is no claims.json of schema 1"),
        ("claims.json", '{"schema": 1, "claims": {}}', "is no claims.json of schema 1"),
        ("claims.json", '{"schema": 1, "claims": [{"verdict": "proved"}]}', "verdict 'proved' is none of reproduced"),
        ("claims.json", '{"schema": 1, "claims": ["x"]}', "verdict 'x' is none of"),
        ("claims.json", '{"schema": 1, "claims": [{"verdict": "partly"}]}', "lacks 'evidence'"),
        ("run/result.json", "{}", "is absent: the run in"),
        ("run/samples.jsonl", "", "result.json is absent: the run in"),
        ("maps/a.png", "no picture", "is no readable PNG"),
        ("records/a.npz", "no record", "this is no record, or it is damaged"),
    ],
)
def test_damaged_files_are_named_with_the_reason(tmp_path: Path, name: str, text: str | bytes, reason: str) -> None:
    write_json(tmp_path / "tiny" / "main.json", record(tiny(TINY)))
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    page, sources = built(tmp_path)
    [problem] = sources.problems
    assert problem.path.startswith(name.removesuffix("/result.json").removesuffix("/samples.jsonl"))
    assert reason in problem.reason
    assert page.tables["problem-table"][0][0][0] == problem.path
    assert "Some results are damaged or partial" in page.text
    assert len(page.tables["tiny--main"]) == len(TINY)  # what is whole is still there


@pytest.mark.parametrize(
    "spoil",
    [
        lambda result: result["rows"]["vanilla"].pop("score"),
        lambda result: result["rows"]["vanilla"].update(score="high"),
        lambda result: result["rows"]["holitom_r10"].update(families={}),
        lambda result: result["rows"].clear(),
        lambda result: result["rows"].update({name: None for name in result["rows"]}),
        lambda result: result.pop("frames"),
        lambda result: result["duels"].update(x=3),
        lambda result: result["rows"]["vanilla"].update(gflops=0.0),
        lambda result: result.update(rows=[]),
        lambda result: result["rows"]["vanilla"].update(score=10**400),
    ],
)
def test_a_damaged_table_is_left_out_and_named(tmp_path: Path, spoil: Any) -> None:
    result = tiny(TINY)
    spoil(result)
    write_json(tmp_path / "tiny" / "spoiled.json", record(result))
    write_json(tmp_path / "tiny" / "whole.json", record(tiny(TINY)))
    page, sources = built(tmp_path)
    assert "tiny--spoiled" not in page.tables
    assert len(page.tables["tiny--whole"]) == len(TINY)
    assert {problem.path for problem in sources.problems} == {"tiny/spoiled.json"}


@pytest.mark.parametrize(
    "kind",
    [
        "h200/latency_llava-onevision-7b",
        *(f"cpu/{name}" for name in ("bench_methods", "bench_outer", "parity", "stages", "token_counts")),
    ],
)
def test_other_damaged_records_are_named(tmp_path: Path, kind: str) -> None:
    full_folder(tmp_path)
    path = tmp_path / f"{kind}.json"
    data = json.loads(path.read_text())
    rows = data["result"].get("rows")
    if rows:
        rows[0] = {key: None for key in rows[0]}
    else:
        data["result"] = {key: "x" for key in data["result"]}
    path.write_text(json.dumps(data))
    page, sources = built(tmp_path)
    assert {problem.path for problem in sources.problems} == {f"{kind}.json"}
    assert page.tables["tiny--main"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda result: result.pop("retention"),
        lambda result: result.pop("commit"),
        lambda result: result["retention"]["before_llm"].update(mean="x"),
        lambda result: result.update(tasks={"videomme": {"questions": 11}}),
        lambda result: result.update(tasks=None),
        lambda result: result.pop("config"),
        lambda result: result["setup"].update(arguments=[]),
    ],
)
def test_damaged_runs_are_named(tmp_path: Path, spoil: Any) -> None:
    write_run(tmp_path / "good", f"{MODEL}/vanilla", {"videomme": share(12, 8)}, fixture=True)
    folder = write_run(tmp_path / "bad", f"{MODEL}/holitom_r15", {"videomme": share(12, 7)}, fixture=True)
    result = json.loads((folder / "result.json").read_text())
    spoil(result)
    write_json(folder / "result.json", result)
    page, sources = built(tmp_path)
    assert [problem.path for problem in sources.problems] == ["bad"]
    assert [row[0][0] for row in page.tables["rehearsal-runs"]] == [f"{MODEL}/vanilla"]


def test_the_same_point_twice_is_shown_once(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_run(tmp_path / name, f"{MODEL}/vanilla", {"videomme": share(12, 8)}, fixture=True)
    page, sources = built(tmp_path)
    assert [(problem.path, problem.reason) for problem in sources.problems] == [
        ("two", "the same point as one: keep one")
    ]
    assert len(page.tables["rehearsal-runs"]) == 1


def test_halves_of_characters_do_not_stop_the_page(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(
        '{"kind": "other", "version": 1, "result": {}, "command": "\\ud800 half", "commit": "a", "device": "b"}'
    )
    main([str(tmp_path), "-o", str(tmp_path / "report")])
    assert "? half" in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")


def test_clear_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "results").mkdir()
    cases = [
        ([str(tmp_path / "absent"), "-o", str(tmp_path / "o")], "is no folder: name the one that holds the results"),
        ([str(tmp_path / "file"), "-o", str(tmp_path / "o")], "is no folder: name the one that holds the results"),
        ([str(tmp_path / "results"), "-o", str(tmp_path / "file")], "cannot be a folder"),
        ([str(tmp_path / "results")], "the following arguments are required: -o"),
        ([str(tmp_path / "results"), "-o", str(tmp_path / "o"), "--maps", "-1"], "--maps = -1 is out of range"),
        ([str(tmp_path / "results"), "-o", str(tmp_path / "o"), "--claims", "nowhere.json"], "nowhere.json is no file"),
    ]  # fmt: skip
    for arguments, message in cases:
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "o" / "index.html").exists()


def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "jinja2" else name)
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path), "-o", str(tmp_path / "o")])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: jinja2 is not installed: pip install 'holitom[report]'\n"


def test_an_old_page_stays_when_the_new_one_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "index.html").write_text("old")

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("eval.report.__main__.render", fail)
    with pytest.raises(KeyboardInterrupt):
        main([str(tmp_path / "results"), "-o", str(tmp_path / "report")])
    assert (tmp_path / "report" / "index.html").read_text() == "old"
    assert len(list((tmp_path / "report").iterdir())) == 1


def test_committed_results_are_not_written_to(own_page: OwnPage) -> None:
    assert own_page.touched == []


def test_a_written_result_is_found(tmp_path: Path) -> None:
    """By what the test above rests on."""
    (tmp_path / "below").mkdir()
    before = changes_of(tmp_path)
    (tmp_path / "below" / "new.json").write_text("{}")
    after = changes_of(tmp_path)
    assert {Path(name).name for name, when in after.items() if before.get(name) != when} == {"below", "new.json"}
