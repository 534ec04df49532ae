"""The result of a run: ``result.json`` with its provenance and ``samples.jsonl``, one line a question.

Scores are percentages. A question whose video could not be used and an answer that names no option count as wrong in
``score``; ``score_seen`` leaves the former out; ``harness`` is what lmms-eval itself computed, in its own unit, its
random guesses included and a bad video handed over as an empty answer.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.instruments.kinds import stamped
from eval.instruments.record import write_whole
from llava.errors import InputError, shown

SCHEMA = 1
OPTION_METRICS = ("mvbench_accuracy", "lvb_acc", "videomme_perception_score")
RESULT, SAMPLES, SUBMISSION = "result.json", "samples.jsonl", "submission.json"


def submission_of(samples: Iterable[Mapping[str, Any]]) -> dict[str, int] | None:
    """EgoSchema's submission, video to number of the option, -1 where none could be read; None without the full set."""
    full = [sample for sample in samples if sample["subtask"] == "egoschema"]
    found = {sample["question_id"]: "ABCDE".index(sample["parsed"]) if sample["parsed"] else -1 for sample in full}
    return found or None


def write_results(folder: Path, result: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> None:
    """Write the samples, EgoSchema's submission if there is one, and last the result, which says that all is there."""
    lines = [json.dumps(sample, sort_keys=True, ensure_ascii=False) + "\n" for sample in samples]
    write_whole(folder / SAMPLES, "".join(lines))
    submission = submission_of(samples)
    if submission is not None:
        write_whole(folder / SUBMISSION, json.dumps(submission, indent=1, sort_keys=True) + "\n")
    write_whole(
        folder / RESULT, json.dumps(stamped("benchmark", result), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    )


def load_result(folder: str | Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Read a finished run.

    Raises:
        InputError: if the run did not finish, is of another version, or its two files disagree.
    """
    path = Path(folder) / RESULT
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        lines = (Path(folder) / SAMPLES).read_text(encoding="utf-8").split("\n")
        samples = [json.loads(line) for line in lines if line]
    except FileNotFoundError as error:
        raise InputError(f"{error.filename} is absent: the run in {folder} did not finish, start it again") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{folder} holds no readable result ({shown(error)}): run the benchmark again") from None
    if not isinstance(result, dict) or result.get("schema") != SCHEMA:
        raise InputError(f"{path} is not of schema {SCHEMA}: run the benchmark again")
    try:
        stated = {task: facts["questions"] for task, facts in result["tasks"].items()}
        counted = dict(Counter(sample["subtask"] for sample in samples))
        if stated != counted:
            raise InputError(f"{path} and {SAMPLES} beside it count other questions: run the benchmark again")
        _check_scores(folder, result["tasks"], samples)
    except InputError:
        raise
    except (LookupError, TypeError, AttributeError, OverflowError, ValueError) as error:
        raise InputError(f"{folder} holds no readable result ({shown(error)}): run the benchmark again") from None
    return result, samples


def _recomputed(sample: Mapping[str, Any]) -> bool | None:
    """``correct`` as it follows from the rest of a sample, for tasks that compare options or score an answer."""
    if not {"target", "parsed", "parsed_ok", "bad_video", "metrics", "answer"} <= sample.keys():
        return sample["correct"]
    paper = sample["metrics"].keys() & set(OPTION_METRICS) or "submission" in sample["metrics"]
    if not paper:  # a user's own task scores as it likes
        return sample["correct"]
    if sample["target"] is None:
        return None
    if sample["bad_video"] is not None or not sample["parsed_ok"]:
        return False if sample["correct"] is not None else None
    letter = re.fullmatch(r"\s*\(?([A-H])[.)]?\s*", str(sample["answer"]))
    if letter and sample["target"] in tuple("ABCDEFGH"):
        return letter[1] == sample["target"]
    return sample["parsed"] == sample["target"]


def _check_scores(folder: str | Path, tasks: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> None:
    """Refuse samples whose ``correct`` does not follow from them, and a score that they do not give."""
    wrong = [s for s in samples if "correct" in s and s["correct"] != _recomputed(s)]
    if wrong:
        first = f"{wrong[0]['subtask']}, question {wrong[0].get('doc_id')}"
        raise InputError(
            f"{Path(folder) / SAMPLES}: 'correct' of {len(wrong)} of {len(samples)} answers ({first}) does not follow "
            "from answer and target, the file was edited: run the benchmark again"
        )
    for task, facts in tasks.items():
        known = [s["correct"] for s in samples if s["subtask"] == task and s.get("correct") is not None]
        if known and facts.get("score") is not None:
            score = 100 * sum(known) / len(known)
            if abs(score - facts["score"]) > 1e-9 or facts.get("correct", sum(known)) != sum(known):
                raise InputError(
                    f"{Path(folder) / RESULT} says {facts['score']:.1f} for {task}, its samples give {score:.1f}: one "
                    "of the files was edited, run the benchmark again"
                )
