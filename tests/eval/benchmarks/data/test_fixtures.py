"""The miniature data sets: same bytes, right columns, and lmms-eval's own task code scores them as counted."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eval.benchmarks.data.fixtures import MARKER, fixture_marker, main, make_fixtures
from eval.instruments.clips import COLOURS, FRAMES
from eval.paper.benchmarks import BY_TASK, MVBENCH
from llava.errors import InputError
from llava.video import load_video

LETTERS = "ABCDE"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_fixtures(tmp_path_factory.mktemp("fixtures") / "made")


def rows(folder: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (folder / "data" / name).read_text().splitlines()]


def tasks_of(folder: Path) -> dict[str, list[dict]]:
    """The questions of every leaf task, read as plain files."""
    found = {f"mvbench_{name}": rows(folder, f"OpenGVLab/MVBench/json/{name}.jsonl") for name in MVBENCH}
    found["egoschema"] = rows(folder, "lmms-eval/egoschema/full.jsonl")
    found["egoschema_subset"] = rows(folder, "lmms-eval/egoschema/sub.jsonl")
    found["longvideobench_val_v"] = rows(folder, "longvideobench/LongVideoBench/val.jsonl")
    found["videomme"] = rows(folder, "lmms-eval/Video-MME/test.jsonl")
    found["mlvu_dev"] = rows(folder, "sy1998/MLVU_dev/test.jsonl")
    found["lvbench"] = rows(folder, "lmms-eval/LVBench/train.jsonl")
    return found


def right_number(task: str, row: dict) -> int:
    """Number of the right option by the data set's own column."""
    if task.startswith("mvbench"):
        return row["candidates"].index(row["answer"])
    if task == "longvideobench_val_v":
        return row["correct_choice"]
    return int(row["answer"]) if task == "egoschema_subset" else LETTERS.index(row["answer"])


def given_answers(questions: dict[str, list[dict]]) -> tuple[dict[str, list[str]], dict[str, list[bool]]]:
    """A letter for each question, every third one wrong, and which are right."""
    letters: dict[str, list[str]] = {}
    right: dict[str, list[bool]] = {}
    place = 0
    for task, found in questions.items():
        letters[task], right[task] = [], []
        for row in found:
            number = place % 5 if task == "egoschema" else right_number(task, row)
            right[task].append(place % 3 != 1)
            letters[task].append(LETTERS[number if right[task][-1] else (number + 1) % 3])
            place += 1
    return letters, right


