"""The result of a run: scores against a hand count, bad videos, repeatability, tasks of one's own, wrong commands."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from eval.benchmarks import launching
from eval.benchmarks import run as run_benchmark
from eval.benchmarks.lmms import models
from eval.benchmarks.lmms.harness import SEEDS, evaluate, replay
from eval.benchmarks.lmms.questions import task_of
from eval.benchmarks.lmms.results import load_result, submission_of
from eval.benchmarks.lmms.scoring import fields_of, guessed, judge, options_of
from eval.benchmarks.lmms.summary import RunRequest, make_result, make_samples
from eval.benchmarks.lmms.worker import collect, read_job
from eval.benchmarks.plugin import CLASSES
from llava.errors import InputError, VideoError
from tests.clips import ClipSpec, write_clip
from tests.eval.benchmarks.lmms_runs import (
    FRAMES,
    HOLITOM,
    THREE,
    VANILLA,
    command,
    copy_data,
    enter,
    made_up,
    run_here,
    same_but_times,
    write_config,
)

FOUR = f"mvbench,{THREE}"


@pytest.fixture
def run(tiny: Path, benchmarks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run a configuration in this process."""

    def here(config: dict[str, Any], tasks: str, name: str, *more: str, data: Path | None = benchmarks) -> Any:
        path = write_config(tmp_path / "config.yaml", config)
        return run_here(monkeypatch, command(path, tiny, data, tasks, tmp_path / name, *more))

    return here


def questions(outcome: Any) -> dict[tuple[str, int], dict[str, Any]]:
    return {(task, raw["doc_id"]): raw for task, raws in outcome.results["samples"].items() for raw in raws}


def right_letter(task: str, doc: dict[str, Any]) -> str:
    """The label, read from the data set and not by the task's code."""
    if task.startswith("mvbench"):
        return "ABCDE"[doc["candidates"].index(doc["answer"])]
    if task.startswith("egoschema"):
        return "ABCDE"[int(doc["answer"])]
    return "ABCDE"[doc["correct_choice"]] if task.startswith("long") else doc["answer"]


# what is answered in turn, and whether it is right and readable
WAYS: list[tuple[Callable[[str], str], bool, bool]] = [
    (lambda letter: letter, True, True),
    (lambda letter: f"({letter})", True, True),
    (lambda letter: "B" if letter == "A" else "A", False, True),
    (lambda letter: "xyz", False, False),
    (lambda letter: "", False, False),
]


