"""lmms-eval's own evaluator on our task definitions, with a model whose answers are given."""

import math
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from eval.synthetic.task import utils
from eval.synthetic.world.dataset import load_questions
from eval.synthetic.world.items import Item
from eval.synthetic.world.questions import FAMILIES, SCORED
from eval.synthetic.world.selection import LETTERS, SPLITS
from llava.errors import InputError
from tests.eval.synthetic.small_data import small_data

TASKS = {"synthvid": "test", "synthvid_long": "long"}
FOLDER = Path(utils.__file__).parent


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("SYNTHVID_DATA", str(small_data()))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf" / "datasets"))
    return small_data()


def given(place: int, item: Item) -> str:
    """Every third answer wrong, every fifth no letter, the others right in different spellings."""
    if place % 5 == 2:
        return "I cannot see it"
    if place % 3 == 1:
        return LETTERS[(item.question.answer + 1) % 4]
    letter = LETTERS[item.question.answer]
    return (letter, f"{letter}.", f"({letter})", f"{letter}. {item.question.options[item.question.answer]}")[place % 4]


def manager() -> Any:
    from lmms_eval.tasks import TaskManager  # noqa: PLC0415

    return TaskManager("ERROR", [str(FOLDER)], False, model_name="llava_onevision")


def evaluate(items: dict[str, list[Item]], seen: dict[str, list[tuple[str, str]]]) -> dict[str, Any]:
    """Both tasks with the given answers; ``seen`` gets the prompts and videos."""
    from lmms_eval import evaluator  # noqa: PLC0415
    from lmms_eval.api.model import lmms  # noqa: PLC0415

    class Given(lmms):
        """Answers from a table."""

        def generate_until(self, requests):
            texts = []
            for request in requests:
                prompt, _, doc_to_visual, doc_id, task, split = request.args
                [video] = doc_to_visual(self.task_dict[task][split][doc_id])
                seen[task].append((prompt, video))
                texts.append(given(doc_id, items[task][doc_id]))
            return texts

        def loglikelihood(self, requests):
            raise NotImplementedError

        def generate_until_multi_round(self, requests):
            raise NotImplementedError

    return evaluator.simple_evaluate(
        model=Given(), tasks=list(TASKS), task_manager=manager(), bootstrap_iters=0, log_samples=True,
        process_docs_parallel=1,
    )  # fmt: skip


def counted(items: list[Item]) -> dict[str, float]:
    """Scores counted by hand."""
    right: dict[str, list[bool]] = defaultdict(list)
    for place, item in enumerate(items):
        right[item.family].append(place % 5 != 2 and place % 3 != 1)
    shares = {f"synthvid_{family}": sum(marks) / len(marks) for family, marks in right.items()}
    unparsed = sum(place % 5 == 2 for place in range(len(items))) / len(items)
    scored = [share for name, share in shares.items() if name.removeprefix("synthvid_") in SCORED]
    return {**shares, "synthvid_accuracy": sum(scored) / len(scored), "synthvid_unparsed": unparsed}


def test_scores_are_those_counted_by_hand(data: Path) -> None:
    items = {task: load_questions(data, split) for task, split in TASKS.items()}
    seen: dict[str, list[tuple[str, str]]] = defaultdict(list)
    outcome = evaluate(items, seen)
    for task, split in TASKS.items():
        assert seen[task] == [(item.question.prompt, str(item.clip)) for item in items[task]]
        wanted = counted(items[task])
        assert 0 < wanted["synthvid_unparsed"] < wanted["synthvid_accuracy"] < 1
        found = {key.split(",")[0]: value for key, value in outcome["results"][task].items() if key.endswith(",none")}
        found = {key: value for key, value in found.items() if "_stderr" not in key}
        assert set(found) == set(wanted)
        assert set(SPLITS[split].families) == {key.removeprefix("synthvid_") for key in found} - {
            "accuracy",
            "unparsed",
        }
        assert found == pytest.approx(wanted)
        sample = outcome["samples"][task][0]
        record = sample["synthvid_accuracy"]
        assert record["family"] == items[task][0].family
        assert sample["target"] == LETTERS[items[task][0].question.answer] == record["answer"]


def test_every_family_has_a_metric() -> None:
    text = (FOLDER / "_synthvid_template_yaml").read_text()
    assert [line for line in FAMILIES if f"metric: synthvid_{line}," not in text] == []


def test_what_gives_no_letter_is_wrong_and_counted() -> None:
    doc = {"id": "x", "family": "scene", "clip": "c", "answer": "A"}
    found = utils.process_results(doc, ["A red circle"])
    assert found["synthvid_accuracy"]["score"] == 0
    assert found["synthvid_accuracy"]["parsed"] is None
    assert found["synthvid_unparsed"]["score"] == 1
    assert found["synthvid_scene"] == found["synthvid_accuracy"]


def test_families_count_the_same_however_many_questions_they_have() -> None:
    records = [{"family": "shape", "score": 1.0}] * 3 + [{"family": "color", "score": 0.0}]
    assert utils.mean_of_families(records) == 0.5
    assert utils.share(records) == 0.75
    assert utils.mean_of_families([*records, {"family": "scene", "score": 0.0}]) == 0.5  # does not count
    assert math.isnan(utils.mean_of_families([{"family": "scene", "score": 1.0}]))


def test_the_projects_harness_judges_our_records() -> None:
    from eval.benchmarks.lmms.scoring import judge  # noqa: PLC0415

    doc = {"id": "x", "family": "scene", "clip": "c", "answer": "B", "options": ["w", "x", "y", "z"]}
    task = SimpleNamespace(process_results=utils.process_results)
    judged = [judge(task, doc, text, utils.process_results(doc, [text]), "B") for text in ("B.", "C", "none")]
    assert [(j.parsed, j.parsed_ok, j.correct) for j in judged] == [
        ("B", True, True), ("C", True, False), (None, False, False),
    ]  # fmt: skip


def test_missing_data_names_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SYNTHVID_DATA", str(tmp_path / "none"))
    listed = manager()  # listing tasks does not ask for the data
    assert set(TASKS) <= set(listed.all_tasks)
    with pytest.raises(InputError, match=r"python -m eval\.synthetic\.world\.dataset .*none --split long"):
        listed.load_task_or_group(["synthvid_long"])
    monkeypatch.delenv("SYNTHVID_DATA")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"outputs/synthvid holds no split 'test'"):
        utils.test_data  # noqa: B018
    with pytest.raises(AttributeError):
        utils.other_data  # noqa: B018
