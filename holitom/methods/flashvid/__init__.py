"""FlashVID: efficient video LLMs by tree-based spatiotemporal token merging (ICLR 2026, arXiv 2602.08024).

Stage: after the projector and the pooling, then once inside the LLM. The video is cut where frames differ (at least 8
segments). Every frame keeps the tokens that are attended to, like their segment and unlike one another. Each other
token is linked to the most similar free token of the frame before; close ones are merged into trees, and the trees'
roots into density-peak clusters until the budget is met. So a quarter more than ``retain_ratio`` reaches the LLM.
Before layer 20 of 28 the last prompt token's attention keeps 30 % of the visual tokens, all text and the newline behind
the video: on average over the layers just ``retain_ratio``.

One setting serves all ratios and benchmarks; the defaults are the release's. Where the paper and the released code
differ the code is the default, since the published numbers are its own, and a setting gives the other:

* ``tree_mean``: the paper averages whole trees; the code divides a tree's sum by 1 + the number of the root's direct
  children, so that a chain of n tokens grows to half its sum.
* ``single_frame_all``: in a segment of one frame the code clusters all tokens, picked ones too, which may put two
  output tokens at one place (``details.clusters`` tells them apart, the picked one comes first). False leaves them out.

Where this differs from the release: no token is picked twice (it repeats picks once relevance is negative); distances
and similarities are float64; equal densities are decided by the lower index instead of noise; a budget of a whole frame
and more returns the video as it is, where the release raises; several videos and batches are served.
"""

import math
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from holitom.checks import (
    is_finite_number,
    require,
    require_flag,
    require_integer,
    require_retain_ratio,
    require_within,
)
from holitom.compressor import Compressor
from holitom.encoded_video import EncodedVideo
from holitom.methods import MethodFacts, register
from holitom.methods.flashvid.compression import FlashVidRules, FlashVidTokens, compress_frames, frame_budget
from holitom.methods.flashvid.inner import late_pruning
from holitom.ops.selection import PlainDetails, all_tokens
from holitom.tokens import CompressedTokens, TokenKind


@register("flashvid", MethodFacts("FlashVID"))
@dataclass(frozen=True)
class FlashVidConfig:
    """Settings of FlashVID.

    Attributes:
        retain_ratio: share of the visual tokens, on average over the layers of the LLM, in (0, 1].
        expansion: how much more than that reaches the LLM (f).
        picked_share: share of a frame's budget that is picked and stays unchanged, in [0, 1] (alpha).
        segment: cut the video; false makes it one segment.
        min_segments: fewest segments of a video that has as many frames (c).
        similarity_threshold: neighbouring frames less similar than this are cut apart (tau_s).
        complementary: cut beyond that, up to ``min_segments``.
        link_threshold: links above this merge (tau_m).
        neighbors: most neighbours of the density estimate; no more than a frame's clusters.
        tree_mean: average whole trees, as the paper says, not by the root's direct children, as the release does.
        single_frame_all: cluster all tokens of a segment of one frame, as the release does, not its free ones alone.
        prune_layer: index of the first decoder layer that sees fewer tokens; at least 1.
        llm_keep_ratio: share of the visual tokens that it sees, rounded up, in (0, 1]; 1 prunes none.
    """

    retain_ratio: float = 0.15
    expansion: float = 1.25
    picked_share: float = 0.7
    segment: bool = True
    min_segments: int = 8
    similarity_threshold: float = 0.9
    complementary: bool = True
    link_threshold: float = 0.8
    neighbors: int = 7
    tree_mean: bool = False
    single_frame_all: bool = True
    prune_layer: int = 20
    llm_keep_ratio: float = 0.3

    def __post_init__(self) -> None:
        require_retain_ratio(self.retain_ratio)
        value: Any = self.expansion
        require(is_finite_number(value) and value > 0, "expansion", value, "above 0", "the paper uses 1.25")
        require_within("picked_share", self.picked_share, "[0, 1]", "the paper uses 0.7")
        for name, cosine in (("similarity_threshold", 0.9), ("link_threshold", 0.8)):
            require_within(name, getattr(self, name), "[-1, 1]", f"the paper uses {cosine}")
        for name, paper in (("min_segments", 8), ("neighbors", 7), ("prune_layer", 20)):
            require_integer(name, getattr(self, name), 1, f"the release uses {paper}")
        for field in fields(self):
            if field.type is bool:
                require_flag(field.name, getattr(self, field.name), f"the default is {field.default}")
        require_within("llm_keep_ratio", self.llm_keep_ratio, "(0, 1]", "the paper uses 0.3")

    def build(self) -> Compressor:
        """A compressor with these settings, applied to no model yet."""
        return Compressor(FlashVidOuter(self), late_pruning(self.prune_layer, self.llm_keep_ratio))

    def rules(self) -> FlashVidRules:
        """The settings of the outer stage."""
        return FlashVidRules(
            segment=self.segment,
            min_segments=self.min_segments,
            segment_threshold=self.similarity_threshold,
            complementary=self.complementary,
            link_threshold=self.link_threshold,
            neighbors=self.neighbors,
            tree_mean=self.tree_mean,
            single_frame_all=self.single_frame_all,
        )