def test_scores_equal_a_hand_count(benchmarks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All four benchmarks, all sub-tasks, every question, with answers of every kind put into the model's mouth."""
    enter(benchmarks, tmp_path / "cache", monkeypatch)
    tasks = [*FOUR.split(","), "egoschema"]

    lister = replay(made_up({}, {}))
    prompts: dict[tuple[str, int], str] = {}

    def listing(requests: list[Any]) -> list[str]:
        for request in requests:
            prompts[request.args[4], request.args[3]] = request.args[0]
            lister.tasks[request.args[4]] = task_of(request)
        return ["A"] * len(requests)

    monkeypatch.setattr(lister, "generate_until", listing)
    docs = {key: raw["doc"] for key, raw in questions(evaluate(lister, "llava_onevision", tasks)).items()}
    assert len(docs) == 60 + 2 + 4 + 6 + 4

    answers, expected = {}, {}
    for number, key in enumerate(sorted(docs)):
        hidden = key[0] == "egoschema"
        way, correct, readable = WAYS[number % len(WAYS)]
        answers[key] = way("C" if hidden else right_letter(key[0], docs[key]))
        expected[key] = (None if hidden else correct, readable)
    served = made_up(answers, prompts)
    outcome = evaluate(replay(served), "llava_onevision", tasks)
    samples = make_samples(outcome, served, ["/videos"])
    asked = RunRequest(tasks, "a.yaml", [], "tiny", True, None, "stop", {})
    result = make_result(asked, served, outcome, samples)

    assert {(s["subtask"], s["doc_id"]): (s["correct"], s["parsed_ok"]) for s in samples} == expected
    for task, facts in result["tasks"].items():
        mine = [expected[key] for key in expected if key[0] == task]
        assert facts["questions"] == len(mine)
        assert facts["unparsed"] == sum(not readable for _, readable in mine)
        if task == "egoschema":
            assert (facts["score"], facts["correct"], facts["harness"]) == (None, None, {})
            continue
        assert facts["score"] == facts["score_seen"] == pytest.approx(100 * sum(c for c, _ in mine) / len(mine))
        [own] = facts["harness"].values()
        own *= 1 if own > 1 or task.startswith(("mvbench", "videomme")) else 100
        if all(readable for _, readable in mine):
            assert own == pytest.approx(facts["score"], abs=1e-3)
        if task.startswith("mvbench"):  # leaves empty answers out
            said = [correct for key, (correct, _) in expected.items() if key[0] == task and answers[key]]
            assert own == pytest.approx(100 * sum(said) / len(said))
    means = [facts["score"] for task, facts in result["tasks"].items() if task.startswith("mvbench")]
    assert len(means) == result["groups"]["mvbench"]["subtasks"] == 20
    assert result["groups"]["mvbench"]["score"] == pytest.approx(sum(means) / 20)
    names = {sample["doc_id"]: sample["question_id"] for sample in samples if sample["subtask"] == "egoschema"}
    full = {
        key[1]: "ABCDE".index("CCA"[n]) if (n := sorted(answers).index(key) % 5) < 3 else -1
        for key in answers
        if key[0] == "egoschema"
    }
    assert submission_of(samples) == {names[doc_id]: index for doc_id, index in full.items()}
    assert all(sample["video"] == "a.mp4" and sample["options"] for sample in samples)
    fields = {sample["subtask"]: sample["fields"] for sample in samples}
    assert {"duration", "category", "sub_category", "task_category", "videoID"} <= fields["videomme"].keys()
    assert {"duration_group", "question_category"} <= fields["longvideobench_val_v"].keys()

    served.entries.pop(("videomme", 3))
    with pytest.raises(InputError, match="task videomme, question 3 was not answered"):
        evaluate(replay(served), "llava_onevision", tasks)


def test_vanilla_and_holitom_in_one_command_each_twice(run: Callable[..., Any], tmp_path: Path) -> None:
    result, samples = run(HOLITOM, FOUR, "first", "--limit", "1")
    assert len(samples) == 23 == result["times"]["questions_computed"]
    assert result["method"] == "holitom"
    assert result["checkpoint"]["random"] is result["fixture"] is True
    before, kept = (result["tokens"][stage] for stage in ("before", "before_llm"))
    assert before == FRAMES * 196
    assert result["retention"]["before_llm"]["mean"] == pytest.approx(kept / before)
    assert 0.1 < result["retention"]["before_llm"]["min"] <= result["retention"]["before_llm"]["max"] < 0.22
    assert result["retention"]["inside_llm"]["mean"] < result["retention"]["layer_mean"]["mean"]
    assert result["readers"] == {"pyav": 23}
    assert result["setup"]["seeds"] == SEEDS
    assert result["versions"]["lmms_eval"] == "0.7.3"
    assert not Path(samples[0]["video"]).is_absolute()
    run(HOLITOM, FOUR, "second", "--limit", "1")
    same_but_times(tmp_path / "first", tmp_path / "second")
    again, _ = run(HOLITOM, FOUR, "second", "--limit", "1")
    assert (again["times"]["questions_computed"], again["times"]["questions_resumed"]) == (0, 23)
    same_but_times(tmp_path / "first", tmp_path / "second")
    vanilla, plain = run(VANILLA, THREE, "vanilla", "--limit", "1")
    assert vanilla["method"] == "vanilla"
    assert vanilla["retention"]["layer_mean"] == {"mean": 1.0, "min": 1.0, "max": 1.0}
    assert vanilla["setup_hash"] == result["setup_hash"]
    for task in THREE.split(","):
        assert vanilla["tasks"][task]["prompt_sha256"] == result["tasks"][task]["prompt_sha256"]
    compressed = {sample["subtask"]: sample["answer"] for sample in samples}
    assert {sample["answer"] for sample in plain} != {compressed[task] for task in THREE.split(",")}


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])


def _silence(path: Path) -> None:
    """A file with sound and no picture, and the name of the video."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "deleted": Path.unlink,
    "truncated": _truncate,
    "zero bytes": lambda path: path.write_bytes(b""),
    "audio only": _silence,
}
PLACES = {"videomme": "videomme/data", "mvbench_action_antonym": "mvbench_video/ssv2_video_mp4"}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_bad_video_stops_the_run_or_is_counted(
    kind: str, run: Callable[..., Any], benchmarks: Path, tmp_path: Path
) -> None:
    data = copy_data(benchmarks, tmp_path / "damaged")
    names = {}
    for task, place in PLACES.items():
        path = sorted((data / "hf" / place).glob("*.mp4"))[0]
        DAMAGE[kind](path)
        names[task] = path.name
    for task, name in names.items():
        with pytest.raises(VideoError, match=f"{name}.*--on-bad-video count"):
            run(VANILLA, task, "stopped", data=data)
        assert not (tmp_path / "stopped" / "result.json").exists()
    result, samples = run(VANILLA, ",".join(names), "counted", "--on-bad-video", "count", data=data)
    for task, name in names.items():
        facts = result["tasks"][task]
        bad = [s for s in samples if s["subtask"] == task and Path(s["video"]).name == name]
        assert facts["bad_videos"] == len(bad) > 0
        assert facts["seen"] == facts["questions"] - len(bad) > 0
        assert all((s["answer"], s["correct"], s["tokens"], s["parsed_ok"]) == (None, False, None, False) for s in bad)
        assert all(name in s["bad_video"] for s in bad)
        correct = sum(s["correct"] for s in samples if s["subtask"] == task)
        assert facts["score"] == pytest.approx(100 * correct / facts["questions"])
        assert facts["score_seen"] == pytest.approx(100 * correct / facts["seen"])
    assert len(result["bad_videos"]) == sum(facts["bad_videos"] for facts in result["tasks"].values())


LOCAL = {
    "task.yaml": """
