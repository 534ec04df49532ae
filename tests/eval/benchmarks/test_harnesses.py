"""Two releases of the harness: which one asked is said, kept apart and checked; what differs was shown by a run."""

import json
from pathlib import Path

import pytest

from eval.benchmarks.lmms import definitions
from eval.benchmarks.lmms.harness import HARNESS_FOLDER, definitions_of
from eval.benchmarks.run import make_job, parser
from eval.benchmarks.versions import compare, differences, table
from eval.paper.benchmarks import HARNESS, PAPER_HARNESS, PAPER_TASKS, UNCHANGED
from eval.paper.reported import REPORTS, reported
from llava.errors import InputError
from tests.eval.benchmarks.lmms_runs import VANILLA, command, run_here, write_config

ROOT = Path(__file__).parents[3]
RECORDED = ROOT / "results" / "harness_versions.json"

# a stand-in for the paper's release: VideoMME asked in other words, read by its first capital letter, without a limit
_YAML = """
dataset_path: lmms-lab/Video-MME
dataset_kwargs: {token: True}
task: videomme
test_split: test
output_type: generate_until
doc_to_visual: !function utils.visual
doc_to_text: !function utils.text
doc_to_target: answer
process_results: !function utils.results
metric_list:
  - {metric: videomme_perception_score, aggregation: !function utils.score, higher_is_better: true}
"""
_UTILS = """
import os
import re


def visual(doc):
    return [os.path.join(os.environ["HF_HOME"], "videomme", "data", doc["videoID"] + ".mp4")]


def text(doc, lmms_eval_specific_kwargs=None):
    return "Stand-in: " + doc["question"]


def results(doc, results):
    found = re.search("[ABCD]", results[0])
    read = found[0] if found else ""
    return {"videomme_perception_score": {"pred_answer": read, "answer": doc["answer"], "score": read == doc["answer"]}}


def score(results):
    return 100 * sum(one["pred_answer"] == one["answer"] for one in results) / len(results)
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    folder = tmp_path / "harness"
    task = folder / "lmms_eval" / "tasks" / "videomme"
    task.mkdir(parents=True)
    (folder / f"lmms_eval-{PAPER_HARNESS}.dist-info").mkdir()
    (task / "videomme.yaml").write_text(_YAML)
    (task / "utils.py").write_text(_UTILS)
    return folder


def test_a_run_is_asked_and_scored_by_the_harness_it_names(
    stand_in: Path, tiny: Path, benchmarks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path / "config.yaml", VANILLA)
    found = {}
    for version in (HARNESS, PAPER_HARNESS):
        more = ["--limit", "2", "--harness", version, "--harness-folder", str(stand_in)]
        asked = command(config, tiny, benchmarks, "videomme", tmp_path / version, *more)
        found[version] = run_here(monkeypatch, asked)
    (ours, our_samples), (paper, paper_samples) = found[HARNESS], found[PAPER_HARNESS]
    assert (ours["harness"], paper["harness"]) == (HARNESS, PAPER_HARNESS)
    assert ours["setup_hash"] != paper["setup_hash"]  # no baseline for each other
    assert all(sample["prompt"].startswith("Stand-in: ") for sample in paper_samples)
    assert not any("Stand-in" in sample["prompt"] for sample in our_samples)
    assert [sample["frames_sha256"] for sample in our_samples] == [sample["frames_sha256"] for sample in paper_samples]


def test_an_absent_or_wrong_harness_is_a_user_s_mistake(stand_in: Path, tiny: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "config.yaml", VANILLA)

    def job(folder: Path):
        more = ["--harness", PAPER_HARNESS, "--harness-folder", str(folder)]
        return make_job(parser().parse_args(command(config, tiny, None, "videomme", tmp_path / "out", *more)))

    assert job(stand_in).definitions == str(stand_in)
    with pytest.raises(InputError, match=r"harness_030\.sh"):
        job(tmp_path / "absent")
    (stand_in / f"lmms_eval-{PAPER_HARNESS}.dist-info").rename(stand_in / "lmms_eval-0.4.1.dist-info")
    with pytest.raises(InputError, match=r"lmms_eval-0\.4\.1\.dist-info, not"):
        job(stand_in)


def facts(**changes) -> dict:
    settings = {"dataset": "a", "config": None, "split": "t", "revision": None, "metrics": ["m"],
                "generation": {"max_new_tokens": 16}}  # fmt: skip
    one = {
        "settings": settings,
        "prompts": ["p"],
        "videos": ["v"],
        "read": {"0": {"A": "A"}},
        "right": ["A"],
        "score": 1,
    }
    return {"frames": "f", "tokens": 1024, "tasks": {"videomme": {**one, **changes}}}


def test_every_kind_of_difference_is_a_line() -> None:
    whole = facts()
    assert differences(whole, facts()) == []
    settings = {**whole["tasks"]["videomme"]["settings"], "generation": {}}
    cases = {
        "prompt": {"prompts": ["q"]}, "place of the video": {"videos": ["w"]},
        "most new tokens": {"settings": settings},
        "answer read: '{}'": {"read": {"0": {"A": "B"}}},
    }  # fmt: skip
    for what, change in cases.items():
        assert what in {line["what"] for line in differences(facts(**change), whole)}
    assert [line["what"] for line in differences({**whole, "frames": "g"}, whole)] == ["frames"]


def test_what_was_recorded_is_what_the_verdicts_rest_on() -> None:
    found = json.loads(RECORDED.read_text())["result"]
    assert tuple(found["unchanged"]) == UNCHANGED
    assert (found["paper"], found["ours"]) == (PAPER_HARNESS, HARNESS)
    assert found["frames_equal"]
    assert found["forms"] == len(definitions.FORMS)
    lines = {(line["task"], line["what"]): line for line in found["differences"]}
    assert lines["egoschema_subset", "most new tokens"]["old"] == 1024
    assert lines["egoschema_subset", "most new tokens"]["new"] == 16
    assert any(task == "videomme" and what.startswith("answer read") for task, what in lines)
    assert not any(what == "prompt" for _, what in lines)
    log = found["log"]
    assert log[PAPER_HARNESS]["videomme"] != log[HARNESS]["videomme"]
    assert all(log[PAPER_HARNESS][task] == log[HARNESS][task] for task in UNCHANGED)
    assert "| videomme | answer read" in table(found)


def test_what_others_report_names_its_source() -> None:
    assert all(report.source and report.date and report.scores for report in REPORTS)
    assert {report.scores["videomme"] for report in reported("videomme", "Vanilla", 100)} == {63.9, 63.93}
    assert set(REPORTS[0].scores) == set(PAPER_TASKS)


@pytest.mark.skipif(not (ROOT / HARNESS_FOLDER).is_dir(), reason="needs bash scripts/harness_030.sh")
def test_the_record_is_what_both_releases_say_now(tmp_path: Path) -> None:
    definitions_of(ROOT / HARNESS_FOLDER)
    found = compare(ROOT / HARNESS_FOLDER, tmp_path)
    recorded = json.loads(RECORDED.read_text())["result"]
    assert {key: recorded[key] for key in found} == json.loads(json.dumps(found))
