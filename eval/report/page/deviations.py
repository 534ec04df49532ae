"""Where this implementation can follow the release instead, and what each of the two switches was measured to do."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.benchmarks.runs import difference
from eval.report.page.blocks import Block, Cell, Column, Notice, Section, Sheet, figure
from eval.report.page.samples import SampleSet
from eval.report.page.sources import ResultFile, Sources
from eval.report.page.tiny import paired_test
from eval.report.tables.scores import title_of


@dataclass(frozen=True)
class Switch:
    """A setting in which we can differ: ``ours`` is the default here, ``other`` what it is held against."""

    setting: str
    title: str
    ours: Any
    other: Any
    said: str


SWITCHES = (
    Switch(
        "inner.causal",
        "mask of layer k-1",
        True,
        False,
        "Here that layer attends causally. In the release it runs without a mask in the prefill, so that visual tokens "
        "see the question (inner.causal: false).",
    ),
    Switch(
        "inner.merge_rule",
        "merge rule of the inner stage",
        "sequential",
        "mean",
        "Here and in the release each merged token is averaged with its target one after the other; the paper tells "
        "of the mean of the group (inner.merge_rule: mean).",
    ),
)


def flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings as ``inner.causal`` -> value."""
    if not isinstance(settings, dict):
        return {prefix: settings}
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= flat(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def pairs(settings: Mapping[str, Any], switch: Switch) -> Iterator[tuple[str, str]]:
    """Names of the runs that differ in one switch and nothing else, that with our default first.

    Of runs with equal settings, as several ablations have them, the one with the shortest name stands for all.
    """
    shortest: dict[str, str] = {}
    for name in sorted(settings, key=lambda name: (len(name), name)):
        shortest.setdefault(json.dumps(flat(settings[name]), sort_keys=True), name)
    known = {name: flat(settings[name]) for name in shortest.values()}
    for first, second in itertools.permutations(known, 2):
        mine, theirs = known[first], known[second]
        if mine.get(switch.setting) == switch.ours and theirs == {**mine, switch.setting: switch.other}:
            yield first, second


def deviation_section(sources: Sources, sets: Sequence[SampleSet]) -> Section:
    """One table a switch, with every pair of runs that differ in it alone."""
    blocks: list[Block] = []
    for switch in SWITCHES:
        rows = list(_benchmark_rows(sources, switch))
        for record in sources.of("tiny"):
            rows += [row for made in sources.tried(record.path, _tiny_rows, record, switch, sets) for row in made]
        blocks.append(Notice(f"{switch.title[0].upper()}{switch.title[1:]}. {switch.said}", "rule"))
        if not rows:
            text = f"Effect of the {switch.title}: not measured; no two results differ in {switch.setting} alone."
            blocks.append(Notice(text, "absent"))
            continue
        columns = [
            Column("where"),
            Column("our default"),
            Column("the other"),
            Column("ours, %"),
            Column("other, %"),
            Column("other - ours", "points"),
            Column("low", "points"),
            Column("high", "points"),
            Column("p"),
        ]
        slug = "deviation-" + switch.setting.replace(".", "-").replace("_", "-")
        notes = ("Intervals are paired bootstraps over videos (95 %). A dash: the answers are not at hand.",)
        blocks.append(Sheet(slug, f"Measured effect of the {switch.title}", columns, rows, notes))
    for record in sources.of("parity"):
        for text in sources.tried(record.path, _parity, record.result):
            blocks.append(Notice(f"{text} From {record.path}.", "rule"))
    return Section("deviations", "Deviations from the release", blocks)


def _parity(result: Mapping[str, Any]) -> str:
    failed = ", ".join(map(str, result["failed"])) or "none"
    worst = max(float(error) for error in result["max_abs_error"].values() if error is not None)
    runs = result["max_abs_error"].get("e2e") is not None
    whole = "; whole runs are among them with the release's mask and with the causal one" if runs else ""
    return (
        f"Against recordings of the release: {int(result['cases'])} cases, failed: {failed}, largest absolute error "
        f"{worst:.1e}{whole}."
    )


def _benchmark_rows(sources: Sources, switch: Switch) -> Iterator[list[Cell]]:
    runs = {f"{run.campaign} {run.name}": run for run in sources.runs}
    settings = {
        key: {"compressor": run.result["config"]["compressor"], "at": [run.campaign, run.model]}
        for key, run in runs.items()
    }
    named = Switch(f"compressor.{switch.setting}", switch.title, switch.ours, switch.other, switch.said)
    for mine, theirs in pairs(settings, named):
        first, second = runs[mine], runs[theirs]
        for task in first.tasks:
            scores = first.score(task), second.score(task)
            found = difference(second, first, task)
            if found is None or scores[0] is None or scores[1] is None:
                continue
            where = f"{title_of(task)}{' (rehearsal)' if first.rehearsal else ''}"
            gaps = [figure(end, 1, sign=True) for end in (found.value, found.low, found.high)]
            names = [Cell(run.name, code=True) for run in (first, second)]
            values = [figure(score.value, small=f"± {score.error:.1f}") for score in scores if score]
            yield [Cell(where), *names, *values, *gaps, figure(found.p, 3)]


def _tiny_rows(record: ResultFile, switch: Switch, sets: Sequence[SampleSet]) -> list[list[Cell]]:
    rows, frames = record.result["rows"], record.result["frames"]
    answers = next((found for found in sets if found.belongs == record.path), None)
    said = {name: {"frames": frames[name], **flat(value)} for name, value in record.result["settings"].items()}
    found = []
    for mine, theirs in pairs(said, switch):
        names = [Cell(name, code=True) for name in (mine, theirs)]
        scores = [100 * rows[name]["score"] for name in (mine, theirs)]
        errors = [f"± {100 * rows[name]['error']:.1f}" for name in (mine, theirs)]
        values = [figure(score, small=error) for score, error in zip(scores, errors, strict=True)]
        test = None if answers is None else paired_test(answers, mine, theirs)
        gap = figure(scores[1] - scores[0], 1, sign=True)
        found.append(
            [Cell("tiny model (instrument)"), *names, *values, gap, figure(None), figure(None), figure(test, 3)]
        )
    return found
