"""What is missing is found before any compute, and named."""

import json
import shutil
from pathlib import Path

import pytest

from eval.benchmarks.data.__main__ import main, verify
from eval.benchmarks.data.fixtures import MARKER, make_fixtures
from eval.benchmarks.data.plan import plan
from eval.paper.benchmarks import BENCHMARKS, BY_TASK, MVBENCH
from llava.errors import InputError

EVERY = [benchmark.task for benchmark in BENCHMARKS]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_fixtures(tmp_path_factory.mktemp("data") / "made", clips_per_task=1)


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "data"))


def only(folder: Path, task: str, deep: bool = False):
    [report] = verify(folder, [task], deep=deep)
    return report


def test_fixtures_are_complete(made: Path) -> None:
    reports = verify(made, EVERY, deep=True)
    assert [report.task for report in reports] == EVERY
    assert all(
        report.complete and report.usable_videos == report.videos == report.expected_videos for report in reports
    )
    assert {report.task: report.questions for report in reports} == {
        "mvbench": 40, "egoschema_subset": 1, "egoschema": 2, "longvideobench_val_v": 2, "videomme": 3,
        "mlvu_dev": 7, "lvbench": 2,
    }  # fmt: skip


def a_video(folder: Path, task: str) -> Path:
    return sorted((folder / "hf" / BY_TASK[task].videos).rglob("*.mp4"))[0]


@pytest.mark.parametrize("task", EVERY)
def test_a_missing_video_is_named(folder: Path, task: str) -> None:
    for path in (folder / "hf" / BY_TASK[task].videos).rglob("*.mp4"):
        path.unlink()  # EgoSchema's subset does not use all
    report = only(folder, task)
    assert not report.complete
    assert any(problem.startswith(f"missing: hf/{BY_TASK[task].videos}") for problem in report.problems)
    assert report.usable_videos < report.videos


