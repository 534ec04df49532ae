"""Results for the page's tests: recorded JSON, claims, latencies, benchmark runs, and a reader of the page."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from eval.claims.benchmark_evidence import benchmark_scores
from eval.claims.catalogue import all_claims
from eval.claims.evidence import STEPS, formula, recorded_latency
from eval.claims.judging import StepEvidence
from eval.claims.runner import verdicts
from eval.claims.steps import Context
from eval.instruments.kinds import stamped
from eval.instruments.record import finite
from eval.paper.scores import MAIN_SCORES
from eval.report.__main__ import make_page
from eval.report.page.sources import Sources, read_sources
from llava.errors import InputError
from tests.eval.benchmarks.made_results import share, whole, write_run
from tests.eval.report.page.page_reader import Page

ROOT = Path(__file__).resolve().parents[4]
MODEL = "llava_onevision_7b"
HOSTILE = "</script><script>window.hit=1</script><img src=x onerror=window.hit=1>\"'&amp;<b>bold</b>\u2028 {{ 7*7 }}"
NOTICE = "An instrument, no evidence about the 7B model."


def record(result: dict[str, Any], kind: str = "tiny", **changes: Any) -> dict[str, Any]:
    """A result as eval.instruments.record writes it."""
    facts = {"command": "python -m x", "date": "2026-01-01T00:00Z", "commit": "abcdef123456", "device": "a CPU"}
    return stamped(kind, {**facts, "cuda": None, "torch": "2.11", **changes, "result": result})


def write_json(path: Path, data: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def tiny_row(score: float, difference: float, gflops: float) -> dict[str, Any]:
    """One run of the tiny model with numbers that a table can be told by."""
    return {
        "questions": 8, "score": score, "error": 0.01234, "retention": 0.87654, "difference": difference,
        "low": difference - 0.031, "high": difference + 0.029, "verdict": "worse" if difference < -0.03 else "same",
        "before": 512.0, "outer": 128.5, "inside": 64.25, "gflops": gflops,
        "families": {"color": score, "order": score / 3},
    }  # fmt: skip


def tiny(names: dict[str, tuple[float, float]], **changes: Any) -> dict[str, Any]:
    """A table of the tiny model: name -> score and GFLOPs; ``vanilla`` is the run with all tokens."""
    full = names["vanilla"][0]
    rows = {name: tiny_row(score, score - full, flops) for name, (score, flops) in names.items()}
    rows["vanilla_f8"] = rows["vanilla"]
    settings = {
        name: None if name == "vanilla" else {"method": name.partition("_r")[0], "retain_ratio": 0.1} for name in names
    }
    return {
        "notice": NOTICE, "table": "main", "split": "test", "rows": rows, "settings": settings,
        "frames": dict.fromkeys(names, 8), "ablations": {}, "checkpoint": "c", "data": "d", "limit": None,
        "duels": {"holitom_r10 - random_r10": {"difference": 0.12345, "low": 0.05, "high": 0.2, "verdict": "better"}},
        **changes,
    }  # fmt: skip


def spread(median: float) -> dict[str, float]:
    return {"median": median, "min": median - 1.0, "max": median + 2.0, "iqr": 0.5, "n": 5}


def latency_row(config: str, prefill: float, ratio: float) -> dict[str, Any]:
    stages = {"video": 10.5, "preprocess": 5.25, "tower": 60.125, "projector": 1.5, "outer": 3.75, "prefill": prefill}
    stages |= {"time_to_first_token": prefill + 81.125, "time_per_output_token": 9.5}
    return {
        "config": config, "file": f"configs/{MODEL}/{config}.yaml", "method": config.partition("_")[0], "clip": "c",
        "tokens": {"prompt": 700, "visual": 6272, "before_llm": 640, "inside_llm": 320},
        "stages_ms": {**{name: spread(value) for name, value in stages.items()}, "inner": None},
        "tokens_per_second": spread(105.25), "peak_memory_mb": 17123.5, "decode": {},
        "against_vanilla": {"time_to_first_token": ratio, "tokens_per_second": 1.25, "peak_memory": 1.0625},
    }  # fmt: skip


def latency(**changes: Any) -> dict[str, Any]:
    rows = [
        latency_row("vanilla", 150.5, 1.0),
        latency_row("holitom_r10", 40.75, 2.515625),
        latency_row("visionzip_r20", 90.5, 1.5),
    ]
    result = {"geometry": "llava-onevision-7b", "random_weights": True, "dtype": "bfloat16", "attention": "sdpa",
              "frames": 32, "repetitions": 5, "rows": rows}  # fmt: skip
    return record(result, "latency", **{"cuda": "12.8", "device": "NVIDIA H200", **changes})


def claim(identity: str, verdict: str, **changes: Any) -> dict[str, Any]:
    evidence = {
        "command": "python -m eval.efficiency.flops",
        "commit": "abc",
        "device": "a CPU",
        "samples": 24,
        "file": None,
    }
    return {
        "id": identity, "source": "abstract", "claim": f"text of {identity}", "paper": {"percent": 6.9},
        "ours": {"percent": 6.875}, "difference": -0.025, "verdict": verdict, "why": "because", "needs": None,
        "evidence": {**evidence, **changes.pop("evidence", {})}, "seconds": 1.0, **changes,
    }  # fmt: skip


def claims(*found: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "commit": "abc",
        "device": "a CPU",
        "torch": "2.11",
        "quick": False,
        "claims": list(found),
        **changes,
    }


VERDICTS = ("reproduced", "partly", "undecided", "contradicted", "not measurable here")
TINY = {
    "vanilla": (0.96789, 1.25),
    "holitom_r10": (0.91234, 0.0625),
    "random_r10": (0.78889, 0.0625),
    "visionzip_r10": (0.9, 0.07),
}


def ablations() -> dict[str, Any]:
    """Two ablations: a curve over numbers, and one of two deviations from the release."""
    points = {f"holitom_r15,inner.merge_ratio={value}": (0.9 - value / 10, 0.1 + value) for value in (0.9, 0.25, 0.5)}
    switches = {"holitom_r15": (0.875, 0.3), "holitom_r15,inner.causal=false": (0.8125, 0.3)}
    made = tiny({"vanilla": (0.96789, 1.25), **points, **switches}, table="ablations", duels={})
    inner = {"causal": True, "merge_rule": "sequential", "merge_layer": 6}
    made["settings"]["holitom_r15"] = {"method": "holitom", "inner": inner}
    made["settings"]["holitom_r15,inner.causal=false"] = {"method": "holitom", "inner": {**inner, "causal": False}}
    grids = {}
    for name, title, names in (("inner_ratio", "share merged inside", points), ("mask", "mask", switches)):
        changes = {point: point.partition(",")[2] for point in names}
        listed = {point: {"changes": [text] if text else []} for point, text in changes.items()}
        grids[name] = {"title": title, "points": listed}
    return {**made, "ablations": grids}


def paper_like(shift: float = 0.0, benchmark: float = 0.0) -> dict[str, list[bool]]:
    """Whole benchmarks with the paper's uncompressed scores, shifted; ``benchmark`` shifts VideoMME alone."""
    paper = MAIN_SCORES["Vanilla", 100]
    tasks = ("mvbench", "egoschema_subset", "longvideobench_val_v", "videomme")
    return {
        task: whole(task, (paper.of(task) or 0) + shift + (benchmark if task == "videomme" else 0)) for task in tasks
    }


