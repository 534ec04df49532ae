"""What each step of evidence does; :data:`STEPS` lists them, cheap ones first."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import torch

from eval.claims import rules_evidence
from eval.claims.benchmark_evidence import benchmark_scores
from eval.claims.parity.__main__ import LIMITS, compare
from eval.claims.steps import ROOT, Context, Step, code_and_configs, last_line, read_recorded
from eval.claims.tiny_evidence import BANDS, guard_bands, tiny_campaign
from eval.efficiency.flops import __main__ as flops
from eval.efficiency.latency import __main__ as times
from eval.efficiency.token_counts import measure_all
from eval.instruments.clips import default_clip
from eval.instruments.fingerprints import checkpoint_identity, file_digest, local_checkpoint
from eval.paper import rows as paper_rows
from eval.paper.config_names import config_stem
from eval.paper.formula import ONEVISION_7B
from eval.paper.scores import EFFICIENCY
from holitom.shipped import CONFIGS
from llava.errors import InputError

GOLDENS = ROOT / "tests" / "goldens"
_SAMPLES = {True: 300, False: 3000}  # random videos of the search for a better segmentation
_BENCHMARK_GRID = "eval_ov-7b_holitom"
_COUNTED = ["--geometry", "llava-onevision-7b"]  # sizes of the abstract
# on a CPU; on a GPU all rows of the efficiency figure at the paper's size
_TIMED = ("vanilla", "holitom_without_inner_r10", "holitom_r10")


def formula(context: Context) -> dict[str, Any]:
    """Every row of the paper's efficiency columns by its formula."""
    rows = [paper_rows.as_record(row) for row in (*paper_rows.main_rows(), *paper_rows.other_backbone_rows())]
    return {"rows": rows, "samples": len(rows)}


def optimality(context: Context) -> dict[str, Any]:
    """The segmentation against all others."""
    return rules_evidence.global_optimality(_SAMPLES[context.quick])


def rules(context: Context) -> dict[str, Any]:
    """Thresholds, layers, shares and reversibility, measured from outside."""
    return {**rules_evidence.measure_rules(), "samples": 1}


def parity(context: Context) -> dict[str, Any]:
    """The recordings of the release, by kind: cases, those that fail, largest error and its limit."""
    found: dict[str, Any] = {
        kind: {"cases": 0, "failed": [], "error": 0.0, "limit": limit} for kind, limit in LIMITS.items()
    }
    for outcome in compare(GOLDENS):
        context.say(outcome.name)
        kind = found[outcome.kind]
        kind["cases"] += 1
        # of a case that could not be compared at all, infinity is no JSON
        kind["error"] = max(kind["error"], min(outcome.error, 1e9))
        if not outcome.passed:
            kind["failed"].append(outcome.line())
    return {"kinds": found, "samples": sum(kind["cases"] for kind in found.values())}


def token_counts(context: Context) -> dict[str, Any]:
    """Tokens of every row of the main table on the default clip, by a model of the true layers and frames."""
    names = [config_stem(*row.key) for row in paper_rows.main_rows()]
    files = [CONFIGS / "llava_onevision_7b" / f"{name}.yaml" for name in names]
    rows = measure_all(files, ONEVISION_7B, default_clip(), ONEVISION_7B.frames)
    return {"rows": rows, "video": default_clip().name, "frames": ONEVISION_7B.frames, "samples": 1}


def counted(context: Context) -> dict[str, Any]:
    """FLOPs of the whole model, counted on its graph."""
    found = last_line(flops.main, _COUNTED)
    return {**found, "samples": len(found["real"])}


def latency(context: Context) -> dict[str, Any]:
    """Times on the device at hand."""
    found = last_line(times.main, latency_arguments(context))
    return {**found, "samples": found.get("repetitions")}


def latency_arguments(context: Context) -> list[str]:
    """The paper's sizes on CUDA; on a CPU the smallest published model, or a tiny one in a quick run."""
    if torch.cuda.is_available():
        names = [config_stem(*row.key) for row in paper_rows.main_rows() if row.key in EFFICIENCY]
        geometry, folder, more = "llava-onevision-7b", "llava_onevision_7b", ["--repetitions", "10"]
    elif context.quick:
        names, geometry, folder, more = list(_TIMED), "tiny", "tiny", ["--repetitions", "3"]
    else:
        names, geometry, folder = list(_TIMED), "llava-onevision-0.5b", "llava_onevision_0.5b"
        more = ["--repetitions", "3", "--frames", "8"]
    files = [str(CONFIGS / folder / f"{name}.yaml") for name in names]
    return ["--geometry", geometry, *more, "--configs", *files]


