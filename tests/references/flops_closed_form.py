"""An oracle of :mod:`eval.efficiency.flops.counted`: what the matrix products of a run cost, from sizes alone.

A multiplication with its addition counts as two. (The paper's formula counts it as one and leaves out the tower, text,
grouped-query attention and a third of the feed-forward layers; see :mod:`eval.paper.formula`.) Norms, activations,
softmax, rotary angles, pooling, sorting and other elementwise work are not counted, nor are they by torch's counter.
Causal attention is counted once, that is its lower triangle; ``square`` counts the full square instead, as torch's
counter does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eval.efficiency.flops.by_layer import head_flops, layer_flops, projector_flops, tower_flops
from eval.efficiency.flops.counted import MethodFlops
from eval.efficiency.flops.plans import Plan
from eval.efficiency.flops.real import prefill_parts
from eval.efficiency.flops.sizes import ModelSizes
from eval.efficiency.flops.stand_ins import scene
from holitom.hooks.decoder.rules import DecoderStage
from holitom.hooks.decoder.staged import StagedCompression
from holitom.methods.holitom import HolitomOuter
from holitom.methods.holitom.temporal_merging import adjusted_ratio
from holitom.ops.clustering import STRIP
from tests.references.flops_memory import peak_activation_bytes


def prefill_flops(plan: Plan, square: bool = False) -> int:
    """The language model on the prompt: all layers at their own length, logits of the last position alone."""
    sizes = plan.sizes
    return sum(layer_flops(sizes, seq, seq, square) for seq in plan.lengths) + head_flops(sizes)


def decode_flops(plan: Plan, step: int = 1) -> int:
    """One new token: the ``step``-th after the one that the prefill gives; layers see their own number of tokens."""
    sizes = plan.sizes
    return sum(layer_flops(sizes, 1, seq + step, square=True) for seq in plan.lengths) + head_flops(sizes)


def kv_cache_bytes(plan: Plan, element: int = 2) -> int:
    """Keys and values of the prompt, every layer at its own length, ``element`` bytes a number."""
    return 2 * sum(plan.lengths) * plan.sizes.key_width * element


def signal_flops(sizes: ModelSizes, signals: tuple[str, ...]) -> int:
    """Side signals of the tower's last layer, on all frames; its queries and keys are computed a second time."""
    patches, width, heads = sizes.patches, sizes.tower_dim, sizes.tower_heads
    projection = 2 * patches * width**2
    # two projections, the scores, and per head a row of query weights times the map
    received = 2 * projection + 2 * patches**2 * width + 2 * heads * patches**2
    costs = {"received_attention": received, "key_metric": projection, "tower_output": 0}
    return sizes.frames * sum(costs[name] for name in signals)


def gram_pairs(points: int) -> int:
    """Pairs whose inner product a gram matrix of ``points`` takes: all, or one triangle of it in strips."""
    ends = [(first, min(first + STRIP, points)) for first in range(0, points, STRIP)]
    return sum((last - first) * last for first, last in ends)


def clustering_flops(sizes: ModelSizes, retain_ratio: float) -> int:
    """HoliTom's outer stage on the nominal scene: inner products of static tokens, as a CPU computes them."""
    static, lengths = scene(sizes)
    merged = [length for length in lengths if length > 1]
    removable = static * sum(length - 1 for length in merged)
    clusters = round(static * adjusted_ratio(retain_ratio, sizes.frames * sizes.tokens_per_frame, removable))
    return len(merged) * 2 * gram_pairs(static) * sizes.dim if clusters else 0


def _scoring(sizes: ModelSizes, seq: int) -> int:
    """Attention of the last token at one layer: keys of all, one query, one row of scores."""
    keys, query = 2 * seq * sizes.dim * sizes.key_width, 2 * sizes.dim * sizes.query_width
    return keys + query + 2 * seq * sizes.query_width


def _merging(sizes: ModelSizes, before: int, after: int) -> int:
    """Similarity of each merged token to each kept one; the sums of a kept token's members need no product."""
    return 2 * (before - after) * after * sizes.dim


def _stage_flops(plan: Plan, number: int, stage: DecoderStage) -> int:
    before, after = plan.spans[number : number + 2]
    if before == after:
        return 0
    inner = plan.compressor.inner if plan.compressor is not None else None
    merges = isinstance(inner, StagedCompression) and inner.rules.merges
    scoring = _scoring(plan.sizes, sum(plan.text) + before)
    return scoring + (_merging(plan.sizes, before, after) if merges else 0)


def method_flops(plan: Plan) -> MethodFlops | None:
    """What the method itself computes; None where its outer stage has no closed form here.

    That is all but HoliTom's, and HoliTom's behind a tower that merges frames, where a clip decides how many it sees.
    """
    outer = plan.compressor.outer if plan.compressor is not None else None
    inner = sum(_stage_flops(plan, number, stage) for number, stage in enumerate(plan.stages))
    if outer is None:
        return MethodFlops(0, 0, inner)
    merged = plan.compressor is not None and plan.compressor.tower is not None
    settings = plan.config.compressor.outer if isinstance(outer, HolitomOuter) and not merged else None
    if settings is None or settings.static_rule != "clusters" or settings.contextual_ratio:
        return None
    clusters = clustering_flops(plan.sizes, settings.retain_ratio)
    return MethodFlops(signal_flops(plan.sizes, outer.signals), clusters, inner)


def closed_record(plan: Plan) -> dict[str, Any]:
    """One row of :func:`eval.efficiency.flops.real.record`, from closed form and with an estimated peak."""
    sizes = plan.sizes
    return {
        "geometry": sizes.name,
        "config": plan.name,
        "prefill": prefill_parts(
            tower_flops(sizes, plan.tower_frames),
            projector_flops(sizes, plan.tower_frames[-1]),
            prefill_flops(plan),
            prefill_flops(plan, square=True),
            method_flops(plan),
        ),
        "decode_per_token": decode_flops(plan),
        "kv_cache_bytes": kv_cache_bytes(plan),
        "peak_activation_bytes": peak_activation_bytes(plan),
        "tokens": plan.tokens,
    }


def deviations(closed: dict[str, Any], counted: dict[str, Any]) -> dict[str, float]:
    """Relative difference of one row's closed form from the count, by stage; the peak, an estimate, among them."""
    names = ("tower", "projector", "llm", "llm_square", "method", "total")
    pairs = {name: (closed["prefill"][name] or 0, counted["prefill"][name] or 0) for name in names}
    for name in ("decode_per_token", "kv_cache_bytes", "peak_activation_bytes"):
        pairs[name] = closed[name], counted[name]
    return {name: abs(ours - theirs) / max(theirs, 1) for name, (ours, theirs) in pairs.items()}


def largest_deviations(closed: Sequence[dict[str, Any]], counted: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Largest deviation of every stage over all counted rows; empty if none was counted."""
    rows = {(row["geometry"], row["config"]): row for row in closed}
    found: dict[str, float] = {}
    for row in counted:
        for name, value in deviations(rows[row["geometry"], row["config"]], row).items():
            found[name] = max(value, found.get(name, 0.0))
    return found
