"""Parts of the page: answers packed and held against their tables, pairs of runs, curves, ids."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

from eval.instruments.kinds import kind_of, read_json, read_record, stamped
from eval.instruments.significance import paired_difference
from eval.report.page.ablations import changed_values, short
from eval.report.page.blocks import Browser, Cell, Column, Sheet, figure, slugged
from eval.report.page.deviations import SWITCHES, pairs
from eval.report.page.findings import Finding, tally
from eval.report.page.keep_answers import main as keep
from eval.report.page.samples import RunAnswers, SampleSet, question_text, samples_section, unpacked
from eval.report.page.sources import read_sources
from eval.report.page.tiny import paired_test
from eval.synthetic.world.questions import SCORED
from llava.errors import InputError
from tests.eval.benchmarks.made_results import share, write_run
from tests.eval.report.page.made import MODEL, NOTICE, ROOT, Page, built, record, tiny, write_json

FAMILIES = ("color", "scene")  # one that counts and one that does not


def answer_lines(names: dict[str, Any], right: dict[str, list[bool]]) -> dict[str, list[dict[str, Any]]]:
    """Lines of answer files as eval.synthetic.answers.campaign keeps them: file -> header and answers."""
    files = {}
    for number, (name, settings) in enumerate(names.items()):
        run = json.dumps({"settings": settings, "frames": 8, "blank": False}, sort_keys=True)
        lines: list[dict[str, Any]] = [{"checkpoint": "c", "data": "d", "split": "test", "run": run}]
        for place, mark in enumerate(right[name]):
            lines.append({"id": f"q{place}", "family": FAMILIES[place % 2], "clip": f"{place}.mp4",
                          "answer": "AB"[mark], "right": mark, "before": 512, "outer": 100 + number,
                          "inside": 50 + place, "flops": 1.0, "seconds": 0.1})  # fmt: skip
        files[f"{number}.jsonl"] = lines
    return files


@pytest.fixture
def tiny_run(tmp_path: Path) -> Path:
    """A table, the answers behind it and the questions."""
    right = {"vanilla": [True] * 6 + [False] * 2, "holitom_r10": [True, False] * 4, "random_r10": [False] * 8}
    table = tiny({name: (0.5, 1.0) for name in right})
    for name, marks in right.items():
        table["rows"][name]["families"] = {FAMILIES[kind]: sum(marks[kind::2]) / 4 for kind in (0, 1)}
    write_json(tmp_path / "results" / "main.json", record(table))
    (tmp_path / "answers").mkdir()
    for name, lines in answer_lines(table["settings"], right).items():
        (tmp_path / "answers" / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    other = {"checkpoint": "another", "data": "d", "split": "test", "run": "{}"}
    (tmp_path / "answers" / "other.jsonl").write_text(json.dumps(other) + "\n")
    questions = [
        {"id": f"q{place}", "clip": f"test/clips/{place}.mp4", "family": FAMILIES[place % 2],
         "question": f"Number {place}?", "options": ["one", "two"], "answer": "B", "frames": 8, "world": 0}
        for place in range(8)
    ]  # fmt: skip
    (tmp_path / "data" / "test").mkdir(parents=True)
    lines = "".join(json.dumps(question) + "\n" for question in questions)
    (tmp_path / "data" / "test" / "questions.jsonl").write_text(lines)
    return tmp_path


def arguments(root: Path) -> list[str]:
    return [str(root / "results"), "--answers", str(root / "answers"), "--data", str(root / "data")]


def test_answers_are_packed_and_shown(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(arguments(tiny_run))
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["sets"] == {"main": {"questions": 8, "runs": 3}}
    page, sources = built(tiny_run / "results")
    assert not sources.problems
    [shown] = page.data["browser-data"]
    assert shown["notice"] == NOTICE
    assert shown["questions"][1] == ["q1", "scene", "test/clips/1.mp4", "Number 1?", ["A. one", "B. two"], "B"]
    assert shown["runs"]["vanilla"] == {"text": "BBBBBBAA", "right": "rrrrrrww", "before_llm": 100,
                                        "inside_llm": [50 + place for place in range(8)]}  # fmt: skip
    assert list(shown["runs"]) == ["vanilla", "holitom_r10", "random_r10"]
    # holitom_r10 is right and random_r10 wrong in all four questions that count, one about each clip
    [pair] = page.tables["main-pairs"]
    assert ("color" in SCORED, "scene" in SCORED) == (True, False)
    assert float(pair[-1][1] or 0) == binomtest(4, 4, 0.5).pvalue


def test_answers_of_another_table_are_refused(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(arguments(tiny_run))
    table = json.loads((tiny_run / "results" / "main.json").read_text())
    table["result"]["rows"]["holitom_r10"]["families"]["color"] = 0.75
    write_json(tiny_run / "results" / "main.json", table)
    page, sources = built(tiny_run / "results")
    assert [problem.path for problem in sources.problems] == ["answers.json"]
    assert "the answers of holitom_r10 to color are not those of main.json" in sources.problems[0].reason
    assert "browser-data" not in page.data
    with pytest.raises(SystemExit):
        keep(arguments(tiny_run))
    assert "are not those of main.json" in capsys.readouterr().err


def test_missing_answers_are_an_error(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tiny_run / "answers" / "1.jsonl"
    lines = kept.read_text().splitlines()
    kept.write_text("\n".join(lines[:-1]) + "\n")
    for spoil, message in (
        (lambda: None, "holds 7 of the 8 answers"),
        (lambda: [path.unlink() for path in (tiny_run / "answers").iterdir()], "holds no answers behind main.json"),
        (lambda: (tiny_run / "results" / "main.json").unlink(), "holds no main table"),
    ):
        spoil()
        with pytest.raises(SystemExit) as stop:
            keep(arguments(tiny_run))
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
    assert not (tiny_run / "results" / "answers.json").exists()


def small_set() -> SampleSet:
    questions = [
        dict(zip(("id", "task", "video", "text", "options", "target"), "abcdef", strict=True)) for _ in range(3)
    ]
    answers = RunAnswers(["A", None, "B"], [True, None, False], [5, 5, 5], [5, None, 4])
    return SampleSet("t", questions, [True, False, True], {"vanilla": answers}, "n", "p")


@pytest.mark.parametrize("text", [["A", None, "B"], ["A", "C", "B"], ["A", "", "BC"], ["A", "\U0001f600", "B"]])
def test_packing_can_be_undone(text: list[str | None]) -> None:
    sets = small_set()
    sets.runs["vanilla"].text = text
    packed = sets.packed()
    assert (packed["runs"]["vanilla"]["text"] == "ACB") == (text == ["A", "C", "B"])
    assert unpacked(json.loads(json.dumps(packed)), "p") == sets


def test_questions_asked_twice_stand_on_the_page_once() -> None:
    [_, browser] = samples_section([small_set(), other_set(), small_set()]).blocks
    assert isinstance(browser, Browser)
    assert [type(found["questions"]) for found in browser.sets] == [list, list, int]
    assert browser.sets[2]["questions"] == [found["title"] for found in browser.sets].index("t")


def other_set() -> SampleSet:
    found = small_set()
    found.title, found.questions = "other", [{**question, "id": "z"} for question in found.questions]
    return found


@pytest.mark.parametrize("spoil", [
    lambda raw: raw["runs"]["vanilla"]["text"].pop(),
    lambda raw: raw["runs"]["vanilla"].update(right="rrx"),
    lambda raw: raw["runs"]["vanilla"].update(inside_llm=[1, 2]),
    lambda raw: raw.update(scored="11"),
])  # fmt: skip
def test_packed_answers_that_do_not_fit_are_refused(spoil: Any) -> None:
    raw = json.loads(json.dumps(small_set().packed()))
    spoil(raw)
    with pytest.raises(InputError, match="pack"):
        unpacked(raw)


def test_mcnemar_takes_scored_questions_of_both() -> None:
    marks: dict[str, list[bool | None]] = {"a": [True, True, True, None, True], "b": [False, False, True, False, False]}
    runs = {name: RunAnswers(["x"] * 5, right, [1] * 5, [1] * 5) for name, right in marks.items()}
    questions = [{"video": str(place), "task": "color"} for place in range(5)]
    found = SampleSet("t", questions, [True, True, True, True, False], runs)
    assert paired_test(found, "a", "b") == binomtest(2, 2, 0.5).pvalue
    assert paired_test(found, "a", "absent") is None


def test_pairs_differ_in_one_switch_alone() -> None:
    inner = {"causal": True, "merge_rule": "sequential"}
    settings = {
        "ours": {"method": "holitom", "inner": inner},
        "mask": {"method": "holitom", "inner": {**inner, "causal": False}},
        "both": {"method": "holitom", "inner": {"causal": False, "merge_rule": "mean"}},
        "more": {"method": "holitom", "inner": {**inner, "causal": False}, "outer": 1},
        "without": {"method": "holitom", "inner": None},
        "vanilla": None,
    }
    mask, rule = SWITCHES
    assert list(pairs(settings, mask)) == [("ours", "mask")]
    assert list(pairs(settings, rule)) == [("mask", "both")]
    changed = {"method": "holitom", "inner": {**inner, "merge_rule": "mean"}}
    assert list(pairs({"ours": settings["ours"], "rule": changed}, rule)) == [("ours", "rule")]
    assert list(pairs({"ours": settings["ours"], "rule": changed}, mask)) == []
    again = {"ours,frames=8": settings["ours"], **settings, "mask,frames=8": settings["mask"]}
    assert list(pairs(again, mask)) == [("ours", "mask")]  # a comparison is shown once


def test_effect_of_the_mask_on_benchmark_runs(tmp_path: Path) -> None:
    marks = share(60, 40), share(60, 31)
    write_run(tmp_path / "causal", f"{MODEL}/holitom_r15", {"videomme": marks[0]}, fixture=True)
    write_run(tmp_path / "free", f"{MODEL}/holitom_r15", {"videomme": marks[1]}, fixture=True,
              overrides=["inner.causal=false"])  # fmt: skip
    page, sources = built(tmp_path)
    assert not sources.problems
    [row] = page.tables["deviation-inner-causal"]
    videos = [number // 3 for number in range(60)]
    expected = paired_difference([float(mark) for mark in marks[1]], [float(mark) for mark in marks[0]], videos)
    assert [float(cell[1] or 0) for cell in row[5:8]] == pytest.approx([100 * value for value in expected])
    assert row[0][0] == "VideoMME (rehearsal)"


def test_curves_only_over_one_setting_with_numbers() -> None:
    def points(*changes: list[str], file: str = "holitom_r15") -> dict[str, dict[str, Any]]:
        return {f"{file},{','.join(change)}": {"changes": change} for change in changes}

    assert changed_values(points(["a.b=2"], ["a.b=1"])) == ("a.b", {"holitom_r15,a.b=2": 2, "holitom_r15,a.b=1": 1})
    assert changed_values(points(["a=true"], ["a=1"])) is None
    assert changed_values(points(["a=1"], ["b=1"])) is None
    assert changed_values(points(["a=1", "b=1"])) is None
    assert changed_values(points([], ["a=1"])) is None
    assert short("holitom_r15,outer.retain_ratio=0.2") == "retain_ratio=0.2"
    assert short("holitom_r15,outer.a=0.5,inner.b=true") == "a=0.5, b=true"
    assert short("holitom_r15") == "holitom_r15"


def test_ids_are_different_for_different_paths() -> None:
    paths = ["a/b", "a-b", "a b", "a.b", "a--b?", "ä", "A/b", "<script>", "a_b", ""]
    slugs = [slugged(path) for path in paths]
    assert len(set(slugs)) == len(paths)
    assert all(set(slug) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") for slug in slugs)


def test_cells_and_headings() -> None:
    assert figure(None).text == figure(float("nan")).text == "\u2013"
    assert (figure(1.25, 1).value, figure(-0.01, 1, sign=True).text) == (1.25, "+0.0")
    columns = [Column("m"), Column("a", "x"), Column("b", "x"), Column("c"), Column("d"), Column("e", "y")]
    sheet = Sheet("s", "t", columns, [[Cell()] * 6])
    assert sheet.groups == [("", 1), ("x", 2), ("", 1), ("", 1), ("y", 1)]
    assert Sheet("s", "t", [Column("m")], []).groups == []


def test_the_tally_counts_printed_numbers_only() -> None:
    found = [Finding("s", "r", "q", paper, ours, verdict) for paper, ours, verdict in (
        (1.0, 1.0, "reproduced"), (None, 1.0, "not measured"), (2.0, 1.0, "contradicted"),
        (3.0, None, "not measured"),
    )]  # fmt: skip
    counts = {verdict: count for verdict, count in tally(found).items() if count}
    assert counts == {"reproduced": 1, "contradicted": 1, "not measured": 1}
    assert [finding.difference for finding in found] == [0.0, None, -1.0, None]


def test_the_options_are_not_said_twice() -> None:
    prompt = "Pick.\nWhich  one?\nA. red.\nB. blue.\n\nAnswer with the letter."
    assert question_text(prompt, ["A. red.", "B. blue."]) == "Pick.\nWhich one?\nAnswer with the letter."
    assert question_text(prompt, None).count("\n") == 4


def test_kinds_of_recorded_results() -> None:
    assert kind_of(stamped("latency", {})) == "latency"
    for wrong in ({"rows": [{"stages_ms": {}}]}, {"kind": "nothing", "version": 1}, {"kind": ["tiny"], "version": 1}):
        with pytest.raises(InputError, match="states the kind"):
            kind_of(wrong)
    with pytest.raises(InputError, match="version 2, not 1"):
        kind_of({"kind": "tiny", "version": 2})


def test_every_file_of_results_states_its_kind_and_is_refused_as_another() -> None:
    files = sorted((ROOT / "results").rglob("*.json"))
    assert len(files) > 25
    for path in files:
        kind = kind_of(read_json(path)[0])
        assert kind != "other", path
        assert read_record(path, kind)["kind"] == kind
        with pytest.raises(InputError, match=f"it is of kind '{kind}'.*measure it again"):
            read_record(path, "decode" if kind != "decode" else "outer")


def test_sections_stand_in_their_order(tmp_path: Path) -> None:
    page = Page(built(tmp_path)[0].source)
    order = [page.source.index(f'<section id="{slug}"') for slug in (
        "summary", "claims", "paper", "paired", "efficiency", "ablations", "deviations", "tiny", "rehearsals", "maps",
        "samples", "evidence",
    )]  # fmt: skip
    assert all(one < other for one, other in pairwise(order))
    assert read_sources(tmp_path).records == []
