"""Questions and the answers of each method, for the sample browser: from benchmark runs and from the tiny model.

A :class:`SampleSet` holds questions that several runs answered. The tiny model's answers lie outside the results (they
are large); ``python -m eval.report.page.keep_answers`` packs them into one file beside its tables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eval.benchmarks.runs import Run
from eval.instruments.fingerprints import digest
from eval.report.page.blocks import Block, Browser, Notice, Section, Text
from eval.report.page.sources import Sources
from llava.errors import InputError

_LONGEST = 400  # characters of a raw answer that are shown
QUESTION_KEYS = ("id", "task", "video", "text", "options", "target")


@dataclass
class RunAnswers:
    """What one run answered, one entry a question.

    Attributes:
        text: the answer as given; None where the video could not be used.
        right: whether it is right; None without a public label.
        before_llm: visual tokens at the LLM's entrance.
        inside_llm: those behind the last stage inside it.
        maps: id on the page of the token map, or None.
    """

    text: list[str | None]
    right: list[bool | None]
    before_llm: list[int | None]
    inside_llm: list[int | None]
    maps: list[str | None] = field(default_factory=list)


@dataclass
class SampleSet:
    """Questions that several runs answered; ``questions`` has the keys :data:`QUESTION_KEYS`.

    ``notice`` warns of an instrument or a rehearsal, ``scored`` says which questions count in a score, ``belongs`` is
    the path of the record whose runs these are.
    """

    title: str
    questions: Sequence[Mapping[str, Any]]
    scored: list[bool]
    runs: dict[str, RunAnswers]
    notice: str = ""
    belongs: str = ""

    def packed(self) -> dict[str, Any]:
        """The set as compact JSON: columns instead of rows, one letter for right, wrong and unlabelled, and for an
        answer where every answer is one letter.
        """
        letters = {True: "r", False: "w", None: "u"}
        return {
            "title": self.title,
            "notice": self.notice,
            "questions": [[question[key] for key in QUESTION_KEYS] for question in self.questions],
            "scored": "".join("1" if counts else "0" for counts in self.scored),
            "runs": {
                name: {
                    "text": _lettered(run.text),
                    "right": "".join(letters[mark] for mark in run.right),
                    "before_llm": _shrunk(run.before_llm),
                    "inside_llm": _shrunk(run.inside_llm),
                    **({"maps": run.maps} if any(run.maps) else {}),
                }
                for name, run in self.runs.items()
            },
        }


def _lettered(answers: list[str | None]) -> str | list[str | None]:
    """One text where every answer is one letter."""
    letters = [answer for answer in answers if answer is not None and re.fullmatch("[A-Z]", answer)]
    return "".join(letters) if len(letters) == len(answers) else answers


def _shrunk(counts: list[int | None]) -> int | list[int | None] | None:
    """One number where all are equal."""
    return counts[0] if counts and all(count == counts[0] for count in counts) else counts


def unpacked(raw: Mapping[str, Any], belongs: str = "") -> SampleSet:
    """The reverse of :meth:`SampleSet.packed`.

    Raises:
        InputError: columns of different lengths, or a mark that is none of r, w and u.
    """
    count, marks = len(raw["questions"]), {"r": True, "w": False, "u": None}
    runs = {}
    for name, run in raw["runs"].items():
        counts = run["before_llm"], run["inside_llm"]
        columns = [column if isinstance(column, list) else [column] * count for column in counts]
        lengths = {len(column) for column in (run["text"], run["right"], *columns)}
        if lengths != {count} or set(run["right"]) - set(marks):
            raise InputError(f"the answers of {name} do not fit the {count} questions: pack them again")
        runs[name] = RunAnswers(list(run["text"]), [marks[mark] for mark in run["right"]], *columns)
    questions = [dict(zip(QUESTION_KEYS, values, strict=True)) for values in raw["questions"]]
    scored = [mark == "1" for mark in raw["scored"]]
    if len(scored) != count:
        raise InputError(f"{len(scored)} marks for {count} questions: pack the answers again")
    return SampleSet(str(raw["title"]), questions, scored, runs, str(raw["notice"]), belongs)


def run_sets(sources: Sources, maps: Mapping[str, str]) -> list[SampleSet]:
    """One set for each group of benchmark runs that answered the same questions.

    Args:
        sources: what was read.
        maps: saved record -> id of its picture on the page.
    """
    groups: dict[str, list[Run]] = {}
    for run in sources.runs:
        asked = digest([[sample["subtask"], sample["doc_id"], sample["prompt"]] for sample in run.samples])
        groups.setdefault(f"{run.campaign} {run.model} {asked}", []).append(run)
    # all tokens first, then by name
    ordered = [sorted(runs, key=lambda run: (run.method != "vanilla", run.name)) for runs in groups.values()]
    return [_run_set(sources, runs, maps) for runs in ordered]


def _run_set(sources: Sources, runs: Sequence[Run], maps: Mapping[str, str]) -> SampleSet:
    questions = [
        {
            "id": f"{sample['subtask']} {sample['doc_id']}",
            "task": sample["subtask"],
            "video": str(sample["video"]),
            "text": question_text(str(sample["prompt"]), sample.get("options")),
            "options": sample.get("options"),
            "target": sample.get("target"),
        }
        for sample in runs[0].samples
    ]
    labelled = [sample["correct"] is not None for sample in runs[0].samples]
    tasks = ", ".join(runs[0].tasks)
    rehearsal = runs[0].rehearsal
    notice = f"Rehearsal ({rehearsal}): these answers say nothing about the paper." if rehearsal else ""
    title = f"{runs[0].model}: {tasks}{' (rehearsal)' if rehearsal else ''}"
    answers = {run.name.partition("/")[2]: _answers(sources, run, maps) for run in runs}
    return SampleSet(title, questions, labelled, answers, notice)


def question_text(prompt: str, options: Sequence[str] | None) -> str:
    """The prompt without the options, which are shown as a list."""
    lines = [line for line in prompt.splitlines() if line.strip() and line.strip() not in set(options or ())]
    return "\n".join(re.sub(r"\s+", " ", line) for line in lines)


def _answers(sources: Sources, run: Run, maps: Mapping[str, str]) -> RunAnswers:
    found = RunAnswers([], [], [], [], [])
    for sample in run.samples:
        tokens, answer = sample["tokens"] or {}, sample.get("answer")
        found.text.append(None if answer is None else str(answer)[:_LONGEST])
        found.right.append(sample["correct"])
        found.before_llm.append(tokens.get("before_llm"))
        found.inside_llm.append(tokens.get("inside_llm"))
        record = sample.get("record")
        found.maps.append(maps.get(sources.named(run.folder / str(record))) if record else None)
    return found


def samples_section(sets: Sequence[SampleSet]) -> Section:
    """The browser, or why there is nothing to browse."""
    if not any(found.questions for found in sets):
        text = (
            "No answers among the results. Benchmark runs leave samples.jsonl; the tiny model's are packed by "
            "python -m eval.report.page.keep_answers."
        )
        return Section("samples", "Sample browser", [Notice(text, "absent")])
    said = (
        "Every question with the answers of the methods you choose: ✓ right, ✗ wrong, ? no public label; below it the "
        "visual tokens at the LLM's entrance and behind its last inner stage. Headings sort."
    )
    ordered = sorted(sets, key=lambda found: (-len(found.questions) * len(found.runs), found.title))
    blocks: list[Block] = [Text([said]), Browser(_shared([found.packed() for found in ordered if found.questions]))]
    return Section("samples", "Sample browser", blocks)


def _shared(sets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The sets, with the number of an earlier one in place of questions that this one asked already."""
    for place, later in enumerate(sets):
        same = [at for at, earlier in enumerate(sets[:place]) if earlier["questions"] == later["questions"]]
        if same:
            sets[place] = {**later, "questions": same[0]}
    return sets
