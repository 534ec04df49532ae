"""PruneVid: merging over time and in space before the LLM (arXiv 2412.16117, ACL 2025 Findings).

Stage: after the projector and the pooling. Mean-pooled frames are clustered by density peaks into windows of similar
frames; tokens that stand still over a window are averaged over it, and each group (the static tokens of a window, the
other tokens of a frame) is clustered by density peaks into plain means. It needs no side signal of the tower. The rows
of the table have this stage alone; the paper's second stage, question-guided pruning inside the LLM, is ``inner``.

Parameters of the paper: ``similarity_threshold`` 0.8, ``frame_cluster_ratio`` 0.25, ``neighbors`` 7, clusters per group
a fixed share of 0.5 with groups of up to 14 tokens left whole.

Where this differs from the authors' code, and how to get its behaviour:

* That code reaches no given budget, since the share of static tokens depends on the video. Here the share of clusters
  follows from ``retain_ratio`` and the video: of M tokens left after averaging, min(1, retain_ratio * N / M) of each
  group (rounded half to even, at least one, small groups not excepted). ``retain_ratio: null`` with ``cluster_ratio``
  gives the fixed share (truncated) with the exception of groups of up to ``exempt_tokens``.
* Tokens of a group come in raster order; ``cluster_order: score`` gives the order of the cluster scores.
* Equal densities are decided by the lower index instead of noise.

The windows are decided on the host, so the device is asked twice per video: for the labels of the frames and for the
numbers of static tokens.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from holitom.checks import require_finite, require_integer, require_one_of, require_retain_ratio, require_within
from holitom.compressor import Compressor
from holitom.encoded_video import EncodedVideo
from holitom.errors import InputError
from holitom.hooks.decoder.staged import StagedCompression
from holitom.methods import MethodFacts, register
from holitom.methods.prunevid.frame_windows import clean_labels, frame_labels, windows_of
from holitom.methods.prunevid.inner import question_pruning
from holitom.methods.prunevid.window_merging import (
    ClusterOrder,
    GroupSizes,
    budgeted_clusters,
    fixed_clusters,
    merge_windows,
    window_similarity,
)
from holitom.ops.selection import sound_frames
from holitom.ops.token_ops import to_host
from holitom.tokens import CompressedTokens


@dataclass(frozen=True)
class PruneVidInnerConfig:
    """Settings of the inner stage.

    Attributes:
        layer: decoder layer whose attention from text to video ranks the tokens.
        keep_ratio: share of every group that is kept after it, in (0, 1], truncated.
    """

    layer: int = 10
    keep_ratio: float = 0.4

    def __post_init__(self) -> None:
        self.build()  # the stage checks its settings

    def build(self) -> StagedCompression:
        """The inner stage, applied to no decoder yet."""
        return question_pruning(self.layer, self.keep_ratio)


@register(
    "prunevid",
    MethodFacts(
        "PruneVid",
        "PruneVid",
        ("#CC79A7", "^", "solid"),
        ranked_by="question's attention",
        threshold="compared with the mean over a window",
    ),
)
@dataclass(frozen=True)
class PruneVidConfig:
    """Settings of PruneVid.

    Attributes:
        retain_ratio: share of the visual tokens that reaches the LLM, in (0, 1]; None where ``cluster_ratio`` is set.
        cluster_ratio: fixed share of clusters per group, in (0, 1], as in the authors' code; the number of tokens then
            depends on the video. None where ``retain_ratio`` is set.
        similarity_threshold: mean cosine similarity above which a token stands still over a window (tau).
        frame_cluster_ratio: clusters of frames as a share of the frames, truncated, at least one.
        neighbors: neighbours of the density estimate of DPC-KNN, for frames and for tokens.
        exempt_tokens: with ``cluster_ratio``, groups of up to so many tokens stay whole.
        cluster_order: order of a group's clusters, ``"raster"`` or ``"score"`` (as in the authors' code).
        inner: pruning inside the LLM, or None.
    """

    retain_ratio: float | None = 0.15
    cluster_ratio: float | None = None
    similarity_threshold: float = 0.8
    frame_cluster_ratio: float = 0.25
    neighbors: int = 7
    exempt_tokens: int = 14
    cluster_order: ClusterOrder = "raster"
    inner: PruneVidInnerConfig | None = None

    def __post_init__(self) -> None:
        if (self.retain_ratio is None) == (self.cluster_ratio is None):
            raise InputError(
                f"retain_ratio = {self.retain_ratio} and cluster_ratio = {self.cluster_ratio}: exactly one of them "
                "must be set; make the other one null"
            )
        if self.cluster_ratio is None:
            require_retain_ratio(self.retain_ratio)
        else:
            require_within("cluster_ratio", self.cluster_ratio, "(0, 1]", "the authors' code uses 0.5")
        require_within("frame_cluster_ratio", self.frame_cluster_ratio, "(0, 1]", "the paper uses 0.25")
        require_within("similarity_threshold", self.similarity_threshold, "[-1, 1]", "the paper uses 0.8")
        require_integer("neighbors", self.neighbors, 1, "the paper uses 7")
        require_integer("exempt_tokens", self.exempt_tokens, 0, "the authors use 14")
        require_one_of("cluster_order", self.cluster_order, ClusterOrder, "the default is raster")

    def build(self) -> Compressor:
        """A compressor with these settings, applied to no model yet."""
        return Compressor(PruneVidOuter(self), None if self.inner is None else self.inner.build())


class PruneVidOuter:
    """PruneVid's outer stage as the compressor calls it."""

    question_free = True
    signals: tuple[str, ...] = ()
    keeps_positions = False
    checks_features = True

    def __init__(self, config: PruneVidConfig) -> None:
        self.config = config

    @torch.no_grad()
    def __call__(self, video: EncodedVideo) -> CompressedTokens:
        """Cut into windows, average over time and merge in space.

        Raises:
            InputError: if a feature is not finite, or newline tokens need raster order and the clusters are to come in
                the order of their scores.
        """
        config, features = self.config, video.features
        if video.order == "raster" and config.cluster_order != "raster":
            raise InputError(
                f"cluster_order = {config.cluster_order!r} with mm_newline_position 'grid' or 'frame': newline tokens "
                "need raster order; use cluster_order = 'raster'"
            )
        windows = self._windows(features)
        static = window_similarity(features, windows) > config.similarity_threshold
        counts = to_host(static.sum(1)).tolist()
        tokens = features.shape[1]
        dynamic = [
            tokens - count for count, (first, last) in zip(counts, windows, strict=True) for _ in range(first, last + 1)
        ]
        sizes = GroupSizes(windows, counts, dynamic)
        ratio, clusters = self._clusters(sizes)
        whole = -1 if config.cluster_ratio is None else config.exempt_tokens
        ranked = [config.cluster_order == "score" and size > whole for size in counts + dynamic]
        return merge_windows(features, static, sizes, clusters, config.neighbors, ranked, video.order, ratio)

    def most_kept(self, frames: int, tokens_per_frame: int) -> int:
        """Most tokens a video of this size can be merged into, whatever it shows.

        A window has at least two frames, so there are at most half as many windows as frames. Rounding and the least of
        one cluster add less than one token per group to the budget; whole groups add what they are not reduced by.
        """
        config, total, groups = self.config, frames * tokens_per_frame, frames + frames // 2
        if config.cluster_ratio is None:
            assert config.retain_ratio is not None
            return min(total, math.ceil(config.retain_ratio * total + groups) - 1)
        added = max(1.0, config.exempt_tokens * (1 - config.cluster_ratio))
        return min(total, math.floor(config.cluster_ratio * total + groups * added))

    def _windows(self, features: Tensor) -> list[tuple[int, int]]:
        """Windows of similar frames; one transfer to the host."""
        frames = features.shape[0]
        clusters = max(1, int(frames * self.config.frame_cluster_ratio))
        sound = sound_frames(features)
        labels = frame_labels(features, clusters, self.config.neighbors)
        fetched = to_host(torch.stack([sound.long(), labels])).tolist()
        require_finite("features", fetched[0], features)
        return windows_of(clean_labels(fetched[1]))

    def _clusters(self, sizes: GroupSizes) -> tuple[float, list[int]]:
        """Share of clusters, and the clusters of every group."""
        config, groups = self.config, sizes.static + sizes.dynamic
        if config.cluster_ratio is not None:
            return config.cluster_ratio, fixed_clusters(groups, config.cluster_ratio, config.exempt_tokens)
        assert config.retain_ratio is not None
        total = len(sizes.dynamic) * (sizes.static[0] + sizes.dynamic[0])
        ratio = min(1.0, config.retain_ratio * total / sizes.merged_over_time)
        return ratio, budgeted_clusters(groups, ratio)
