"""Latency, memory and the time that methods add: charts and tables from what was measured on the devices at hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eval.report.page.blocks import Block, Cell, Column, Notice, Section, Sheet, figure
from eval.report.page.charts import stacked
from eval.report.page.sources import ResultFile, Sources
from eval.report.page.tiny import source_note

# stages of a prompt in their order; the projector and the inner stage are part of what stands around them
STAGES = ("video", "preprocess", "tower", "projector", "outer", "prefill")
_TIMES = ("time_to_first_token", "time_per_output_token")


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
    for kind, make in (("latency", _latency), ("methods", _methods), ("outer", _outer), ("tokens", _tokens)):
        for record in sources.of(kind):
            for made in sources.tried(record.path, make, record):
                blocks += made
    return Section("efficiency", "Efficiency", blocks)


def _median(stages: Mapping[str, Any], name: str) -> float | None:
    found = stages.get(name)
    return None if found is None else float(found["median"])


def _spread(stages: Mapping[str, Any], name: str) -> Cell:
    found = stages.get(name)
    if found is None:
        return figure(None)
    return figure(found["median"], small=f"{found['min']:.1f} to {found['max']:.1f}")


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
    ratios = ("time_to_first_token", "tokens_per_second", "peak_memory")
    columns = [
        Column("configuration"),
        Column("to the LLM", "visual tokens"),
        *(Column(stage, "ms, median (range)") for stage in (*STAGES, "inner")),
        *(Column(name.replace("_", " "), "ms, median (range)") for name in _TIMES),
        Column("tokens/s"),
        Column("peak memory, MB"),
        *(Column(name.replace("_", " "), "times better than all tokens") for name in ratios),
    ]
    lines = []
    for row in rows:
        stages, against = row["stages_ms"], row.get("against_vanilla") or {}
        speed = row.get("tokens_per_second")
        lines.append(
            [
                Cell(str(row["config"]), code=True),
                figure((row.get("tokens") or {}).get("before_llm"), 0),
                *(_spread(stages, stage) for stage in (*STAGES, "inner", *_TIMES)),
                _spread({"speed": speed}, "speed") if isinstance(speed, dict) else figure(speed),
                figure(row.get("peak_memory_mb"), 0),
                *(figure(against.get(name), 2) for name in ratios),
            ]
        )
    note = f"{weights}; {result.get('repetitions')} repetitions, attention {result.get('attention')}. "
    note += source_note(record)
    if record.data.get("cuda") is None:
        note += ". Measured without a GPU: it says nothing about the paper's times."
    return [chart, Sheet(record.slug, title, columns, lines, (note,))]


def _methods(record: ResultFile) -> list[Block]:
    result = record.result
    size = result["settings"]
    rows = [{**row, "method": str(row["method"]), "total_ms": float(row["total_ms"])} for row in result["rows"]]
    title = (
        f"Time each method adds to a prefill: {size['frames']} x {size['tokens']} x {size['dim']} {size['dtype']}, "
        f"{size['device']}, {record.data['device']}"
    )
    keys = {"tower signals": "signals_ms", "outer stage": "outer_ms", "inner stage": "inner_ms"}
    parts = {name: [row[key] for row in rows] for name, key in keys.items()}
    said = "Milliseconds that each method's own work adds; what it saves is not in here."
    chart = stacked(
        f"{record.slug}-chart", title, [row["method"] for row in rows], parts, "milliseconds (medians)", said
    )
    columns = [Column("method"), Column("tokens to the LLM"), *(Column(name, "ms") for name in [*keys, "total"])]
    lines = [
        [
            Cell(str(row["method"]), code=True),
            figure(row["tokens_to_llm"], 0),
            *(figure(row[key]) for key in [*keys.values(), "total_ms"]),
        ]
        for row in rows
    ]
    note = f"{size['repetitions']} repetitions, {size['threads']} thread(s). {source_note(record)}"
    return [chart, Sheet(record.slug, title, columns, lines, (note,))]


def _outer(record: ResultFile) -> list[Block]:
    result = record.result
    size = result["settings"]
    names = {"holitom": "this project", "plain": "plain restatement of the release's steps"}
    lines = []
    for name, times in result["times"].items():
        spread = [_spread(times, key) for key in ("cpu_ms", "wall_ms")]
        lines.append([Cell(names.get(name, str(name))), *spread])
    shape = f"{size['frames']} x {size['tokens']} x {size['dim']} {size['dtype']}"
    title = f"HoliTom's outer stage: {shape}, {record.data['device']}"
    note = f"{size['repetitions']} repetitions, {size['threads']} thread(s). {source_note(record)}"
    columns = [Column(""), Column("CPU ms, median (range)"), Column("wall ms, median (range)")]
    return [Sheet(record.slug, title, columns, lines, (note,))]


def _tokens(record: ResultFile) -> list[Block]:
    result = record.result
    columns = [
        Column("configuration"),
        Column("nominal", "visual tokens"),
        Column("measured", "visual tokens"),
        Column("kept, %"),
        Column("nominal", "TFLOPs"),
        Column("measured", "TFLOPs"),
    ]
    lines = [
        [
            Cell(str(row["config"]), code=True),
            _count(row["nominal"]),
            _count(row["measured"]),
            figure(100 * row["retained_before_llm"]),
            *(figure(row[key], 2) for key in ("nominal_tflops", "measured_tflops")),
        ]
        for row in result["rows"]
    ]
    title = f"Tokens that each row really keeps: {result['frames']} x {result['tokens_per_frame']} of {result['video']}"
    note = f"A tiny random model with 28 layers; FLOPs by the paper's formula at the 7B sizes. {source_note(record)}"
    return [Sheet(record.slug, title, columns, lines, (note,))]


def _count(text: str | None) -> Cell:
    """Counts such as ``6272 > 1254``, sorted by the first."""
    return figure(None) if text is None else Cell(str(text), float(str(text).split(" ")[0]))