task: my_clips
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/questions.jsonl}}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.visual
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {max_new_tokens: 4}
process_results: !function utils.judge
metric_list: [{metric: mine, aggregation: !function utils.mean, higher_is_better: true}]
""",
    "utils.py": """
from pathlib import Path

def visual(doc): return [str(Path(__file__).parent / doc["video"])]
def judge(doc, results): return {"mine": {"score": 1.0, "family": doc["family"], "parsed": results[0] and "A"}}
def mean(items): return 0.5
""",
    "questions.jsonl": '{"video": "a.mp4", "question": "", "answer": "A", "family": "colour", "options": ["A", "B"]}\n',
}


def test_a_task_of_ones_own(run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name, text in LOCAL.items():
        (folder / name).write_text(text.replace("FOLDER", str(folder)))
    write_clip(folder / "a.mp4", ClipSpec(frames=12))
    result, [sample] = run(VANILLA, "my_clips", "own", "--include-path", str(folder), data=None)
    assert sample["fields"] == {"family": "colour"}
    assert (sample["video"], sample["options"], sample["target"]) == ("a.mp4", ["A", "B"], "A")
    assert result["tasks"]["my_clips"]["harness"] == {"mine": 0.5}
    assert result["tasks"]["my_clips"]["score"] == 100.0


def test_a_wrong_task_waits_for_no_model(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of 7B is loaded for minutes; a name or a folder is looked up in seconds."""
    for name in CLASSES.values():
        monkeypatch.setattr(models, name, lambda **_: pytest.fail("the model was loaded first"), raising=False)
    with pytest.raises(InputError, match="is no folder: name one that holds task definitions"):
        run(VANILLA, "videomme", "out", "--include-path", str(tmp_path / "none"))


class Task:
    """A task whose code guesses when it sees a question mark."""

    def process_results(self, doc: dict[str, Any], results: list[str]) -> dict[str, Any]:
        picked = random.choice("AB") if "?" in results[0] else results[0]
        return {"mine": {"score": float(picked == doc["answer"]), "pred": picked}}


def test_guesses_are_seen_and_leave_no_trace() -> None:
    random.seed(3)
    before = random.getstate()
    assert [guessed(Task(), {"answer": "A"}, text) for text in ("?", "A")] == [True, False]
    assert random.getstate() == before
    for seed in range(4):  # right by luck half of the time
        random.seed(seed)
        metrics = Task().process_results({"answer": "A"}, ["?"])
        judged = judge(Task(), {"answer": "A"}, "?", metrics, "A")
        assert (judged.correct, judged.parsed, judged.parsed_ok) == (False, None, False)
    judged = judge(Task(), {"answer": "A"}, "A", {"mine": {"score": 1.0, "pred": "A"}}, "A")
    assert (judged.correct, judged.parsed, judged.parsed_ok) == (True, "A", True)
    assert judge(Task(), {"answer": "A"}, "B", {"mine": 0.0}, "A").correct is False


def test_columns_of_questions() -> None:
    assert options_of({"candidates": ["a", "b"]}) == ["a", "b"]
    assert options_of({"option0": "x", "option1": "y", "option2": "N/A"}) == ["x", "y"]
    assert options_of({"question": "?"}) is None
    metrics = {"m": {"family": "a", "score": 1, "answer": "B"}, "submission": {"id7": "B"}}
    assert fields_of({"duration": "short", "question": "?"}, metrics) == {"duration": "short", "family": "a"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--limit", "0"], "--limit = 0"),
        (["--num-processes", "0"], "--num-processes = 0"),
        (["--prefetch", "-1"], "--prefetch = -1"),
        (["--model-args", "reuse=false"], "has it elsewhere"),
        (["--set", "outer.retain_ration=1"], "retain_ration"),
        (["--model-args", "dtype"], "not of the form key=value"),
        (["--model-args", "max_frames_num=4"], "use --set model.num_frames"),
        (["--model-args", "model.num_frames=4"], "use --set model.num_frames"),
        (["--model-args", "retain_ratio=0.5"], "use --set outer.retain_ratio"),
        (["--model-args", "inner=null"], "use --set inner"),
        (["--model-args", "method=fastv"], "has it elsewhere"),
        (["--checkpoint", "/absent"], "no folder"),
        (["--tasks", "videomme,videomme"], "twice"),
    ],
)
def test_wrong_commands(more: list[str], message: str, tiny: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "h.yaml", HOLITOM)
    words = [*command(config, tiny, None, "videomme", tmp_path / "out"), *more]
    with pytest.raises(InputError, match=message):
        run_benchmark.make_job(run_benchmark.parser().parse_args(words))
    assert not (tmp_path / "out").exists()