def run_harness(folder: Path, letters: dict[str, list[str]], work: Path) -> dict:
    """The packaged tasks in a process of their own, offline."""
    (work / "answers.json").write_text(json.dumps(letters))
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "hf")}
    script = Path(__file__).with_name("harness_with_known_answers.py")
    command = [sys.executable, str(script), str(work / "answers.json"), str(work / "out.json")]
    environment = {**os.environ, **offline, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    done = subprocess.run(command, cwd=folder / "data", env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((work / "out.json").read_text())


def test_packaged_tasks_score_as_counted_by_hand(folder: Path, tmp_path: Path) -> None:
    """All 20 MVBench sub-tasks and the other benchmarks, through the definitions that lmms-eval ships."""
    questions = tasks_of(folder)
    letters, right = given_answers(questions)
    outcome = run_harness(folder, letters, tmp_path)
    share = {task: sum(marks) / len(marks) for task, marks in right.items()}
    assert (
        0 < min(share.values()) < max(share.values()) <= 1
    )  # the pattern gives different scores, so none can stand in
    results = outcome["results"]
    for subtask in MVBENCH:
        name = f"mvbench_{subtask}"
        assert results[name]["mvbench_accuracy,none"] == pytest.approx(100 * share[name]), name
    assert results["egoschema_subset"]["score,none"] == pytest.approx(share["egoschema_subset"])
    assert results["longvideobench_val_v"]["lvb_acc,none"] == pytest.approx(share["longvideobench_val_v"], abs=1e-5)
    assert results["videomme"]["videomme_perception_score,none"] == pytest.approx(100 * share["videomme"])
    assert results["lvbench"]["lvbench_score,none"] == pytest.approx(share["lvbench"])
    by_kind = [right["mlvu_dev"][place::7] for place in range(7)]  # one question of each kind
    kinds = [sum(marks) / len(marks) for marks in by_kind]
    assert results["mlvu_dev"]["mlvu_percetion_score,none"] == pytest.approx(100 * sum(kinds) / 7)
    answered = {row["video_idx"]: LETTERS.index(letter) for row, letter in zip(
        questions["egoschema"], letters["egoschema"], strict=True)}  # fmt: skip
    assert outcome["submission"] == answered
    for task, found in questions.items():
        check_videos_and_prompts(task, found, outcome)


def check_videos_and_prompts(task: str, found: list[dict], outcome: dict) -> None:
    """The harness looked for the videos where `eval.paper.benchmarks` says, and asked what the files hold."""
    benchmark = BY_TASK["mvbench" if task.startswith("mvbench") else task]
    config = task.removeprefix("mvbench_") if task.startswith("mvbench") else benchmark.configs[0]
    assert outcome["videos"][task] == [benchmark.video_names(config, row)[0] for row in found], task
    for row, prompt in zip(found, outcome["prompts"][task], strict=True):
        assert row["question"] in prompt
        options = row.get("candidates") or row.get("option") or row.get("options")
        for option in options or [row[name] for name in ("option0", "option3") if name in row]:
            assert option in prompt


def test_the_same_arguments_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    again = make_fixtures(tmp_path / "again")
    files = sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert len([path for path in files if path.suffix in {".mp4", ".avi"}]) == 20 * 2 + 4 + 2 + 2 + 2 + 2
    for path in files:
        assert (again / path).read_bytes() == (folder / path).read_bytes(), path


def test_another_seed_gives_other_questions_and_one_folder_is_remade(tmp_path: Path) -> None:
    first = tasks_of(make_fixtures(tmp_path / "made", clips_per_task=1))
    other = tasks_of(make_fixtures(tmp_path / "made", clips_per_task=1, seed=5))
    assert first != other
    assert fixture_marker(tmp_path / "made")["seed"] == 5
    assert not (tmp_path / "made.part").exists()


def test_a_finished_folder_is_left_as_it_is(tmp_path: Path) -> None:
    made = make_fixtures(tmp_path / "made", clips_per_task=1)
    (made / "hf" / "kept").write_text("by a user")
    make_fixtures(made, clips_per_task=1)
    assert (made / "hf" / "kept").exists()


def test_clips_show_what_the_questions_say(folder: Path) -> None:
    """A question about a colour: the shape crosses the middle of the picture in that colour, and the scene is cut."""
    asked: set[str] = set()
    for task, found in tasks_of(folder).items():
        for row in found:
            if not row["question"].startswith("Which colour") or task in ("egoschema", "longvideobench_val_v"):
                continue
            row = {"options": row["question"].splitlines()[1:], **row}
            asked.add(task.partition("_")[0])
            number = right_number(task, row)
            option = (row.get("candidates") or row.get("option") or row.get("options"))[number]
            check_clip(folder / "hf" / video_of(task, row), option.split()[-1].rstrip("."))
    assert asked >= {"mvbench", "egoschema", "videomme", "mlvu"}


def video_of(task: str, row: dict) -> str:
    benchmark = BY_TASK["mvbench" if task.startswith("mvbench") else task]
    return benchmark.video_names(task.removeprefix("mvbench_"), row)[0]


def check_clip(path: Path, colour: str) -> None:
    """The shape is in the middle half-way, in its colour; the corners change once, at the cut."""
    clip = load_video(path, FRAMES)
    assert clip.total_frames == FRAMES
    middle = clip.frames[FRAMES // 2][46:50, 62:66].reshape(-1, 3).mean(0)
    assert np.abs(middle - np.array(COLOURS[colour])).max() < 40
    corners = clip.frames[:, :8, :8].astype(float).mean((1, 2))
    jumps = np.abs(np.diff(corners, axis=0)).max(1)
    assert jumps.argmax() == FRAMES // 2 - 1
    assert jumps[FRAMES // 2 - 1] > 10 > np.delete(jumps, FRAMES // 2 - 1).max()


def test_refusals(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("not to be deleted")
    with pytest.raises(InputError, match="holds other files"):
        make_fixtures(tmp_path / "mine")
    for clips in (0, 31, True):
        with pytest.raises(InputError, match="clips_per_task is"):
            make_fixtures(tmp_path / "new", clips_per_task=clips)
    (tmp_path / "mine" / MARKER).write_text("{")
    with pytest.raises(InputError, match="damaged"):
        fixture_marker(tmp_path / "mine")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        make_fixtures(tmp_path / "file" / "below")


def test_command_ends_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(tmp_path / "made"), "--clips-per-task", "1"])
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["tasks"]["mvbench"] == {"questions": 40, "videos": 20}
