"""Real FLOPs and memory of the rows of the paper's tables, counted on the graph of the real size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from eval.efficiency.flops.counted import Counted, MetaRuns, MethodFlops
from eval.efficiency.flops.plans import Plan, newer_methods, plans_of
from eval.efficiency.flops.sizes import model_config
from eval.instruments.progress import progress
from eval.paper.config_names import config_stem
from eval.paper.rows import main_rows
from holitom.methods.holitom import HolitomOuter

MAIN = "llava-onevision-7b"  # the checkpoint of the paper's main table


def prefill_parts(
    tower: int, projector: int, llm: int, llm_square: int, method: MethodFlops | None
) -> dict[str, int | dict[str, int] | None]:
    """FLOPs of a prefill by stage. A total leaves out what the method adds where that is not known."""
    added = 0 if method is None else method.total
    parts = None if method is None else {name: getattr(method, name) for name in ("signals", "outer", "inner")}
    return {
        "tower": tower,
        "projector": projector,
        "llm": llm,
        "method": None if method is None else added,
        "method_parts": parts,
        "total": tower + projector + llm + added,
        "llm_square": llm_square,
        "total_square": tower + projector + llm_square + added,
    }


def record(plan: Plan, run: Counted) -> dict[str, Any]:
    """One row. FLOPs with a multiplication and its addition as two, bytes of bfloat16.

    What a method adds is not known where a stand-in took the place of its outer stage: of all but HoliTom's.
    """
    assert run.cached[0] == plan.tokens["prompt"], plan.name
    outer = None if plan.compressor is None else plan.compressor.outer
    method = run.method if outer is None or isinstance(outer, HolitomOuter) else None
    return {
        "geometry": plan.sizes.name,
        "config": plan.name,
        "prefill": prefill_parts(run.tower, run.projector, run.llm, run.llm_square, method),
        "decode_per_token": run.decode,
        "kv_cache_bytes": run.kv_cache_bytes,
        "peak_activation_bytes": run.peak_bytes,
        "tokens": plan.tokens,
    }


def count_plans(plans: Sequence[Plan]) -> Iterator[dict[str, Any]]:
    """Run plans of one checkpoint without values."""
    if plans:
        runs = MetaRuns(model_config(plans[0].sizes.name), plans[0].sizes)
        yield from (record(plan, runs.count(plan)) for plan in progress(plans, "Rows counted"))


def newer_records(text: tuple[int, int]) -> list[dict[str, Any]]:
    """Counts of vanilla, HoliTom and what is younger than the paper, each at its lowest retention.

    Frames that merge inside the tower are as many as the method's settings allow, whatever a video shows.
    """
    plans = plans_of(MAIN, text, methods=("vanilla", "holitom", *newer_methods(MAIN)))
    lowest = {plan.name.partition("_r")[0]: plan for plan in plans}
    return list(count_plans(list(lowest.values())))


def shares(rows: Sequence[dict[str, Any]], config: str = "holitom_r10") -> dict[str, Any] | None:
    """What the headline row costs in percent of vanilla, by the paper's formula and really; None if it is absent."""
    found = {row["config"]: row for row in rows if row["geometry"] == MAIN}
    paper = {config_stem(*row.key): row.percent for row in main_rows()}
    if not {config, "vanilla"} <= set(found):
        return None
    whole, real = found["vanilla"]["prefill"], found[config]["prefill"]
    return {
        "config": config,
        "paper_formula_percent": round(paper[config], 1),
        "llm_percent": 100 * real["llm"] / whole["llm"],
        "prefill_percent": 100 * real["total"] / whole["total"],
    }
