"""The efficiency table: tokens and FLOPs, paper beside measured, and the paper's times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eval.benchmarks.runs import Run
from eval.instruments.answering import inner_stages
from eval.paper.formula import ONEVISION_7B, ONEVISION_72B, TERA, VIDEO_7B, Geometry, paper_flops, staged_layers
from eval.paper.scores import EFFICIENCY
from eval.report.tables.layout import NOT_RUN, Table, in_percent, number
from eval.report.tables.scores import ScoreRow, ScoreSection
from holitom.settings import parse_config

GEOMETRIES = {"llava_onevision_7b": ONEVISION_7B, "llava_onevision_72b": ONEVISION_72B, "llava_video_7b": VIDEO_7B}


def inner_layer(compressor: dict[str, Any] | None, layers: int) -> int | None:
    """First of so many layers that sees fewer tokens; 0 without an inner stage, None for several stages."""
    stages = inner_stages(parse_config({"compressor": compressor}).build(), layers)
    return None if len(stages) > 1 else stages[0].layer if stages else 0


def measured_tflops(run: Run, geometry: Geometry) -> float | None:
    """Mean over the questions of the paper's formula with the tokens that were really computed; None if not known."""
    layer = inner_layer(run.result["config"]["compressor"], geometry.layers)
    counts = [sample["tokens"] for sample in run.samples if sample["tokens"] is not None]
    if layer is None or not counts:
        return None
    total = 0.0
    for tokens in counts:
        stages = {0: tokens["before_llm"]} | ({layer: tokens["inside_llm"]} if layer else {})
        total += paper_flops(staged_layers(geometry, stages), geometry.hidden_size, geometry.intermediate_size)
    return total / len(counts) / TERA


def efficiency_table(section: ScoreSection) -> Table:
    """Tokens, FLOPs and times of each method; times of ours are not part of benchmark runs."""
    header = [
        "Method",
        "Tokens before LLM, % (paper / measured)",
        "Mean over layers, % (measured)",
        "TFLOPs (paper / its formula / with measured tokens)",
        "% of vanilla (paper / its formula)",
        "Time to first token, ms: tower + other + LLM (paper / ours)",
        "Decoding, tokens/s (paper / ours)",
    ]
    rows = [_line(section, row) for row in section.rows if row.paper is not None]
    notes: Sequence[str] = (
        "FLOPs by the paper's formula: the language model's prefill over visual tokens alone, at the paper's sizes.",
        "The bars of the paper's figure are at different retentions; times of this project come from its latency "
        "benchmarks and are n/a where none was run.",
    )
    return Table(f"{section.slug}_efficiency", f"{section.heading}: efficiency", header, rows, notes)


def _line(section: ScoreSection, row: ScoreRow) -> list[str]:
    assert row.paper is not None
    paper = row.paper
    run = row.run
    retention = None if run is None else run.result["retention"]
    kept = None if retention is None else in_percent(retention["before_llm"]["mean"])
    layers = None if retention is None else in_percent(retention["layer_mean"]["mean"])
    # a rehearsal has other frames and widths, so its counts are not the paper's sizes
    real = None if run is None or section.rehearsal else measured_tflops(run, GEOMETRIES[section.model])
    times = EFFICIENCY.get(paper.key) if section.model == "llava_onevision_7b" else None
    bar = NOT_RUN if times is None else times.bar
    decode = NOT_RUN if times is None else f"{times.decode_tokens_per_second}"
    return [
        row.label,
        f"{paper.retained} / {number(kept)}",
        number(layers),
        f"{paper.paper_tflops:.1f} / {paper.tflops:.2f} / {number(real, 2)}",
        f"{number(paper.paper_percent)} / {paper.percent:.1f}",
        f"{bar} / {NOT_RUN}",
        f"{decode} / {NOT_RUN}",
    ]
