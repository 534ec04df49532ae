"""Outer-LLM stage of HoliTom: the visual tokens of one video become a few, before they reach the LLM.

Segmentation, temporal merging and spatial merging (HoliTom, Sec. 3.1 and 3.2) of one video::

    tokens = OuterCompression(OuterConfig(retain_ratio=0.15))(features, received_attention)
    tokens.features, tokens.index, tokens.details.source_map()

Everything that decides a size is an integer count, which leaves the device in one small transfer.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from holitom.errors import InputError
from holitom.methods.holitom.config import OuterConfig
from holitom.methods.holitom.spatial_merging import OuterPlan, make_plan
from holitom.methods.holitom.temporal_merging import most_attended, static_masks
from holitom.methods.holitom.temporal_segmentation import static_run_lengths
from holitom.ops.clustering import rows_of
from holitom.ops.group_clustering import (
    ClusterRule,
    GroupClusters,
    TokenGroups,
    cluster_groups,
    frame_tokens,
    segment_means,
)
from holitom.ops.similarity import similarity_and_norms
from holitom.ops.token_ops import highest, packed_positions
from holitom.tokens import CompressedTokens, Order, TokenKind


@dataclass(frozen=True)
class OuterDetails:
    """How one video was compressed: enough for a record or a picture.

    Attributes:
        frames: frames of the video.
        tokens_per_frame: tokens of each frame before compression.
        segments: first and last frame of every segment, inclusive.
        segment_of_frame: number of the segment each frame belongs to.
        static_counts: static tokens per segment.
        static_kept: tokens they were merged into, per segment.
        dynamic_kept: tokens kept of each frame's dynamic ones.
        removable: tokens that keeping each static token once per segment saves.
        adjusted_ratio: share kept of the remaining tokens.
        similarity: cosine similarity of each token to the same position one frame later.
        index: frame * tokens_per_frame + position of every output token.
        static_masks: static tokens of each segment.
        static_rows: output row of each static token by segment, -1 for none.
        dynamic_rows: output row of each dynamic token by frame, -1 for none.
        selected: dynamic tokens kept unchanged.
    """

    frames: int
    tokens_per_frame: int
    segments: list[tuple[int, int]]
    segment_of_frame: Int[Tensor, " frames"]
    static_counts: list[int]
    static_kept: list[int]
    dynamic_kept: list[int]
    removable: int
    adjusted_ratio: float
    similarity: Float[Tensor, "pairs tokens"]
    index: Int[Tensor, " kept"]
    static_masks: Bool[Tensor, "segments tokens"]
    static_rows: Int[Tensor, "segments tokens"]
    dynamic_rows: Int[Tensor, "frames tokens"]
    selected: Bool[Tensor, "frames tokens"]

    def source_map(self) -> Int[Tensor, "frames tokens"]:
        """Output row that each original token was kept as or merged into; -1 for dropped tokens."""
        static = self.static_masks[self.segment_of_frame]
        return torch.where(static, self.static_rows[self.segment_of_frame], self.dynamic_rows)

    def token_kinds(self) -> Int[Tensor, "frames tokens"]:
        """What became of each original token, as values of :class:`TokenKind`."""
        static, gone = self.static_masks[self.segment_of_frame], self.source_map() < 0
        center = torch.zeros_like(gone).flatten().index_fill_(0, self.index, True).view_as(gone)
        kinds = torch.where(center, TokenKind.CONTEXTUAL_CENTER.value, TokenKind.CONTEXTUAL_MERGED.value)
        kinds = kinds.masked_fill(self.selected, TokenKind.DYNAMIC_KEPT).masked_fill(gone, TokenKind.DYNAMIC_DROPPED)
        merged = torch.where(center, TokenKind.STATIC_CENTER.value, TokenKind.STATIC_MERGED.value)
        return torch.where(static, merged.masked_fill(gone, TokenKind.STATIC_DROPPED), kinds)


class OuterCompression:
    """HoliTom's outer stage for one video at a time.

    Args:
        config: settings.
    """

    def __init__(self, config: OuterConfig) -> None:
        self.config = config

    @torch.no_grad()
    def __call__(
        self,
        features: Float[Tensor, "frames tokens dim"],
        received_attention: Float[Tensor, "frames tokens"],
        order: Order = "block",
    ) -> CompressedTokens:
        """Compress the visual tokens of one video (HoliTom, Sec. 3.1 and 3.2).

        Args:
            features: projected and pooled features in any floating dtype.
            received_attention: attention each token receives in the vision tower.
            order: ``"block"`` puts a segment's static tokens before its frames; ``"raster"`` puts them among the
                tokens of its first frame, and every frame in raster order.

        Returns:
            The kept tokens.

        Raises:
            InputError: if shapes, dtypes or the order do not fit, or a value is not finite.
        """
        check_inputs(features, received_attention, order)
        config = self.config
        similarity, norms = similarity_and_norms(features)
        runs = static_run_lengths(similarity, config.similarity_threshold)
        plan = make_plan(runs, norms, received_attention, config, features)
        found = plan.segmentation
        masks = static_masks(runs, *plan.extent)
        dynamic = ~masks.index_select(0, plan.segment)
        selected = highest(received_attention, dynamic, plan.selected)  # of the tokens that move, in each frame
        rule = ClusterRule(config.neighbors, None if config.plain_mean else config.center_weight)
        still = TokenGroups(masks, found.static_counts, plan.static_kept, plan.static_groups)
        if config.static_rule == "attention":  # of these every one is kept
            chosen = most_attended(received_attention, masks, found.segments, plan.static_kept)
            still = TokenGroups(chosen, plan.static_kept, plan.static_kept)
        static = cluster_groups(features, still, segment_means(found.segments, plan.extent), rule)
        left = TokenGroups(dynamic & ~selected, plan.rest, plan.contextual, plan.contextual_groups)
        contextual = cluster_groups(features, left, frame_tokens, rule)
        kept, index, static_rows, dynamic_rows = in_order(features, plan, static, selected, contextual, order)
        details = OuterDetails(
            frames=len(features),
            tokens_per_frame=features.shape[1],
            segments=found.segments,
            segment_of_frame=plan.segment,
            static_counts=found.static_counts,
            static_kept=plan.static_kept,
            dynamic_kept=plan.dynamic_kept,
            removable=found.removable,
            adjusted_ratio=plan.ratio,
            similarity=similarity,
            index=index,
            static_masks=masks,
            static_rows=static_rows,
            dynamic_rows=dynamic_rows,
            selected=selected,
        )
        return CompressedTokens(kept, index, details, center_weight=rule.center_weight)

    def most_kept(self, frames: int, tokens_per_frame: int) -> int:
        """Most tokens a video of this size can be compressed to, whatever it shows.

        Rounding up adds less than one token per frame, rounding half to even at most half a token per segment of
        two or more frames.
        """
        total = frames * tokens_per_frame
        return min(total, math.floor(self.config.retain_ratio * total + frames + 0.5 * (frames // 2)))


def check_inputs(features: Tensor, received_attention: Tensor, order: str) -> None:
    """Raise :class:`InputError` unless shapes, dtypes and the order fit."""
    shape = tuple(features.shape)
    if features.ndim != 3 or 0 in shape or not features.is_floating_point():
        raise InputError(
            f"features of shape {shape} and dtype {features.dtype}: expected floating-point (frames, tokens, "
            "dim), each at least 1; pass the pooled features of one video"
        )
    if received_attention.shape != shape[:2] or not received_attention.is_floating_point():
        raise InputError(
            f"received_attention of shape {tuple(received_attention.shape)} and dtype {received_attention.dtype}: "
            f"expected floating-point {shape[:2]}; pool it as the features are pooled"
        )
    if order not in ("block", "raster"):
        raise InputError(f"order = {order!r} is unknown: it must be 'block' or 'raster'; 'block' is the default")


def in_order(
    features: Float[Tensor, "frames tokens dim"],
    plan: OuterPlan,
    static: GroupClusters,
    selected: Bool[Tensor, "frames tokens"],
    contextual: GroupClusters,
    order: Order,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Bring static, selected and contextual tokens into reading order.

    Returns:
        The tokens with their index, and the output rows of what is static, by segment, and of what is not, by frame.
    """
    tokens = features.shape[1]
    widths = [sum(plan.static_kept), sum(plan.dynamic_kept) - sum(plan.contextual), sum(plan.contextual)]
    (selected_at,) = packed_positions(selected.view(1, -1), widths[1])
    source = plan.frame * tokens + torch.cat([static.centers, selected_at % tokens, contextual.centers])
    # The tokens are distinct, so sorting by position is a permutation; its inverse gives the rows.
    rows = plan.rows if order == "block" else source.argsort().argsort()
    static_rows, selected_rows, contextual_rows = rows.split(widths)
    index = torch.empty_like(source).scatter_(0, rows, source)
    kept = features.flatten(0, 1).index_select(0, index)  # one pass; of merged tokens only the place is right
    kept.index_copy_(0, static_rows, static.features).index_copy_(0, contextual_rows, contextual.features)
    dynamic_rows = rows_of(contextual.membership, contextual_rows)
    dynamic_rows.view(-1).index_copy_(0, selected_at, selected_rows)
    return kept, index, rows_of(static.membership, static_rows), dynamic_rows
