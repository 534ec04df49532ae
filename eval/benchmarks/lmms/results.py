"""The result of a run: ``result.json`` with its provenance and ``samples.jsonl``, one line a question.

Scores are percentages. A question whose video could not be used and an answer that names no option count as wrong in
``score``; ``score_seen`` leaves the former out; ``harness`` is what lmms-eval itself computed, in its own unit, its
random guesses included and a bad video handed over as an empty answer.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.instruments.kinds import stamped
from eval.instruments.record import write_whole
from llava.errors import InputError

SCHEMA = 1
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
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} holds no readable result ({error}): run the benchmark again") from None
    if not isinstance(result, dict) or result.get("schema") != SCHEMA:
        raise InputError(f"{path} is not of schema {SCHEMA}: run the benchmark again")
    stated = {task: facts["questions"] for task, facts in result["tasks"].items()}
    if stated != dict(Counter(sample["subtask"] for sample in samples)):
        raise InputError(f"{path} and {SAMPLES} beside it count other questions: run the benchmark again")
    return result, samples
