"""Answers of the tiny model: read from the folder in which they were kept, or from the file they were packed into."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.report.page.samples import RunAnswers, SampleSet, unpacked
from eval.report.page.sources import ResultFile, Sources
from eval.report.tables.tiny import about
from eval.synthetic.world.items import letter_of
from eval.synthetic.world.questions import SCORED
from llava.errors import InputError

_OPTION = "ABCDEFGH"


def packed_sets(sources: Sources) -> dict[str, SampleSet]:
    """Packed answers among the results, by the path of the record that they belong to."""
    found: dict[str, SampleSet] = {}
    for record in sources.records:
        if record.kind == "answers":
            for sets in sources.tried(record.path, _sets, sources, record):
                found.update(sets)
    return found


def _sets(sources: Sources, packed: ResultFile) -> dict[str, SampleSet]:
    sets = {}
    for stem, raw in packed.result["sets"].items():
        path = (Path(packed.path).parent / f"{stem}.json").as_posix()
        tables = [record for record in sources.of("tiny") if record.path == path]
        found = unpacked(raw, path)
        if tables:
            check(found, tables[0])
        sets[path] = found
    return sets


def check(found: SampleSet, record: ResultFile) -> None:
    """Hold marks against the answers, and these against the table made from them: the share of every family.

    Raises:
        InputError: they differ.
    """
    families = [question["task"] for question in found.questions]
    for name, run in found.runs.items():
        true = [
            letter_of(text or "") == question["target"]
            for text, question in zip(run.text, found.questions, strict=True)
        ]
        if true != list(map(bool, run.right)):
            raise InputError(f"the marks of {name} do not follow from its answers, of {record.path}: pack them again")
        for family, share in record.result["rows"][name]["families"].items():
            marks = [bool(mark) for mark, kind in zip(run.right, families, strict=True) if kind == family]
            if not marks or abs(sum(marks) / len(marks) - share) > 1e-9:
                raise InputError(f"the answers of {name} to {family} are not those of {record.path}: pack them again")


def kept_set(record: ResultFile, answers: Path, data: Path) -> SampleSet:
    """The answers behind a recorded table of the tiny model.

    Args:
        record: the table.
        answers: folder of the answers (``--answers`` of ``eval.synthetic.answers.table``).
        data: folder of the data set, for the questions' text.

    Raises:
        InputError: no answers to this table there, or other ones.
    """
    result = record.result
    lines = _jsonl(data / result["split"] / "questions.jsonl")
    files = [rows for path in sorted(answers.glob("*.jsonl")) if (rows := _jsonl(path)) and _fits(rows[0], result)]
    by_run = {rows[0]["run"]: {row["id"]: row for row in rows[1:]} for rows in files}
    runs: dict[str, dict[str, dict[str, Any]]] = {}
    for name in result["settings"]:
        said = {"settings": result["settings"][name], "frames": result["frames"][name], "blank": False}
        found = by_run.get(json.dumps(said, sort_keys=True))
        if found:
            runs[name] = found
    if not runs:
        raise InputError(f"{answers} holds no answers behind {record.path}: name the --answers folder of its command")
    asked = set.intersection(*(set(found) for found in runs.values()))
    questions = [line for line in lines if line["id"] in asked]
    if result["limit"] is None and len(questions) != len(lines):
        raise InputError(f"{answers} holds {len(questions)} of the {len(lines)} answers behind {record.path}")
    made = SampleSet(
        f"Tiny model, {about(result)}",
        [_question(line) for line in questions],
        [line["family"] in SCORED for line in questions],
        {name: _answers(found[line["id"]] for line in questions) for name, found in runs.items()},
        str(result["notice"]),
        record.path,
    )
    check(made, record)
    return made


def _fits(header: Mapping[str, Any], result: Mapping[str, Any]) -> bool:
    return all(header.get(key) == result[key] for key in ("checkpoint", "data", "split"))


def _question(line: Mapping[str, Any]) -> dict[str, Any]:
    options: Sequence[str] = line["options"]
    return {
        "id": line["id"],
        "task": line["family"],
        "video": line["clip"],
        "text": line["question"],
        "options": [f"{_OPTION[place]}. {option}" for place, option in enumerate(options)],
        "target": line["answer"],
    }


def _answers(rows: Iterable[Mapping[str, Any]]) -> RunAnswers:
    found = RunAnswers([], [], [], [])
    for row in rows:
        found.text.append(str(row["answer"]))
        found.right.append(bool(row["right"]))
        found.before_llm.append(int(row["outer"]))
        found.inside_llm.append(int(row["inside"]))
    return found


def _jsonl(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): make it again") from None
