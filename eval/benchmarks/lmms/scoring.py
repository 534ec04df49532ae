"""From the harness' metric dict of one question to: which option was meant, could it be read, was it right."""

import random
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

Metrics = Mapping[str, Any]
Doc = Mapping[str, Any]
LETTERS = string.ascii_uppercase
# what is no category in a metric dict or a question
_RESULTS = frozenset(
    (
        "score",
        "correct",
        "answer",
        "pred",
        "pred_answer",
        "parsed",
        "parsed_pred",
        "gt_answer",
        "ground_truth",
        "target",
        "question_id",
        "id",
    )
)
_CATEGORIES = (
    "duration",
    "domain",
    "sub_category",
    "task_type",
    "duration_group",
    "question_category",
    "family",
    "category",
)


@dataclass(frozen=True)
class Judged:
    """One answer, judged by the harness' own code, a guess of the harness counted as wrong.

    Attributes:
        target: letter of the right option, or its text; None without a label.
        parsed: the option the answer was taken for; None where none could be read.
        parsed_ok: whether one could be read.
        correct: None without a label.
    """

    target: str | None
    parsed: str | None
    parsed_ok: bool
    correct: bool | None


def _letter(index: Any) -> str | None:
    """A letter for 0, 1, ... given as number or text; None for anything else."""
    text = str(index)
    return LETTERS[int(text)] if text.isdecimal() and int(text) < len(LETTERS) else None


def _mvbench(task: Any, doc: Doc, answer: str, metrics: Metrics) -> tuple[str | None, str | None]:
    """Target and option; the option is the one that the task would have scored as right."""
    found = metrics["mvbench_accuracy"]
    for option in doc["candidates"]:
        supposed = task.process_results({**doc, "answer": option}, [answer])["mvbench_accuracy"]
        if supposed["score"] == 1:
            return found["gt_answer"], supposed["gt_answer"]
    return found["gt_answer"], None


def _egoschema(task: Any, doc: Doc, answer: str, metrics: Metrics) -> tuple[str | None, str | None]:
    found = metrics["score"]
    return _letter(found["ground_truth"]), _letter(found["pred"])


def _longvideobench(task: Any, doc: Doc, answer: str, metrics: Metrics) -> tuple[str | None, str | None]:
    found = metrics["lvb_acc"]
    return found["answer"], found["parsed_pred"]


def _videomme(task: Any, doc: Doc, answer: str, metrics: Metrics) -> tuple[str | None, str | None]:
    found = metrics["videomme_perception_score"]
    return found["answer"], found["pred_answer"] or None


_READERS: dict[str, Callable[[Any, Doc, str, Metrics], tuple[str | None, str | None]]] = {
    "mvbench_accuracy": _mvbench,
    "lvb_acc": _longvideobench,
    "videomme_perception_score": _videomme,
}


def guessed(task: Any, doc: Doc, answer: str) -> bool:
    """Whether the task draws a random option for this answer: its code then moves the random generator."""
    before = random.getstate()
    try:
        task.process_results(doc, [answer])
        return random.getstate() != before
    finally:
        random.setstate(before)


def _of_any_task(doc: Doc, metrics: Metrics, target: Any) -> Judged:
    """Any other task: a metric that is a number, or a dict with ``score`` or ``correct``, or with option and answer."""
    for value in metrics.values():
        fields = value if isinstance(value, Mapping) else {"score": value}
        score = fields.get("score", fields.get("correct"))
        if isinstance(score, bool | int | float):
            names = ("parsed", "parsed_pred", "pred_answer", "pred")
            parsed = next((str(fields[name]) for name in names if fields.get(name) not in (None, "")), None)
            can_tell = any(name in fields for name in names)
            return Judged(str(target), parsed, parsed is not None or not can_tell, score == 1)
        if {"pred_answer", "answer"} <= fields.keys():  # the task's aggregation compares the two
            parsed = fields["pred_answer"] or None
            return Judged(str(fields["answer"]), parsed, parsed is not None, parsed == fields["answer"])
    return Judged(str(target), None, False, None)


def _asked_again(task: Any, doc: Doc, answer: str, judged: Judged) -> Judged:
    """The letter that the task would have scored as right, of a metric that only says whether it was."""
    for letter in LETTERS[:8]:
        supposed = task.process_results({**doc, "answer": letter}, [answer])
        if _of_any_task(doc, supposed, letter).correct:
            return replace(judged, parsed=letter)
    return replace(judged, parsed_ok=False)


def judge(task: Any, doc: Doc, answer: str, metrics: Metrics, target: Any) -> Judged:
    """Judge one answer.

    Args:
        task: the harness' task, whose ``process_results`` made ``metrics``.
        doc: the question.
        answer: the model's text.
        metrics: the harness' metric dict of this answer.
        target: the harness' target.
    """
    random_guess = guessed(task, doc, answer)
    reader = next((_READERS[name] for name in _READERS if name in metrics), None)
    if reader is None and {"score", "submission"} <= metrics.keys() and "option" in doc:
        reader = _egoschema
    if reader is None:
        judged = _of_any_task(doc, metrics, target)
        if judged.parsed is None and judged.parsed_ok and doc.get("answer") in tuple(LETTERS[:8]):
            judged = _asked_again(task, doc, answer, judged)
        wrong = None if judged.correct is None else False
        return Judged(judged.target, None, False, wrong) if random_guess else judged
    right, parsed = reader(task, doc, answer, metrics)
    parsed = None if random_guess else parsed
    return Judged(right, parsed, parsed is not None, None if right is None else parsed == right)


def options_of(doc: Doc) -> list[str] | None:
    """The options of a question in order, where the task has them in a known column."""
    for column in ("candidates", "option", "options"):
        if isinstance(doc.get(column), list):
            return [str(option) for option in doc[column]]
    numbered = [doc.get(f"option{number}") for number in range(5)]
    return [str(option) for option in numbered if option not in (None, "N/A")] or None


def fields_of(doc: Doc, metrics: Metrics) -> dict[str, Any]:
    """What categories are rebuilt from: the plain values of the metric dicts, and known columns of the question."""
    found = {name: doc[name] for name in _CATEGORIES if isinstance(doc.get(name), str | int | float)}
    for metric, value in metrics.items():
        if isinstance(value, Mapping) and metric != "submission":
            found |= {k: v for k, v in value.items() if isinstance(v, str | int | float) and k not in _RESULTS}
    return found


def question_id(doc: Doc) -> str | None:
    """The question's own name in its data set."""
    return next((str(doc[name]) for name in ("question_id", "id", "video_idx") if doc.get(name) is not None), None)
