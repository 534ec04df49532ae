"""Outer-LLM stage of HoliTom: the visual tokens of one video become a few, before they reach the LLM.

Segmentation, temporal merging and spatial merging (HoliTom, Sec. 3.1 and 3.2) of one video::

    tokens = OuterCompression(OuterConfig(retain_ratio=0.15))(features, received_attention)
    tokens.features, tokens.index, tokens.details.source_map()

Everything that decides a size is an integer count, which leaves the device in one small transfer.
"""

import math
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from holitom.errors import InputError
from holitom.methods.holitom.config import OuterConfig
from holitom.methods.holitom.plan import OuterPlan, make_plan, segment_of_frame
from holitom.methods.holitom.spatial_merging import merge_contextual, select_dynamic
from holitom.methods.holitom.temporal_merging import merge_static, select_static, static_masks
from holitom.methods.holitom.temporal_segmentation import static_run_lengths
from holitom.ops.group_clustering import GroupClusters
from holitom.ops.group_points import rows_of
from holitom.ops.merging_again import clusters_again
from holitom.ops.similarity import similarity_and_norms
from holitom.ops.token_ops import packed_positions, upload
from holitom.tokens import CompressedTokens, Order, TokenKind


@dataclass(frozen=True)
class OuterDetails:
    """How one video was compressed: enough for a record or a picture.

    Attributes:
        frames: frames of the video.
        tokens_per_frame: tokens of each frame before compression.
        segments: first and last frame of every segment, inclusive.
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

    def segment_of_frame(self) -> Int[Tensor, " frames"]:
        """Number of the segment each frame belongs to."""
        return upload(self.index.device, segment_of_frame(self.segments))[0]

    def source_map(self) -> Int[Tensor, "frames tokens"]:
        """Output row that each original token was kept as or merged into; -1 for dropped tokens."""
        segment = self.segment_of_frame()
        return torch.where(self.static_masks[segment], self.static_rows[segment], self.dynamic_rows)

    def token_kinds(self) -> Int[Tensor, "frames tokens"]:
        """What became of each original token, as values of :class:`TokenKind`."""
        static, gone = self.static_masks[self.segment_of_frame()], self.source_map() < 0
        center = torch.zeros_like(gone).flatten().index_fill_(0, self.index, True).view_as(gone)
        kinds = torch.where(center, TokenKind.CONTEXTUAL_CENTER.value, TokenKind.CONTEXTUAL_MERGED.value)
        kinds = kinds.masked_fill(self.selected, TokenKind.DYNAMIC_KEPT).masked_fill(gone, TokenKind.DYNAMIC_DROPPED)
        merged = torch.where(center, TokenKind.STATIC_CENTER.value, TokenKind.STATIC_MERGED.value)
        return torch.where(static, merged.masked_fill(gone, TokenKind.STATIC_DROPPED), kinds)

    def merge_again(
        self, values: Float[Tensor, "frames tokens channels"], center_weight: float | None
    ) -> Float[Tensor, "kept channels"]:
        """Other values of the tokens, merged as the tokens were; see :class:`~holitom.tokens.CompressedTokens`.

        Args:
            values: of the original tokens.
            center_weight: weight of a cluster's centre that the tokens were merged with, None for the plain mean.
        """
        means = torch.stack([values[first : last + 1].mean(0, dtype=torch.float32) for first, last in self.segments])
        frame, position = self.index // self.tokens_per_frame, self.index % self.tokens_per_frame
        segment = self.segment_of_frame()[frame]
        static = self.static_rows[segment, position] == torch.arange(len(self.index), device=self.index.device)
        group = torch.where(static, segment, frame + len(means))
        groups = torch.cat([means, values.to(means)])
        rows = torch.cat([self.static_rows, self.dynamic_rows])
        heads = group * self.tokens_per_frame + position
        return clusters_again(groups, rows, heads, center_weight).to(values.dtype)


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
        segments = plan.segmentation.segments
        masks = static_masks(runs, segments)
        segment, counts = upload(features.device, segment_of_frame(segments), plan.selected)
        dynamic = ~masks.index_select(0, segment)
        selected = select_dynamic(received_attention, dynamic, counts)
        weight = None if config.plain_mean else config.center_weight
        found, kept = plan.segmentation, plan.static_kept
        if config.static_rule == "attention":
            static = select_static(features, received_attention, masks, segments, kept)
        else:
            static = merge_static(features, masks, segments, found.static_counts, kept, config.neighbors, weight)
        rest = [total - kept for total, kept in zip(plan.dynamic, plan.selected, strict=True)]
        contextual = merge_contextual(features, dynamic & ~selected, rest, plan.contextual, config.neighbors, weight)
        tokens = assemble(features, plan, static, contextual, masks, selected, similarity, order)
        return replace(tokens, merge_again=partial(tokens.details.merge_again, center_weight=weight))

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


def assemble(
    features: Float[Tensor, "frames tokens dim"],
    plan: OuterPlan,
    static: GroupClusters,
    contextual: GroupClusters,
    masks: Bool[Tensor, "segments tokens"],
    selected: Bool[Tensor, "frames tokens"],
    similarity: Float[Tensor, "pairs tokens"],
    order: Order,
) -> CompressedTokens:
    """Bring static, selected and contextual tokens into reading order and record where each came from."""
    frames, tokens, dim = features.shape
    found, device = plan.segmentation, features.device
    static_frame = np.repeat([first for first, _ in found.segments], plan.static_kept)
    contextual_frame = np.repeat(np.arange(frames), plan.contextual)
    *block_rows, static_frames, contextual_frames = upload(device, *plan.rows(), static_frame, contextual_frame)
    static_at = static_frames * tokens + static.centers
    contextual_at = contextual_frames * tokens + contextual.centers
    selected_at = packed_positions(selected.view(1, -1), sum(plan.selected))[0]
    source = torch.cat([static_at, selected_at, contextual_at])
    # The tokens are distinct, so sorting by position is a permutation; its inverse gives the rows.
    rows = torch.cat(block_rows) if order == "block" else source.argsort().argsort()
    static_rows, selected_rows, contextual_rows = rows.split([len(static_at), len(selected_at), len(contextual_at)])
    kept = features.new_empty(len(rows), dim)
    kept.index_copy_(0, static_rows, static.features)
    kept.index_copy_(0, selected_rows, features.flatten(0, 1).index_select(0, selected_at))
    kept.index_copy_(0, contextual_rows, contextual.features)
    index = torch.empty_like(source).scatter_(0, rows, source)
    dynamic_rows = rows_of(contextual.membership, contextual_rows)
    dynamic_rows.view(-1).index_copy_(0, selected_at, selected_rows)
    details = OuterDetails(
        frames=frames,
        tokens_per_frame=tokens,
        segments=found.segments,
        static_counts=found.static_counts,
        static_kept=plan.static_kept,
        dynamic_kept=[chosen + merged for chosen, merged in zip(plan.selected, plan.contextual, strict=True)],
        removable=found.removable,
        adjusted_ratio=plan.ratio,
        similarity=similarity,
        index=index,
        static_masks=masks,
        static_rows=rows_of(static.membership, static_rows),
        dynamic_rows=dynamic_rows,
        selected=selected,
    )
    return CompressedTokens(kept, index, details)
