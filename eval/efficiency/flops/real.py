"""Real FLOPs and memory of the rows of the paper's tables: from closed form, counted, and how far the two differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from eval.efficiency.flops.closed_form import (
    MethodFlops,
    decode_flops,
    kv_cache_bytes,
    method_flops,
    prefill_flops,
    projector_flops,
    tower_flops,
)
from eval.efficiency.flops.counted import Counted, MetaRuns
from eval.efficiency.flops.memory import peak_activation_bytes
from eval.efficiency.flops.plans import Plan
from eval.efficiency.flops.sizes import model_config
from eval.instruments.progress import progress
from eval.paper.rows import main_rows
from eval.paper.scores import config_name

MAIN = "llava-onevision-7b"  # the checkpoint of the paper's main table


def _prefill(
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


def closed_record(plan: Plan) -> dict[str, Any]:
    """One row from closed form. FLOPs with a multiplication and its addition as two, bytes of bfloat16."""
    sizes = plan.sizes
    llm, square = prefill_flops(plan), prefill_flops(plan, square=True)
    tower, projector = tower_flops(sizes, plan.tower_frames), projector_flops(sizes, plan.tower_frames[-1])
    return {
        "geometry": sizes.name,
        "config": plan.name,
        "prefill": _prefill(tower, projector, llm, square, method_flops(plan)),
        "decode_per_token": decode_flops(plan),
        "kv_cache_bytes": kv_cache_bytes(plan),
        "peak_activation_bytes": peak_activation_bytes(plan),
        "tokens": plan.tokens,
    }


def counted_record(plan: Plan, run: Counted) -> dict[str, Any]:
    """One row as the run of the real graph counted it, in the same form."""
    return {
        "geometry": plan.sizes.name,
        "config": plan.name,
        "prefill": _prefill(run.tower, run.projector, run.llm, run.llm_square, run.method),
        "decode_per_token": run.decode,
        "kv_cache_bytes": run.kv_cache_bytes,
        "peak_activation_bytes": run.peak_bytes,
        "tokens": {"prompt": run.cached[0], "last_layer": run.cached[-1]},
    }


def to_count(plans: Sequence[Plan], every: bool) -> list[Plan]:
    """Rows to count among those whose whole work has a closed form: all, or the lowest retention of each method.

    Without ``every`` two rows of the checkpoints beside the main one, the first and the last, have to do.
    """
    known = [plan for plan in plans if method_flops(plan) is not None]
    if every:
        return known
    lowest = list({plan.name.partition("_r")[0]: plan for plan in known}.values())
    return lowest if known and known[0].sizes.name == MAIN else lowest[:1] + lowest[1:][-1:]


def count_plans(plans: Sequence[Plan]) -> Iterator[dict[str, Any]]:
    """Run plans of one checkpoint without values."""
    if not plans:
        return
    sizes = plans[0].sizes
    runs = MetaRuns(model_config(sizes.name), sizes)
    for plan in progress(plans, "Rows counted"):
        yield counted_record(plan, runs.count(plan))


def deviations(closed: dict[str, Any], counted: dict[str, Any]) -> dict[str, float]:
    """Relative difference of one row's closed form from the count, by stage; the peak, an estimate, among them."""
    names = ("tower", "projector", "llm", "llm_square", "method", "total")
    pairs = {name: (closed["prefill"][name], counted["prefill"][name]) for name in names}
    for name in ("decode_per_token", "kv_cache_bytes", "peak_activation_bytes"):
        pairs[name] = closed[name], counted[name]
    return {name: abs(ours - theirs) / max(theirs, 1) for name, (ours, theirs) in pairs.items()}


def shares(closed: Sequence[dict[str, Any]], config: str = "holitom_r10") -> dict[str, Any] | None:
    """What the headline row costs in percent of vanilla, by the paper's formula and really; None if it is absent."""
    rows = {row["config"]: row for row in closed if row["geometry"] == MAIN}
    paper = {config_name(row): row.percent for row in main_rows()}
    if config not in rows:
        return None
    whole, real = rows["vanilla"]["prefill"], rows[config]["prefill"]
    return {
        "config": config,
        "paper_formula_percent": round(paper[config], 1),
        "llm_percent": 100 * real["llm"] / whole["llm"],
        "prefill_percent": 100 * real["total"] / whole["total"],
    }


def largest_deviations(closed: Sequence[dict[str, Any]], counted: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Largest deviation of every stage over all counted rows; empty if none was counted."""
    rows = {(row["geometry"], row["config"]): row for row in closed}
    found: dict[str, float] = {}
    for row in counted:
        for name, value in deviations(rows[row["geometry"], row["config"]], row).items():
            found[name] = max(value, found.get(name, 0.0))
    return found
