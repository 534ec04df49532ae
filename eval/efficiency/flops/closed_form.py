"""Real FLOPs of every stage from closed form: what the matrix products of a run cost, from sizes alone.

A multiplication with its addition counts as two. (The paper's formula counts it as one and leaves out the tower, text,
grouped-query attention and a third of the feed-forward layers; see :mod:`eval.paper.formula`.) Norms, activations,
softmax, rotary angles, pooling, sorting and other elementwise work are not counted, nor are they by torch's counter.
Causal attention is counted once, that is its lower triangle; ``square`` counts the full square instead, as torch's
counter does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eval.efficiency.flops.plans import Plan
from eval.efficiency.flops.sizes import ModelSizes
from holitom.hooks.decoder.rules import DecoderStage
from holitom.hooks.decoder.staged import StagedCompression
from holitom.methods.holitom import HolitomOuter
from holitom.methods.holitom.temporal_merging import adjusted_ratio
from holitom.ops.clustering import SMALLEST_STRIPPED, STRIPS

SCENE_FRAMES, SCENE_STILL = 8, 0.55  # the nominal scene: a cut every 8 frames, 55 % of the positions stand still


@dataclass(frozen=True)
class MethodFlops:
    """What a method adds.

    Attributes:
        signals: reading side signals in the tower.
        outer: the stage before the language model.
        inner: the stages inside it.
    """

    signals: int
    outer: int
    inner: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.signals + self.outer + self.inner


def tower_flops(sizes: ModelSizes, frames: Sequence[int] | None = None) -> int:
    """The tower: patch embedding of all frames, and in each layer four projections, attention, feed-forward.

    Args:
        sizes: of the checkpoint.
        frames: what each layer sees; None: all of them.
    """
    patches, width = sizes.patches, sizes.tower_dim
    embedding = 2 * patches * 3 * sizes.patch**2 * width
    projections, attention = 4 * 2 * patches * width**2, 2 * 2 * patches**2 * width
    feed_forward = 2 * 2 * patches * width * sizes.tower_inner
    seen = sizes.frames * sizes.tower_layers if frames is None else sum(frames)
    return sizes.frames * embedding + seen * (projections + attention + feed_forward)


def projector_flops(sizes: ModelSizes, frames: int | None = None) -> int:
    """The projector on all patches of ``frames`` frames, or all (pooling comes after it, without a matrix product)."""
    widths = sizes.tower_dim * sizes.dim + (sizes.projector_layers - 1) * sizes.dim**2
    return (sizes.frames if frames is None else frames) * sizes.patches * 2 * widths


def attention_pairs(queries: int, keys: int, square: bool) -> int:
    """Pairs of query and key that an attention computes; a causal prefill has as many queries as keys."""
    return queries * keys if square or queries < keys else queries * (queries + 1) // 2


def layer_flops(sizes: ModelSizes, new: int, keys: int, square: bool) -> int:
    """One layer of the language model on ``new`` tokens that see ``keys`` tokens, themselves included."""
    projections = 2 * new * sizes.dim * (2 * sizes.query_width + 2 * sizes.key_width)
    attention = 2 * 2 * attention_pairs(new, keys, square) * sizes.query_width
    return projections + attention + 3 * 2 * new * sizes.dim * sizes.inner


def head_flops(sizes: ModelSizes) -> int:
    """Logits of one position."""
    return 2 * sizes.dim * sizes.vocabulary


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


def scene(sizes: ModelSizes) -> tuple[int, list[int]]:
    """Static tokens of every segment of the nominal scene, and the lengths of its segments in frames.

    What HoliTom's clustering costs depends on what a clip shows; this scene is what it is counted on.
    """
    whole, rest = divmod(sizes.frames, SCENE_FRAMES)
    return int(SCENE_STILL * sizes.tokens_per_frame), [SCENE_FRAMES] * whole + [rest] * (rest > 0)


def gram_pairs(points: int) -> int:
    """Pairs whose inner product a gram matrix of ``points`` takes: all, or one triangle of it in strips."""
    step = points if points < SMALLEST_STRIPPED else -(-points // STRIPS)
    ends = [(first, min(first + step, points)) for first in range(0, points, step)]
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
    """What the method itself computes; None where its outer stage has no closed form here (all but HoliTom's)."""
    outer = plan.compressor.outer if plan.compressor is not None else None
    inner = sum(_stage_flops(plan, number, stage) for number, stage in enumerate(plan.stages))
    if outer is None:
        return MethodFlops(0, 0, inner)
    settings = plan.config.compressor.outer if isinstance(outer, HolitomOuter) else None
    if settings is None or settings.static_rule != "clusters" or settings.contextual_ratio:
        return None
    clusters = clustering_flops(plan.sizes, settings.retain_ratio)
    return MethodFlops(signal_flops(plan.sizes, outer.signals), clusters, inner)
