"""Latency, memory and the time that methods add: charts and tables from what was measured on the devices at hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eval.efficiency.sheets import METHODS, OUTER, STAGE_TIMES, STAGES, STEPS, TOKENS, outer_rows
from eval.report.page.blocks import Block, Notice, Section
from eval.report.page.charts import stacked
from eval.report.page.sheets import sheet_of
from eval.report.page.sources import ResultFile, Sources
from eval.report.page.tiny import source_note


def efficiency_section(sources: Sources) -> Section:
    """A chart and a table for each latency record, real token counts, and the time that methods add."""
    blocks: list[Block] = []
    latencies = sources.of("latency")
    if not latencies:
        text = (
            "Latency: not measured. python -m eval.efficiency.latency records it as "
            "results/<device>/latency_<geometry>.json."
        )
        blocks.append(Notice(text, "absent"))
    for kind, make in _MAKERS.items():
        for record in sources.of(kind):
            for made in sources.tried(record.path, make, record):
                blocks += made
    return Section("efficiency", "Efficiency", blocks)


def _median(stages: Mapping[str, Any], name: str) -> float | None:
    found = stages.get(name)
    return None if found is None else float(found["median"])


def _latency(record: ResultFile) -> list[Block]:
    result = record.result
    weights = "random weights" if result.get("random_weights") else f"checkpoint {result.get('checkpoint')}"
    where = f"{result['geometry']}, {result.get('dtype')}, {result.get('frames')} frames, {record.data['device']}"
    title = f"Latency: {where}"
    rows = result["rows"]
    labels = [str(row["config"]) for row in rows]
    parts = {stage: [_median(row["stages_ms"], stage) for row in rows] for stage in STAGES}
    parts = {stage: values for stage, values in parts.items() if any(value is not None for value in values)}
    said = "Median milliseconds of each stage up to the first token, one bar for each configuration."
    chart = stacked(f"{record.slug}-chart", title, labels, parts, "milliseconds (medians)", said)
    note = f"{weights}; {result.get('repetitions')} repetitions, attention {result.get('attention')}. "
    note += source_note(record)
    if record.data.get("cuda") is None:
        note += ". Measured without a GPU: it says nothing about the paper's times."
    return [chart, sheet_of(record.slug, title, STAGE_TIMES, rows, (note,))]


def _methods(record: ResultFile) -> list[Block]:
    result = record.result
    size = result["settings"]
    rows = result["rows"]
    title = (
        f"Time each method adds to a prefill: {size['frames']} x {size['tokens']} x {size['dim']} {size['dtype']}, "
        f"{size['device']}, {record.data['device']}"
    )
    own = [column for column in METHODS if column.heading in ("tower signals", "outer stage", "inner stage")]
    parts = {column.heading: [column.value(row) for row in rows] for column in own}
    said = "Milliseconds that each method's own work adds; what it saves is not in here."
    chart = stacked(
        f"{record.slug}-chart", title, [row["method"] for row in rows], parts, "milliseconds (medians)", said
    )
    note = f"{size['repetitions']} repetitions, {size['threads']} thread(s). {source_note(record)}"
    return [chart, sheet_of(record.slug, title, METHODS, rows, (note,))]


def _outer(record: ResultFile) -> list[Block]:
    result = record.result
    size = result["settings"]
    shape = f"{size['frames']} x {size['tokens']} x {size['dim']} {size['dtype']}"
    title = f"HoliTom's outer stage: {shape}, {record.data['device']}"
    note = f"{size['repetitions']} repetitions, {size['threads']} thread(s). {source_note(record)}"
    return [sheet_of(record.slug, title, OUTER, outer_rows(result), (note,))]


def _tokens(record: ResultFile) -> list[Block]:
    result = record.result
    title = f"Tokens that each row really keeps: {result['frames']} x {result['tokens_per_frame']} of {result['video']}"
    note = f"A tiny random model with 28 layers; FLOPs by the paper's formula at the 7B sizes. {source_note(record)}"
    return [sheet_of(record.slug, title, TOKENS, result["rows"], (note,))]


def _stages(record: ResultFile) -> list[Block]:
    cells = record.result["cells"]
    blocks: list[Block] = []
    note = f"In turn, every cell in a process of its own, {record.result['threads']} thread(s). {source_note(record)}"
    for stage, columns in STEPS.items():
        if rows := [row for row in cells if row["stage"] == stage]:
            title = f"The {stage} stage beside a restatement of the release's steps, {record.data['device']}"
            blocks.append(sheet_of(f"{record.slug}-{stage}", title, columns, rows, (note,)))
    return blocks


_MAKERS = {"latency": _latency, "methods": _methods, "stages": _stages, "outer": _outer, "tokens": _tokens}