def recorded_latency(context: Context) -> dict[str, Any]:
    """The best recorded times: those of the paper's sizes on a GPU, if there are any."""
    files = sorted(context.results.glob("*/latency_*.json"))
    found = [read_recorded(path) for path in files]
    if not found:
        raise InputError(
            f"no latency is recorded in {context.results}: python -m eval.efficiency.latency on a CUDA GPU"
        )
    best = max(found, key=lambda one: (bool(one.get("driver")), str(one["geometry"]).endswith("7b")))
    return {**best, "samples": best.get("repetitions")}


def benchmarks(context: Context) -> dict[str, Any]:
    """The paper's benchmarks with the published checkpoint, HoliTom's rows; resumes by itself."""
    if context.checkpoint is None or context.data is None:
        raise InputError(
            "--checkpoint and --data were not given: lmms-lab/llava-onevision-qwen2-7b-ov and the benchmarks "
            "(python -m eval.benchmarks.data plan), on a GPU"
        )
    output = context.output / "benchmarks" / code_and_configs()[:12]
    command = [sys.executable, "-P", "-m", "eval.benchmarks.sweep", _BENCHMARK_GRID, "--checkpoint", context.checkpoint]
    command += ["--data", str(context.data), "-o", str(output), *(["--limit", "2"] if context.quick else [])]
    context.say("eval.benchmarks.sweep: its own lines follow")
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    if ended.returncode:
        raise InputError(f"{' '.join(command[2:])!r} ended with status {ended.returncode}: see its message above")
    return benchmark_scores(output)


def recorded_benchmarks(context: Context) -> dict[str, Any]:
    """Benchmark runs below ``results/lmms``."""
    return benchmark_scores(context.results / "lmms")


def _benchmark_inputs(context: Context) -> Any:
    if context.checkpoint is None:
        return None
    weights = checkpoint_identity(local_checkpoint(context.checkpoint))["weights_sha256"]
    return [weights, str(context.data)]


def _recorded(name: str) -> Any:
    def read(context: Context) -> dict[str, Any]:
        return read_recorded(context.results / name)

    return read


STEPS = {
    step.name: step
    for step in (
        Step("formula", "python -m eval.efficiency.flops", formula, own=True, quick_seconds=1),
        Step("optimality", "bash scripts/verify_claims.sh --only optimal", optimality, own=True, quick_seconds=5),
        Step("rules", "bash scripts/verify_claims.sh --only rule", rules, own=True, quick_seconds=20),
        Step("parity", "python -m eval.claims.parity tests/goldens", parity, own=True, quick_seconds=40),
        Step(
            "token_counts",
            "python -m eval.efficiency.token_counts configs/llava_onevision_7b",
            token_counts,
            own=True,
            quick_seconds=100,
        ),
        Step(
            "guard",
            "bash scripts/test.sh tests/eval/synthetic/answers/test_retention.py",
            guard_bands,
            own=True,
            quick_seconds=60,
            inputs=lambda context: file_digest(BANDS) if BANDS.is_file() else None,
        ),
        Step("counted", f"python -m eval.efficiency.flops {' '.join(_COUNTED)}", counted, own=True, quick_seconds=30),
        Step("latency", "python -m eval.efficiency.latency", latency, quick_seconds=30),
        Step("tiny", "python -m eval.synthetic.answers.table main", tiny_campaign, own=True, quick_seconds=120),
        Step(
            "benchmarks",
            f"python -m eval.benchmarks.sweep {_BENCHMARK_GRID} --checkpoint DIR --data DIR",
            benchmarks,
            quick_seconds=0,
            inputs=_benchmark_inputs,
        ),
        Step("recorded_tiny", "bash scripts/table_tiny.sh", _recorded("tiny/main.json"), recorded=True),
        Step("recorded_ablations", "bash scripts/table_tiny.sh", _recorded("tiny/ablations.json"), recorded=True),
        Step("recorded_flops", "python -m eval.efficiency.flops", _recorded("cpu/flops.json"), recorded=True),
        Step("recorded_latency", "python -m eval.efficiency.latency", recorded_latency, recorded=True),
        Step(
            "recorded_benchmarks",
            f"python -m eval.benchmarks.sweep {_BENCHMARK_GRID}",
            recorded_benchmarks,
            recorded=True,
        ),
    )
}