def test_empty_folder_and_damaged_videos_are_named(folder: Path) -> None:
    path = a_video(folder, "videomme")
    whole = path.read_bytes()
    path.write_bytes(b"")
    assert "empty (0 bytes)" in only(folder, "videomme").problems[0]
    path.write_bytes(whole[: len(whole) * 6 // 10])
    assert only(folder, "videomme").complete  # the quick check does not look inside
    report = only(folder, "videomme", deep=True)
    assert not report.complete
    assert str(path) in report.problems[0]
    path.unlink()
    path.mkdir()
    assert "a folder, not a video" in only(folder, "videomme").problems[0]


def test_another_ending_is_said(folder: Path) -> None:
    path = a_video(folder, "videomme")
    path.rename(path.with_suffix(".mkv"))
    report = only(folder, "videomme")
    assert report.complete
    assert path.with_suffix(".mkv").name in report.notes[0]


def test_a_link_in_place_of_mvbench_video_is_refused(folder: Path) -> None:
    (folder / "hf" / "mvbench_video").rename(folder / "elsewhere")
    (folder / "hf" / "mvbench_video").symlink_to(folder / "elsewhere")
    assert "is a link" in only(folder, "mvbench").problems[0]


def edit(folder: Path, name: str, **changes: object) -> None:
    path = folder / "data" / name
    first, *rest = path.read_text().splitlines()
    row = json.loads(first)
    row.update(changes)
    path.write_text(
        "\n".join([json.dumps({key: value for key, value in row.items() if value != "drop"}), *rest]) + "\n"
    )


@pytest.mark.parametrize(
    ("task", "file", "changes", "words"),
    [
        ("videomme", "lmms-eval/Video-MME/test.jsonl", {"domain": "Cooking"}, "domain 'Cooking'"),
        ("videomme", "lmms-eval/Video-MME/test.jsonl", {"answer": "E"}, "answer 'E'"),
        ("mvbench", f"OpenGVLab/MVBench/json/{next(iter(MVBENCH))}.jsonl", {"answer": "x"}, "none of the candidates"),
        ("egoschema_subset", "lmms-eval/egoschema/sub.jsonl", {"answer": "7"}, "answer '7'"),
        ("longvideobench_val_v", "longvideobench/LongVideoBench/val.jsonl", {"correct_choice": 5}, "correct_choice 5"),
        ("egoschema", "lmms-eval/egoschema/full.jsonl", {"option": "drop"}, "option"),
        ("mlvu_dev", "sy1998/MLVU_dev/test.jsonl", {"task_type": "sportsQA"}, "task_type 'sportsQA'"),
        ("lvbench", "lmms-eval/LVBench/train.jsonl", {"answer": "E"}, "answer 'E'"),
    ],
)
def test_questions_the_task_could_not_score(folder: Path, task: str, file: str, changes: dict, words: str) -> None:
    edit(folder, file, **changes)
    report = only(folder, task)
    assert any(words in problem for problem in report.problems), report.problems


def test_missing_question_files(folder: Path) -> None:
    (folder / "data" / "OpenGVLab/MVBench/json/moving_count.jsonl").unlink()
    report = only(folder, "mvbench")
    assert any("moving_count" in problem for problem in report.problems)
    assert "38 questions found, 40 expected" in report.problems
    shutil.rmtree(folder / "data" / "lmms-eval" / "Video-MME")
    report = only(folder, "videomme")
    assert report.questions == 0
    assert "absent" in report.problems[0]


def test_real_data_is_held_to_the_real_counts(folder: Path) -> None:
    (folder / MARKER).unlink()
    report = only(folder, "videomme")
    assert "3 questions found, 2700 expected" in report.problems
    assert "questions about 1 videos found, 900 expected" in report.problems


def test_command_status_and_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*words: str) -> tuple[int, dict]:
        with pytest.raises(SystemExit) as exit_status:
            main([*words])
        return exit_status.value.code, json.loads(capsys.readouterr().out.splitlines()[-1])

    status, record = run("verify", "--data", str(folder), "--tasks", "videomme,egoschema_subset")
    assert (status, record["complete"], record["fixture"]) == (0, True, True)
    a_video(folder, "videomme").unlink()
    status, record = run("verify", "--data", str(folder), "--tasks", "videomme,egoschema_subset")
    assert (status, record["complete"]) == (1, False)
    assert [entry["problem_count"] for entry in record["benchmarks"]] == [1, 0]


def test_plan_names_every_source_and_admits_what_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    entries = {entry["task"]: entry for entry in plan(Path("here"), EVERY)}
    assert entries["mvbench"]["command"].split()[:6] == [
        "hf", "download", "OpenGVLab/MVBench", "--repo-type", "dataset", "--revision",
    ]  # fmt: skip
    assert "--revision" not in entries["videomme"]["command"]
    assert [entries[task]["questions"] for task in EVERY] == [4000, 500, 5031, 1337, 2700, 2174, 1549]
    main(["plan", "--tasks", "longvideobench_val_v"])
    text = capsys.readouterr().out
    assert "unknown (python -m eval.benchmarks.data verify counts them) videos, size bytes unknown" in text
    assert "LongVideoBench/tree/main" in text  # who would know
    assert json.loads(text.splitlines()[-1])["benchmarks"][0]["dataset"] == "longvideobench/LongVideoBench"
    main(["plan"])
    text = capsys.readouterr().out
    assert [entry["task"] for entry in json.loads(text.splitlines()[-1])["benchmarks"]] == EVERY
    assert "lvbench: 1549 questions, 103 videos, size about 117 hours" in text
    assert "train of default" in text
    for line in text.splitlines()[:-1]:  # who would know
        assert "unknown" not in line or any(word in line for word in ("stated on", "counts them", "commits")), line


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'videomm' is no benchmark"):
        verify(tmp_path, ["videomm"])
    with pytest.raises(InputError, match="is no folder"):
        verify(tmp_path / "absent")