@dataclass(frozen=True)
class FlashVidDetails(PlainDetails):
    """Details of one video.

    The source of a picked token is its own row, though a cluster of a segment of one frame may hold it too.

    Attributes:
        clusters: which output rows are clusters, (kept,) bool; a picked token may stand at the same place before one.
        candidates: tokens of each frame that were clustered: roots of trees, or all tokens of a segment of one frame.
        merged_per_frame: clusters of each frame.
    """

    clusters: Bool[Tensor, " kept"]
    candidates: list[int]
    merged_per_frame: list[int]


class FlashVidOuter:
    """FlashVID's outer stage as the compressor calls it."""

    checks_features = True
    question_free = True
    signals: tuple[str, ...] = ("received_attention",)
    keeps_positions = False

    def __init__(self, config: FlashVidConfig) -> None:
        self.config = config

    @torch.no_grad()
    def __call__(self, video: EncodedVideo) -> CompressedTokens:
        """Cut, pick, link and merge the tokens of one video; all of them where the budget is that of a whole frame.

        Raises:
            InputError: if features or attention are not finite.
        """
        features, config = video.features, self.config
        tokens = features.shape[1]
        budget = frame_budget(tokens, config.retain_ratio, config.expansion, config.picked_share)
        if budget.total >= tokens:
            return all_tokens(features)
        found = compress_frames(features, video.pooled("received_attention"), budget, config.rules())
        details = _details(found, *features.shape[:2])
        return CompressedTokens(found.features, found.index, details, merge_again=found.merge_again)

    def nominal(self, frames: int, tokens_per_frame: int) -> int:
        """Tokens of a video whose frames all meet the budget exactly."""
        config = self.config
        total = frame_budget(tokens_per_frame, config.retain_ratio, config.expansion, config.picked_share).total
        return frames * min(tokens_per_frame, total)

    def most_kept(self, frames: int, tokens_per_frame: int) -> int:
        """Most tokens the budget allows: a frame of a longer segment may have one cluster too many."""
        most = math.ceil(tokens_per_frame * self.config.retain_ratio * self.config.expansion) + 1
        return frames * min(tokens_per_frame, most)


def _details(found: FlashVidTokens, frames: int, tokens: int) -> FlashVidDetails:
    """What became of every token."""
    kinds = torch.where(found.source < 0, TokenKind.DYNAMIC_DROPPED.value, TokenKind.CONTEXTUAL_MERGED.value)
    kinds.view(-1)[found.index] = TokenKind.CONTEXTUAL_CENTER.value
    kinds[found.picked] = TokenKind.DYNAMIC_KEPT.value
    parts = found.segments, found.source, kinds, found.cluster, found.candidates, found.clusters
    return FlashVidDetails(frames, tokens, *parts)
