"""Records of a benchmark run: one a question, named in the samples, there before its answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eval.benchmarks.lmms.answer_log import AnswerLog
from eval.benchmarks.lmms.records import RecordFolder, record_name
from holitom.record.file import load_record
from tests.eval.benchmarks.lmms_runs import FRAMES, HOLITOM, VANILLA, command, run_here, write_config

TASKS = "egoschema_subset"


@pytest.fixture
def run(tiny: Path, benchmarks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run a configuration in this process."""

    def here(config: dict[str, Any], name: str, *more: str) -> Any:
        path = write_config(tmp_path / "config.yaml", config)
        return run_here(monkeypatch, command(path, tiny, benchmarks, TASKS, tmp_path / name, *more))

    return here


def test_a_record_for_every_question(run: Callable[..., Any], tmp_path: Path) -> None:
    result, samples = run(HOLITOM, "saved", "--save-records")
    plain_result, plain = run(HOLITOM, "plain")
    assert not (tmp_path / "plain" / "records").exists()
    assert [{**sample, "record": f"records/{TASKS}-{sample['doc_id']}.npz"} for sample in plain] == samples
    assert {name for name in result if result[name] != plain_result[name]} == {"times"}
    for sample in samples:
        record = load_record(tmp_path / "saved" / sample["record"])
        [video] = record.videos
        counts, tokens = video.counts(), sample["tokens"]
        assert (counts["tokens"], counts["reach_llm"]) == (tokens["before"], tokens["before_llm"])
        assert counts["stages"][-1]["kept"] == tokens["inside_llm"]
        assert video.pictures().shape[0] == FRAMES == len(video.times)
        assert video.received_attention is not None
        meta = record.meta
        assert (meta["question"], meta["answer"], meta["doc_id"]) == (
            sample["prompt"],
            sample["answer"],
            sample["doc_id"],
        )
        assert (meta["method"], meta["task"], meta["commit"]) == ("holitom", TASKS, result["commit"])
        assert meta["video"] == Path(sample["video"]).name
        assert meta["config"]["compressor"]["inner"]["merge_layer"] == 3
        assert str(tmp_path) not in json.dumps(meta)


def test_resumed_questions_have_their_records(run: Callable[..., Any], tmp_path: Path) -> None:
    """A missing, damaged or foreign record is made again with its answer; all others are not."""
    _, samples = run(HOLITOM, "out", "--save-records")
    files = [tmp_path / "out" / sample["record"] for sample in samples]
    whole = [file.read_bytes() for file in files]
    result, again = run(HOLITOM, "out", "--save-records")
    assert (result["times"]["questions_computed"], result["times"]["questions_resumed"]) == (0, len(files))
    assert again == samples
    for harm in (
        lambda file: file.unlink(),
        lambda file: file.write_bytes(b"x"),
        lambda file: file.write_bytes(whole[1]),
    ):
        harm(files[0])
        result, again = run(HOLITOM, "out", "--save-records")
        assert result["times"]["questions_computed"] == 1
        assert again == samples
        assert [file.read_bytes() for file in files] == whole
    result, _ = run(VANILLA, "out", "--save-records")
    assert result["times"]["questions_computed"] == len(files)
    found = [load_record(file) for file in files]
    assert [record.meta["method"] for record in found] == ["vanilla"] * len(files)
    assert all(record.videos[0].counts()["reach_llm"] == record.videos[0].kinds.size for record in found)
    run(HOLITOM, "out", "--no-resume")
    assert not (tmp_path / "out" / "records").exists()


def test_the_record_is_there_before_the_answer(run: Callable[..., Any], tmp_path: Path, monkeypatch) -> None:
    seen, add = [], AnswerLog.add

    def spy(self: AnswerLog, entry: Any) -> None:
        path = tmp_path / "out" / "records" / record_name(entry.task, entry.doc_id)
        seen.append(load_record(path).meta["key"] == entry.key)
        add(self, entry)

    monkeypatch.setattr(AnswerLog, "add", spy)
    _, samples = run(HOLITOM, "out", "--save-records")
    assert seen == [True] * len(samples)


def test_a_run_that_is_stopped_while_saving_goes_on(run: Callable[..., Any], tmp_path: Path, monkeypatch) -> None:
    class Stop(Exception):
        pass

    def stop(self: RecordFolder, *arguments: Any) -> None:
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(RecordFolder, "add", stop)
        with pytest.raises(Stop):
            run(HOLITOM, "out", "--save-records")
    _, samples = run(HOLITOM, "out", "--save-records")
    assert all((tmp_path / "out" / sample["record"]).is_file() for sample in samples)