def test_the_data_folder_must_be_one(tiny: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "h.yaml", HOLITOM)
    job = run_benchmark.make_job(run_benchmark.parser().parse_args(command(config, tiny, None, "videomme", tmp_path)))
    with pytest.raises(InputError, match="--data names the folder"):
        launching.environment(job, tmp_path)


def test_an_old_result_does_not_outlive_a_new_start(tiny: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "h.yaml", HOLITOM)
    out = tmp_path / "out"
    job = run_benchmark.make_job(run_benchmark.parser().parse_args(command(config, tiny, None, "videomme", out)))
    (out / "answers").mkdir(parents=True)
    for name in ("result.json", "samples.jsonl", "submission.json", "answers/rank-0.jsonl", "answers/share-0.json"):
        (out / name).write_text("old")
    path = launching.prepare(job, resume=True)
    assert read_job(path) == job
    assert {file.name for file in out.rglob("*") if file.is_file()} == {"rank-0.jsonl", "job.json"}
    launching.prepare(job, resume=False)
    assert not (out / "answers/rank-0.jsonl").exists()
    with pytest.raises(InputError, match="process 0 left no answers"):
        collect(job)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "{}", '{"setup_key": 1, "entries": 2}', "not JSON"])
def test_a_damaged_share_is_one_line(text: str, tiny: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "h.yaml", HOLITOM)
    out = tmp_path / "out"
    job = run_benchmark.make_job(run_benchmark.parser().parse_args(command(config, tiny, None, "videomme", out)))
    launching.prepare(job, resume=False)
    job.share(0).write_text(text)
    with pytest.raises(InputError, match="run the same command again"):
        collect(job)


def test_results_that_disagree_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did not finish"):
        load_result(tmp_path)
    (tmp_path / "samples.jsonl").write_text(json.dumps({"subtask": "a"}) + "\n")
    for text, message in (
        ("{", "no readable result"),
        ("{}", "schema 1"),
        ('{"schema": 1, "tasks": {"a": {"questions": 2}}}', "count other"),
    ):
        (tmp_path / "result.json").write_text(text)
        with pytest.raises(InputError, match=message):
            load_result(tmp_path)
    (tmp_path / "result.json").write_text('{"schema": 1, "tasks": {"a": {"questions": 1}}}')
    assert load_result(tmp_path)[1] == [{"subtask": "a"}]


def test_a_result_has_a_folder_of_its_own(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without -o: configuration, changes, tasks and limit tell it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    config = write_config(tmp_path / "mine" / "h.yaml", HOLITOM)

    def output(*words: str) -> str:
        options = run_benchmark.parser().parse_args([str(config), "--checkpoint", str(tiny), "--tasks", *words])
        return run_benchmark.make_job(options).output

    assert output("videomme") == str(tmp_path / "outputs/lmms/mine/h/videomme")
    changed = output("videomme,a/b", "--limit", "3", "--set", "outer.retain_ratio=0.5")
    assert changed == str(tmp_path / "outputs/lmms/mine/h,outer.retain_ratio=0.5/videomme,a_b,limit=3")


def test_the_own_benchmark_needs_no_include_path(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.eval.synthetic.small_data import small_data  # noqa: PLC0415 - makes them when imported first

    monkeypatch.setenv("SYNTHVID_DATA", str(small_data()))
    result, samples = run(HOLITOM, "synthvid", "own", "--limit", "2", data=None)
    assert [sample["video"].startswith("test/clips/") for sample in samples] == [True, True]
    assert result["tasks"]["synthvid"]["seen"] == 2
    assert result["retention"]["inside_llm"]["mean"] < 0.2


def test_relative_folders_count_from_the_callers(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = write_config(tmp_path / "h.yaml", HOLITOM)
    job = run_benchmark.make_job(run_benchmark.parser().parse_args(command(config, tiny, None, "synthvid", tmp_path)))
    for value, expected in ((None, "outputs/synthvid"), ("mine", "mine")):
        monkeypatch.delenv("SYNTHVID_DATA", raising=False)
        if value is not None:
            monkeypatch.setenv("SYNTHVID_DATA", value)
        assert launching.environment(job, None)["SYNTHVID_DATA"] == str(tmp_path / expected)
