"""FlashVID's compression of one video before the LLM (arXiv 2602.08024): pick, link, merge, and meet the budget."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from holitom.checks import require_finite
from holitom.methods.flashvid.segmentation import (
    FrameSegments,
    cut_frames,
    frame_means,
    frame_similarity,
    mean_of_segments,
    segments_of,
)
from holitom.methods.flashvid.selection import pick_tokens
from holitom.methods.flashvid.trees import link_tokens, merge_trees, merged_tokens
from holitom.ops.group_clustering import ClusterRule, GroupClusters, TokenGroups, cluster_groups, frame_tokens
from holitom.ops.merging_again import mean_of_sources
from holitom.ops.selection import sound_frames
from holitom.ops.token_ops import packed_positions, to_host


@dataclass(frozen=True)
class FrameBudget:
    """Tokens of a frame: ``total`` in all, ``picked`` of them unchanged, the others merged."""

    total: int
    picked: int

    @property
    def merged(self) -> int:
        """Merged tokens."""
        return self.total - self.picked


def frame_budget(tokens: int, retain_ratio: float, expansion: float, picked_share: float) -> FrameBudget:
    """Budget of a frame before the LLM, both counts rounded up.

    >>> [frame_budget(196, ratio, 1.25, 0.7) for ratio in (0.25, 0.1)]
    [FrameBudget(total=62, picked=44), FrameBudget(total=25, picked=18)]
    """
    total = math.ceil(tokens * retain_ratio * expansion)
    return FrameBudget(total, math.ceil(picked_share * total))


@dataclass(frozen=True)
class FlashVidRules:
    """Settings of the compression; see :class:`~holitom.methods.flashvid.FlashVidConfig`."""

    segment: bool
    min_segments: int
    segment_threshold: float
    complementary: bool
    link_threshold: float
    neighbors: int
    tree_mean: bool
    single_frame_all: bool


@dataclass(frozen=True)
class FlashVidTokens:
    """Picked tokens and clusters of one video, by their place in it.

    Attributes:
        features: the tokens, in the dtype of the input.
        index: frame * tokens + position; of equal ones the picked token comes first.
        cluster: which rows are clusters.
        source: row of every original token, -1 for dropped ones; a picked token's own row, though it may also have been
            counted into a cluster of a segment of one frame.
        picked: which tokens were picked.
        segments: first and last frame of every segment, inclusive.
        candidates: tokens of each frame that were clustered.
        clusters: what they became.
        merge_again: see :class:`~holitom.tokens.CompressedTokens`.
    """

    features: Float[Tensor, "kept dim"]
    index: Int[Tensor, " kept"]
    cluster: Bool[Tensor, " kept"]
    source: Int[Tensor, "frames tokens"]
    picked: Bool[Tensor, "frames tokens"]
    segments: list[tuple[int, int]]
    candidates: list[int]
    clusters: list[int]
    merge_again: Callable[[Tensor], Tensor]


def cluster_counts(candidates: list[int], segments: list[tuple[int, int]], wanted: int) -> list[int]:
    """Clusters of each frame: its share of the segment's ``wanted`` tokens a frame, rounded up in double precision.

    >>> cluster_counts([3, 2], [(0, 1)], 2)
    [3, 2]
    """
    counts = []
    for first, last in segments:
        own = candidates[first : last + 1]
        ratio = wanted * len(own) / sum(own) if sum(own) else 0.0
        counts += [min(number, math.ceil(number * ratio)) for number in own]
    return counts


@torch.no_grad()
def compress_frames(
    features: Float[Tensor, "frames tokens dim"],
    received_attention: Float[Tensor, "frames tokens"],
    budget: FrameBudget,
    rules: FlashVidRules,
) -> FlashVidTokens:
    """Compress one video; one transfer to the host.

    Args:
        features: token features in any floating dtype, projected and pooled.
        received_attention: attention each token receives, pooled alike.
        budget: of a frame; fewer tokens than it has.
        rules: settings.

    Raises:
        InputError: if features or attention are not finite.
    """
    means = frame_means(features)
    similarity = frame_similarity(means)
    if rules.segment:
        cuts = cut_frames(similarity, rules.segment_threshold, rules.min_segments, rules.complementary)
    else:
        cuts = torch.zeros_like(similarity, dtype=torch.bool)
    parts = segments_of(cuts)
    picked = pick_tokens(features, received_attention, mean_of_segments(means, parts), budget.picked)
    links = link_tokens(features, picked, parts)
    merged = merged_tokens(links, picked, parts, rules.link_threshold, budget.total)
    values, root = merge_trees(features, links, merged, rules.tree_mean)
    alone = (parts.lengths == 1)[:, None] & rules.single_frame_all
    candidates = torch.where(alone, torch.ones_like(picked), ~picked & ~merged)
    counts, segments = _fetch(features, received_attention, parts, candidates)
    wanted = cluster_counts(counts, segments, budget.merged)
    rule = ClusterRule(rules.neighbors, None)
    clusters = cluster_groups(values, TokenGroups(candidates, counts, wanted), frame_tokens, rule)
    trees = partial(merge_trees, links=links, merged=merged, tree_mean=rules.tree_mean)
    return _assemble(features, picked, clusters, root, segments, counts, wanted, budget.picked, trees)


def _fetch(
    features: Tensor, received_attention: Tensor, parts: FrameSegments, candidates: Tensor
) -> tuple[list[int], list[tuple[int, int]]]:
    """Candidates per frame and the segments, on the host; the one transfer, and the check of the values."""
    values = {"features": features, "received_attention": received_attention}
    sound = [sound_frames(entry) for entry in values.values()]
    table = to_host(torch.stack([*sound, candidates.sum(1), parts.first]).long()).tolist()
    for (name, entry), finite in zip(values.items(), table, strict=False):
        require_finite(name, finite, entry)
    starts = [frame for frame, first in enumerate(table[3]) if first]
    ends = [*(start - 1 for start in starts[1:]), len(table[3]) - 1]
    return table[2], list(zip(starts, ends, strict=True))


def _assemble(
    features: Tensor,
    picked: Tensor,
    found: GroupClusters,
    root: Tensor,
    segments: list[tuple[int, int]],
    candidates: list[int],
    clusters: list[int],
    picks: int,
    trees: Callable[[Tensor], tuple[Tensor, Tensor]],
) -> FlashVidTokens:
    """Picked tokens and clusters in the order of their places, and what became of every token."""
    frames, tokens, _ = features.shape
    own = packed_positions(picked.view(1, -1), frames * picks)[0]
    frame_of = torch.repeat_interleave(
        torch.arange(frames, device=own.device), torch.tensor(clusters, device=own.device), output_size=sum(clusters)
    )
    heads = frame_of * tokens + found.centers
    index = torch.cat([own, heads])
    order = index.argsort(stable=True)  # picked tokens come first of equal places
    rows = order.argsort()
    own_features = features.flatten(0, 1).index_select(0, own)
    kept = torch.cat([own_features, found.features.to(features.dtype)])[order]
    picked_rows, cluster_rows = rows.split([len(own), len(found.centers)])
    joined = torch.cat([cluster_rows, cluster_rows.new_full((1,), -1)])[found.membership]
    source = joined.flatten()[root.flatten()]
    source[own] = picked_rows
    cluster = torch.zeros_like(index, dtype=torch.bool).index_fill_(0, cluster_rows, True)
    again = partial(_merge_again, trees=trees, own=own, membership=found.membership, order=order)
    return FlashVidTokens(
        kept, index[order], cluster, source.view(frames, tokens), picked, segments, candidates, clusters, again
    )


def _merge_again(
    values: Float[Tensor, "frames tokens channels"],
    trees: Callable[[Tensor], tuple[Tensor, Tensor]],
    own: Int[Tensor, " picked"],
    membership: Int[Tensor, "frames tokens"],
    order: Int[Tensor, " kept"],
) -> Float[Tensor, "kept channels"]:
    """Other values of the tokens, picked, merged along the same trees and averaged over the same clusters."""
    clusters = mean_of_sources(trees(values)[0], membership, len(order) - len(own)).to(values.dtype)
    return torch.cat([values.flatten(0, 1).index_select(0, own), clusters])[order]
