"""The parts of the plug-in that need no harness: the log, settings, fingerprints, and that importing it is cheap."""

import errno
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from eval.benchmarks.lmms.answer_log import AnswerLog, Entry
from eval.benchmarks.lmms.settings import run_config, stages_that_compress
from eval.benchmarks.setup import video_digest
from eval.instruments.fingerprints import checkpoint_identity, digest, file_digest, local_checkpoint
from holitom.compressor import Compressor
from llava.errors import CheckpointError, InputError, VideoError

ENTRY = Entry("videomme", 3, "k3", "What?", "a.mp4", "s", "B\r\u2028ü", {"before": 1}, "decord", 4, "i", 0.5)


def test_a_log_gives_back_what_was_written(tmp_path: Path) -> None:
    with AnswerLog(tmp_path / "log") as log:
        assert log.get("k3") is None
        log.add(ENTRY)
        assert log.get("k3") == ENTRY
    with AnswerLog(tmp_path / "log", rank=1) as log:  # another process reads the files of all
        assert (log.get("k3"), len(log)) == (ENTRY, 1)


@pytest.mark.parametrize("kept", [1, 30, -1])
def test_a_torn_last_line_costs_one_answer(tmp_path: Path, kept: int) -> None:
    with AnswerLog(tmp_path) as log:
        log.add(ENTRY)
        log.add(replace(ENTRY, key="k4"))
    path = tmp_path / "rank-0.jsonl"
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + second[:kept])
    for round_ in range(2):
        with AnswerLog(tmp_path) as log:
            assert log.get("k3") == ENTRY
            assert (log.get("k4") is None) == (round_ == 0 and kept != -1)  # -1 loses the line's end alone
            if round_ == 0:
                log.add(replace(ENTRY, key="k5"))  # not glued to the torn line
                log.add(replace(ENTRY, key="k4"))
            assert log.get("k5") == replace(ENTRY, key="k5")


def test_an_answer_is_on_disk_when_add_returns(tmp_path: Path) -> None:
    with AnswerLog(tmp_path) as log:
        log.add(ENTRY)
        assert json.loads((tmp_path / "rank-0.jsonl").read_text())["key"] == "k3"


def test_lines_of_another_version_are_not_used(tmp_path: Path) -> None:
    (tmp_path / "rank-0.jsonl").write_text('{"key": "k3", "answer": "B"}\n[1]\n')
    with AnswerLog(tmp_path) as log:
        assert len(log) == 0


def test_two_runs_cannot_write_one_log(tmp_path: Path) -> None:
    with AnswerLog(tmp_path), pytest.raises(InputError, match="being written by another run"):
        AnswerLog(tmp_path)
    AnswerLog(tmp_path).close()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        AnswerLog(tmp_path / "file" / "log")


