"""Merging inside windows of similar frames, for PruneVid (arXiv 2412.16117, spatial-temporal token merging).

Tokens that hardly change over a window become one set of averages; the other tokens stay with their frames. Each such
group is then clustered by density peaks and every cluster becomes its plain mean.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from holitom.ops.clustering import rows_of
from holitom.ops.group_clustering import ClusterRule, TokenGroups, cluster_groups, frame_tokens, segment_means
from holitom.ops.selection import PlainDetails
from holitom.ops.token_ops import upload
from holitom.tokens import CompressedTokens, Order, TokenKind

ClusterOrder = Literal["raster", "score"]


def window_similarity(
    features: Float[Tensor, "frames tokens dim"], windows: list[tuple[int, int]]
) -> Float[Tensor, "windows tokens"]:
    """Mean cosine similarity of each position over all ordered pairs of different frames of a window.

    Args:
        features: token features in any floating dtype.
        windows: first and last frame of every window, inclusive.

    Returns:
        float32, at most 1; minus infinity in a window of one frame, which has no pairs.
    """
    rows = []
    for first, last in windows:
        frames = last - first + 1
        if frames == 1:
            rows.append(features.new_full(features.shape[1:2], -torch.inf, dtype=torch.float32))
            continue
        # All pairs at once: the squared length of a sum of unit vectors holds every cosine, those with itself included.
        units = torch.nn.functional.normalize(features[first : last + 1].float(), dim=-1)
        itself = units.square().sum((0, 2))
        rows.append((units.sum(0).square().sum(-1) - itself) / (frames * (frames - 1)))
    return torch.stack(rows).clamp_max(1)


@dataclass(frozen=True)
class GroupSizes:
    """Groups of one video in reading order: of every window the static tokens, then each frame's dynamic ones.

    Attributes:
        windows: first and last frame of every window, inclusive.
        static: static tokens per window.
        dynamic: dynamic tokens per frame.
    """

    windows: list[tuple[int, int]]
    static: list[int]
    dynamic: list[int]

    @property
    def merged_over_time(self) -> int:
        """Tokens that are left once static tokens are averaged over their window."""
        return sum(self.static) + sum(self.dynamic)

    def numbers(self) -> np.ndarray:
        """Place in reading order of every window's static group, then of every frame's dynamic group."""
        first = np.array([start for start, _ in self.windows])
        window = self.window_of_frame()
        return np.concatenate([first + np.arange(len(first)), np.arange(len(window)) + window + 1])

    def first_frames(self) -> np.ndarray:
        """First frame of every group, in the order of :meth:`numbers`."""
        return np.concatenate([[start for start, _ in self.windows], np.arange(len(self.dynamic))])

    def window_of_frame(self) -> np.ndarray:
        """Number of the window that each frame belongs to."""
        lengths = [last - start + 1 for start, last in self.windows]
        return np.repeat(np.arange(len(lengths)), lengths)


def budgeted_clusters(sizes: list[int], ratio: float) -> list[int]:
    """Clusters per group by a share of its tokens, rounded half to even; at least one where there is a token."""
    return [max(1, round(size * ratio)) if size else 0 for size in sizes]


def fixed_clusters(sizes: list[int], ratio: float, exempt: int) -> list[int]:
    """Clusters per group as the reference counts them: truncated; groups of up to ``exempt`` tokens stay whole.

    A group never vanishes: where the reference would be left with no centre, one is kept.
    """
    return [size if size <= exempt else max(1, int(size * ratio)) for size in sizes]


@dataclass(frozen=True)
class PruneVidDetails(PlainDetails):
    """Details of one video; its segments are the windows.

    Attributes:
        group: number of the group of each output row, ascending unless the tokens are in raster order. Groups are, for
            every window, its static tokens and then each of its frames' dynamic tokens; empty ones count too.
        static_counts: static tokens per window.
        cluster_ratio: share of clusters per group that was used.
    """

    group: Int[Tensor, " kept"]
    static_counts: list[int]
    cluster_ratio: float


def merge_windows(
    features: Float[Tensor, "frames tokens dim"],
    static: Bool[Tensor, "windows tokens"],
    sizes: GroupSizes,
    clusters: list[int],
    neighbors: int,
    ranked: list[bool],
    order: Order,
    ratio: float,
) -> CompressedTokens:
    """Cluster every group and bring the means into reading order.

    Args:
        features: token features in any floating dtype.
        static: static tokens of each window.
        sizes: the groups.
        clusters: clusters of every window's static group, then of every frame's dynamic group.
        neighbors: k of the density; limited to the tokens of a group.
        ranked: groups whose clusters come in descending score of their centres instead of raster order.
        order: ``"raster"`` puts every token at its place in its frame instead of group after group.
        ratio: share of clusters per group that ``clusters`` comes from, for the record.

    Returns:
        The tokens that reach the LLM: plain means in the dtype of the input, each at the place of its cluster's centre,
        static ones in their window's first frame.
    """
    frames, tokens, _ = features.shape
    windows = len(sizes.windows)
    rule = ClusterRule(neighbors, None, clusters_limit_neighbors=False, scored=order != "raster")
    repeated = [np.repeat(column, clusters) for column in (sizes.numbers(), sizes.first_frames(), np.array(ranked))]
    first, last = np.array(sizes.windows).T
    columns = *repeated, sizes.window_of_frame(), last, last - first + 1
    group, frame, by_score, window, *extent = upload(features.device, *columns)
    dynamic = ~static.index_select(0, window)
    still = TokenGroups(static, sizes.static, clusters[:windows])
    over_time = cluster_groups(features, still, segment_means(sizes.windows, (extent[0], extent[1])), rule)
    moving = TokenGroups(dynamic, sizes.dynamic, clusters[windows:])
    in_frames = cluster_groups(features, moving, frame_tokens, rule)
    index = frame * tokens + torch.cat([over_time.centers, in_frames.centers])
    if order == "raster":
        rows = index.argsort()
    else:
        scores = torch.cat([over_time.scores, in_frames.scores])
        first = torch.where(by_score > 0, scores, 0).argsort(descending=True, stable=True)
        rows = first[group[first].argsort(stable=True)]
    places = rows.argsort().split([len(over_time.centers), len(in_frames.centers)])
    source = torch.where(
        dynamic, rows_of(in_frames.membership, places[1]), rows_of(over_time.membership, places[0])[window]
    )
    merged = torch.cat([over_time.features, in_frames.features])[rows]
    index = index[rows]
    kinds = _kinds(dynamic, index)
    details = PruneVidDetails(frames, tokens, sizes.windows, source, kinds, group[rows], sizes.static, ratio)
    return CompressedTokens(merged, index, details)


def _kinds(dynamic: Bool[Tensor, "frames tokens"], index: Int[Tensor, " kept"]) -> Int[Tensor, "frames tokens"]:
    """What became of each token, from the place of the centres."""
    center = torch.zeros_like(dynamic).flatten().index_fill_(0, index, True).view_as(dynamic)
    kinds = torch.where(center, TokenKind.CONTEXTUAL_CENTER.value, TokenKind.CONTEXTUAL_MERGED.value)
    static = torch.where(center, TokenKind.STATIC_CENTER.value, TokenKind.STATIC_MERGED.value)
    return torch.where(dynamic, kinds, static)