def judge_folder(root: Path, *names: str) -> Path:
    """Write ``claims.json`` as ``eval.claims`` judges what a folder holds: claims whose names contain one of these."""
    context = Context(root, results=root)
    found = {name: StepEvidence(None, "not run") for name in STEPS}
    found["formula"] = StepEvidence(formula(context), when="now")
    for name, read in (
        ("recorded_latency", recorded_latency),
        ("recorded_benchmarks", lambda _: benchmark_scores(root)),
    ):
        with suppress(InputError):
            found[name] = StepEvidence(read(context), when="recorded")
    claims_judged = [claim for claim in all_claims() if any(name in claim.identity for name in names)]
    return write_json(root / "claims.json", claims(*finite(verdicts(claims_judged, found))))


def full_folder(root: Path) -> Path:
    """Results of every kind that the page knows, small."""
    write_json(
        root / "claims.json", claims(*(claim(f"claim-{place}", verdict) for place, verdict in enumerate(VERDICTS)))
    )
    write_json(root / "tiny" / "main.json", record(tiny(TINY)))
    write_json(root / "tiny" / "ablations.json", record(ablations()))
    write_json(root / "h200" / "latency_llava-onevision-7b.json", latency())
    for name in ("bench_methods", "bench_outer", "parity", "stages", "token_counts"):
        write_json(root / "cpu" / f"{name}.json", json.loads((ROOT / "results" / "cpu" / f"{name}.json").read_text()))
    for config in ("vanilla", "holitom_r15"):
        write_run(root / "rehearsal" / config, f"{MODEL}/{config}", {"videomme": share(12, 9 - len(config) // 4)},
                  fixture=True, limit=12)  # fmt: skip
    return root


def built(folder: Path) -> tuple[Page, Sources]:
    """The page of a folder, read, and what it was made from."""
    sources = read_sources(folder)
    return Page(make_page(sources)[0]), sources