def test_settings_by_their_last_name(tmp_path: Path) -> None:
    run = run_config(None, "holitom", {"retain_ratio": 0.2, "inner.merge_layer": 5, "model.num_frames": 8})
    assert (run.compressor.outer.retain_ratio, run.compressor.inner.merge_layer, run.model.num_frames) == (0.2, 5, 8)
    assert run_config(None, "fastv", {"compressor.prune_layer": 4}).compressor.prune_layer == 4
    assert run_config(None, "holitom", {"fill_budget": True}).fill_budget
    assert not run.fill_budget
    file = tmp_path / "a.yaml"
    file.write_text("compressor: {method: fastv, prune_layer: 3}\nmodel: {num_frames: 6}\n")
    run = run_config(str(file), None, {"prune_ratio": 0.5})
    assert (run.compressor.prune_layer, run.compressor.prune_ratio, run.model.num_frames) == (3, 0.5, 6)
    for method in (None, "vanilla"):
        assert run_config(None, method, {}).as_dict()["compressor"] is None


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("holitom", {"retain_ration": 0.2}, "retain_ration.* is unknown; holitom has outer.retain_ratio"),
        ("vanilla", {"retain_ratio": 0.2}, "needs a method"),
        ("holitum", {}, "is unknown"),
        ("holitom", {"retain_ratio": 1.5}, "retain_ratio"),
        ("dycoke", {"ratio": 1}, "is unknown"),
    ],
)
def test_wrong_settings(method: str, settings: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run_config(None, method, settings)


def test_a_file_or_a_method(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give one of them"):
        run_config(str(tmp_path / "a.yaml"), "fastv", {})


@pytest.mark.parametrize(
    ("method", "settings", "expected"),
    [
        ("vanilla", {}, []),
        ("uniform", {"retain_ratio": 1.0}, []),
        ("uniform", {"retain_ratio": 0.5}, ["outer"]),
        ("fastv", {}, ["inner"]),
        ("fastv", {"prune_ratio": 0.0}, []),
        ("holitom", {}, ["outer", "inner"]),
        ("holitom", {"retain_ratio": 1.0}, ["inner"]),
        ("holitom", {"retain_ratio": 1.0, "merge_ratio": 0.0}, []),
    ],
)
def test_what_must_leave_tokens_out(method: str, settings: dict[str, float], expected: list[str]) -> None:
    compressor = run_config(None, method, settings).build() or Compressor(None, None)
    assert stages_that_compress(compressor, 8, 196) == expected


def test_a_digest_is_of_the_contents() -> None:
    assert digest({"a": 1, "b": [2.5, None]}) == digest({"b": [2.5, None], "a": 1}) != digest({"a": 1, "b": [2.5, 0]})
    assert digest([1, 2]) == digest((1, 2))
    with pytest.raises(TypeError):
        digest({"a": object()})


def test_a_checkpoint_is_its_weights(tiny: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in tiny.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    first = checkpoint_identity(tiny)
    assert checkpoint_identity(copy) == first
    assert first["random"] is True
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    changed = checkpoint_identity(copy)
    assert changed["weights_sha256"] != first["weights_sha256"]
    assert changed["files"]["config.json"] == first["files"]["config.json"]
    (copy / "config.json").unlink()
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        checkpoint_identity(copy)


def test_absent_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no folder"):
        local_checkpoint(tmp_path / "absent")
    assert local_checkpoint(tmp_path) == tmp_path.resolve()


def test_a_video_is_its_contents(tmp_path: Path) -> None:
    small, large = tmp_path / "small.mp4", tmp_path / "large.mp4"
    small.write_bytes(b"abc")
    large.write_bytes(bytes(20 << 20))
    before = video_digest(small), video_digest(large), file_digest(small)
    small.write_bytes(b"abd")
    content = bytearray(20 << 20)
    content[-1] = 1
    large.write_bytes(content)
    after = video_digest(small), video_digest(large), file_digest(small)
    assert all(one != other for one, other in zip(before, after, strict=True))
    (tmp_path / "renamed.mp4").write_bytes(b"abd")
    assert video_digest(tmp_path / "renamed.mp4") == after[0]
    large.write_bytes(content[:-1])
    assert video_digest(large) != after[1]
    small.write_bytes(b"")
    for path in (small, tmp_path / "absent.mp4", tmp_path):
        with pytest.raises(VideoError, match=path.name):
            video_digest(path)


def test_the_entry_point_imports_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "lmms_eval", "holitom"}
    code = f"import sys, eval.benchmarks.plugin; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_edited_and_damaged_lines_of_a_log_are_told_and_not_used(tmp_path: Path, capsys) -> None:
    with AnswerLog(tmp_path) as log:
        log.add(ENTRY)
        log.add(replace(ENTRY, key="k4"))
    path = tmp_path / "rank-0.jsonl"
    first, second = path.read_text(encoding="utf-8").split("\n")[:2]
    raw = json.loads(first)
    wrong = [{**raw, "seconds": "x"}, {**raw, "tokens": [1]}, {**raw, "answer": ["B"]}]
    signed = [{**each, "sha256": digest({k: v for k, v in each.items() if k != "sha256"})} for each in wrong]
    edited = json.dumps({**raw, "answer": "A"})
    for line in [edited, *map(json.dumps, signed), "[" * 100000, '{"key": ' + "[" * 100000]:
        path.write_text(f"{second}\n{line}\n", encoding="utf-8")
        with AnswerLog(tmp_path) as log:
            assert (log.get("k3"), log.get("k4")) == (None, replace(ENTRY, key="k4"))
        said = capsys.readouterr().err
        assert said.startswith(f"{path}, line 2 ")
        assert said.endswith(": computed again\n")
        assert said.count("\n") == 1


def test_samples_edited_by_hand_are_refused(tmp_path: Path) -> None:
    from eval.benchmarks.lmms.results import load_result  # noqa: PLC0415

    sample = {
        "subtask": "videomme", "doc_id": 1, "target": "A", "parsed": "B", "parsed_ok": True, "bad_video": None,
        "answer": "B", "correct": False, "metrics": {"videomme_perception_score": {}},
    }  # fmt: skip
    facts = {"questions": 1, "correct": 0, "score": 0.0}
    for change, score, message in (
        ({}, 0.0, None),
        ({"correct": True}, 0.0, "'correct' of 1 of 1 answers .videomme, question 1. does not follow"),
        ({"correct": True, "parsed": "A"}, 100.0, "does not follow"),  # the answer is still B
        ({}, 78.3, "says 78.3 for videomme, its samples give 0.0"),
    ):
        (tmp_path / "samples.jsonl").write_text(json.dumps({**sample, **change}) + "\n")
        result = {"schema": 1, "tasks": {"videomme": {**facts, "score": score}}}
        (tmp_path / "result.json").write_text(json.dumps(result))
        if message is None:
            assert load_result(tmp_path)[1] == [sample]
        else:
            with pytest.raises(InputError, match=message):
                load_result(tmp_path)


def test_ctrl_c_says_what_is_kept(tmp_path: Path, capsys) -> None:
    from eval.benchmarks.lmms.worker import interruptible  # noqa: PLC0415

    with AnswerLog(tmp_path / "answers") as log:
        log.add(ENTRY)
    with pytest.raises(SystemExit) as stop, interruptible(tmp_path):
        raise KeyboardInterrupt
    assert stop.value.code == 130
    assert capsys.readouterr().err == (
        f"stopped: 1 answers are kept in {tmp_path / 'answers'}; the same command continues\n"
    )


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_is_told_as_one(number: int, capsys) -> None:
    from eval.benchmarks.lmms.harness import _explained  # noqa: PLC0415
    from eval.instruments.cli import user_errors  # noqa: PLC0415

    error = OSError(number, "x", "out/rank-0.jsonl")
    told = _explained(error, ["videomme"])
    assert isinstance(told, InputError)
    assert "the disk gave up" in str(told)
    assert "cannot be loaded" not in str(told)

    @user_errors
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "out/rank-0.jsonl: the disk gave up" in capsys.readouterr().err
