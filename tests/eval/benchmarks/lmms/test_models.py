"""Our models inside lmms-eval: the stock models' prompts and answers, tokens per stage, and no silent failure."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from eval.benchmarks.lmms import models
from eval.benchmarks.lmms.harness import HarnessOutput, evaluate, names_unless_mentioned, task_manager
from llava.errors import InputError
from llava.video import load_video
from tests.clips import ClipSpec, write_clip
from tests.eval.benchmarks.lmms_runs import FRAMES, THREE, copy_data, enter

TASKS = ["mvbench_action_antonym", *THREE.split(",")]
Answers = dict[tuple[str, int], str]


@pytest.fixture(autouse=True)
def _place(benchmarks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(benchmarks, tmp_path / "cache", monkeypatch)


def answers_of(outcome: HarnessOutput | None) -> tuple[Answers, Answers]:
    """Answers and prompts by question, as the harness logged them."""
    assert outcome is not None
    samples = [(task, raw) for task, raws in outcome.results["samples"].items() for raw in raws]
    answers = {(task, raw["doc_id"]): raw["filtered_resps"][0] for task, raw in samples}
    return answers, {(task, raw["doc_id"]): raw["arguments"][0] for task, raw in samples}


def ours(stock_id: str, tiny: Path, tmp_path: Path, **arguments: Any) -> Any:
    name = {"llava_onevision": "LlavaOneVisionCompressed", "llava_vid": "LlavaVidCompressed"}[stock_id]
    arguments = {"max_frames_num": FRAMES, "answers": str(tmp_path / "answers"), **arguments}
    return getattr(models, name)(pretrained=str(tiny), **arguments)


@pytest.fixture
def closing() -> Iterator[list[Any]]:
    made: list[Any] = []
    yield made
    for model in made:
        model.close()


VID = {"conv_template": "qwen_1_5", "torch_dtype": "bfloat16"}


@pytest.mark.parametrize(
    ("stock_id", "arguments"),
    [
        ("llava_onevision", {}),
        ("llava_vid", {**VID, "force_sample": True, "add_time_instruction": True}),
        ("llava_vid", {**VID, "max_frames_num": 2, "add_time_instruction": True}),
        ("llava_vid", {**VID, "max_frames_num": 9, "video_fps": 3, "add_time_instruction": True}),
    ],
)
def test_vanilla_answers_like_the_stock_model(
    stock_id: str, arguments: dict[str, Any], tiny: Path, tmp_path: Path
) -> None:
    from lmms_eval.models import get_model  # noqa: PLC0415 - slow

    arguments = {"max_frames_num": FRAMES, "conv_template": "qwen_1_5", **arguments}
    stock = get_model(stock_id)(pretrained=str(tiny), device="cpu", device_map="auto", **arguments)
    stock.tasks = {}
    expected, prompts = answers_of(evaluate(stock, stock_id, TASKS, limit=1))
    model = ours(stock_id, tiny, tmp_path, **arguments)
    found, ours_prompts = answers_of(evaluate(model, stock_id, TASKS, limit=1))
    model.close()
    assert len(expected) == len(TASKS)
    assert found == expected
    assert ours_prompts == prompts == {key: entry.prompt for key, entry in model.served.entries.items()}
    assert len({answer for answer in found.values()}) > 1
    for entry in model.served.entries.values():
        assert entry.tokens is not None
        assert entry.tokens["before"] == entry.tokens["before_llm"] == entry.tokens["layer_mean"] > 0


def test_the_prompt_is_the_stock_models_under_any_name(tiny: Path, tmp_path: Path, closing: list[Any]) -> None:
    """The words of videomme go by the name given to --model, which for us is another one."""
    model = ours("llava_vid", tiny, tmp_path, max_frames_num=1, force_sample=True, **VID)
    closing.append(model)
    outcome = evaluate(model, "llava_vid_compressed", ["videomme"], limit=1)
    _, given = answers_of(outcome)
    [asked] = [entry.prompt for entry in model.served.entries.values()]
    assert asked.endswith("\nThe best answer is:")
    assert given["videomme", 0].endswith("directly.")
    assert asked.partition("\nThe best")[0] == given["videomme", 0].partition("\n\nAnswer")[0]


def test_by_name_and_model_args(tiny: Path, tmp_path: Path) -> None:
    """As ``python -m lmms_eval --model llava_onevision_compressed --model_args ...`` does it."""
    from lmms_eval.models import get_model  # noqa: PLC0415 - slow

    settings = f"method=holitom,retain_ratio=0.2,merge_layer=3,model.num_frames={FRAMES}"
    arguments = f"pretrained={tiny},{settings},answers={tmp_path / 'answers'}"
    model = get_model("llava_onevision_compressed").create_from_arg_string(
        arguments, {"batch_size": 1, "max_batch_size": None, "device": "cpu"}
    )
    evaluate(model, "llava_onevision", ["mvbench_action_antonym"])
    model.close()
    assert (model.served.computed, model.served.resumed) == (3, 0)
    assert model.served.config["compressor"]["outer"]["retain_ratio"] == 0.2
    for entry in model.served.entries.values():
        tokens = entry.tokens
        assert tokens["before"] == FRAMES * 196
        assert tokens["before_llm"] <= 0.2 * tokens["before"] + FRAMES
        assert tokens["inside_llm"] <= 0.5 * tokens["before_llm"] + 1
        assert tokens["layer_mean"] == (tokens["before_llm"] + tokens["inside_llm"]) / 2  # 3 of 6 layers each
        assert entry.reader == "pyav"


def test_answers_are_used_again_only_for_the_same_question(
    tiny: Path, tmp_path: Path, benchmarks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def counts(**arguments: Any) -> tuple[int, int]:
        model = ours("llava_onevision", tiny, tmp_path, **arguments)
        evaluate(model, "llava_onevision", ["egoschema_subset"])
        model.close()
        return model.served.computed, model.served.resumed

    assert [counts(), counts()] == [(2, 0), (0, 2)]
    assert counts(max_frames_num=3) == (2, 0)
    assert [counts(method="uniform"), counts(method="uniform", retain_ratio=0.25)] == [(2, 0), (2, 0)]
    assert counts(method="uniform", retain_ratio=0.25, on_bad_video="count") == (0, 2)
    data = copy_data(benchmarks, tmp_path / "data")
    enter(data, tmp_path / "cache", monkeypatch)
    assert counts() == (0, 2)  # the same videos in another folder
    for path in (data / "hf/egoschema/videos").iterdir():
        write_clip(path, ClipSpec(frames=30))
    assert counts() == (2, 0)  # other videos of the same names


def test_a_method_that_did_nothing_fails(tiny: Path, tmp_path: Path, closing: list[Any]) -> None:
    model = ours("llava_onevision", tiny, tmp_path, method="fastv")
    closing.append(model)
    model._compressor.inner.remove()  # a mode that was never switched on
    with pytest.raises(InputError, match="nothing was compressed in 3 question"):
        evaluate(model, "llava_onevision", ["videomme"])
    half = ours("llava_onevision", tiny, tmp_path / "half", method="holitom", retain_ratio=0.25, merge_layer=3)
    closing.append(half)
    half._compressor.inner.remove()  # the outer stage alone would pass for the whole method
    with pytest.raises(InputError, match=r"nothing was compressed in 2 question.* by the inner stage"):
        evaluate(half, "llava_onevision", ["egoschema_subset"])
    idle = ours("llava_onevision", tiny, tmp_path / "fresh", method="uniform", retain_ratio=1.0)
    closing.append(idle)
    evaluate(idle, "llava_onevision", ["egoschema_subset"])  # says itself that it keeps all
    assert {entry.tokens["before_llm"] for entry in idle.served.entries.values()} == {FRAMES * 196}


def test_an_answer_without_the_video_is_refused(
    tiny: Path, tmp_path: Path, closing: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stock model logs what went wrong with a video, and answers without one."""
    for stock_id, more in (("llava_onevision", {}), ("llava_vid", VID)):
        model = ours(stock_id, tiny, tmp_path / stock_id, **more)
        closing.append(model)
        monkeypatch.setattr(model, "_image_processor", None)
        with pytest.raises(InputError, match=r"given \[\] frames instead of"):
            evaluate(model, stock_id, ["egoschema_subset"])
        assert (tmp_path / stock_id / "answers" / "rank-0.jsonl").read_text() == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"on_bad_video": "skip"}, "on_bad_video = 'skip'"),
        ({"batch_size": 4}, "batch_size = 4"),
        ({"video_decode_backend": "pyav"}, "video_decode_backend"),
        ({"retain_ratio": 0.2}, "needs a method"),
        ({"method": "holitom", "max_frame_num": 8}, "max_frame_num.* is unknown"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        ours("llava_onevision", tiny, tmp_path, **arguments)


def test_llava_vid_must_not_take_the_checkpoint_for_another(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="rename the folder"):
        ours("llava_vid", tmp_path / "yi", tmp_path)


def test_unknown_tasks_and_missing_questions(tiny: Path, tmp_path: Path, closing: list[Any]) -> None:
    model = ours("llava_onevision", tiny, tmp_path)
    closing.append(model)
    with pytest.raises(InputError, match="'videomm' is unknown to lmms-eval: did you mean videomme"):
        evaluate(model, "llava_onevision", ["videomm"])
    with pytest.raises(InputError, match="is no folder"):
        evaluate(model, "llava_onevision", ["videomme"], include_path=str(tmp_path / "absent"))


def test_a_name_in_no_definition_waits_for_no_index(tmp_path: Path) -> None:
    """One that stands in a definition, in whatever role, is left to the index; part of a name is no mention."""
    (tmp_path / "a").mkdir()
    one = 'task: "first_task"\ntag:\n  - listed\ngroup: all-of-it\ninclude: base_yaml\n'
    (tmp_path / "a" / "one.yaml").write_text(one)
    (tmp_path / "a" / "base_yaml").write_text("task : second\n")
    (tmp_path / "a" / "code.py").write_text("third")
    for task in ("first_task", "second", "listed", "all-of-it", "include"):
        assert names_unless_mentioned([task], tmp_path) is None
    for task in ("first", "all-of", "third", "fir.t_task"):
        assert names_unless_mentioned(["second", task], tmp_path) == {"first_task", "listed", "second", "all-of-it"}


def test_no_name_of_the_harness_is_taken_for_unknown() -> None:
    """Those of the paper's folders, by its own index."""
    import lmms_eval.tasks  # noqa: PLC0415 - slow

    folder = Path(str(lmms_eval.tasks.__file__)).parent
    manager = task_manager("llava_onevision", ("mvbench", "videomme", "lvbench"), None)
    assert len(manager.all_tasks) > 20
    assert names_unless_mentioned(manager.all_tasks, folder) is None


def test_frames_are_those_the_stock_reader_takes(benchmarks: Path) -> None:
    from decord import VideoReader  # noqa: PLC0415 - has no wheel everywhere

    path = next((benchmarks / "hf/videomme/data").iterdir())
    clip = load_video(path, FRAMES)
    assert np.array_equal(clip.frames, VideoReader(str(path)).get_batch(list(clip.indices)).asnumpy())


def test_another_process_question_is_left_to_it(tiny: Path, tmp_path: Path, closing: list[Any]) -> None:
    """A process without questions of its own is given one that does not count."""
    model = ours("llava_onevision", tiny, tmp_path)
    closing.append(model)
    padding = SimpleNamespace(args=("?", {}, None, 0, "videomme", "test"), metadata={"__padding_only__": True})
    assert model.generate_until([padding]) == [""]
    assert (model.served.entries, model.served.computed) == ({}, 0)
