"""FastVID: dynamic density pruning before the LLM (arXiv 2503.11187, NeurIPS 2025).

Stage: after the projector and the pooling; kept tokens hold their positions of the uncompressed video. It is cut where
frames differ; every frame keeps its most salient tokens unchanged, and in every few frames of a segment some of the
other tokens, its density peaks, are kept as anchors that all other tokens of the segment are merged into.

Parameters of the paper, all defaults here: ``min_segments`` 8 (c), ``similarity_threshold`` 0.9, ``context_ratio`` 0.4
(d), ``anchor_stride`` 4 (p), ``anchor_weight`` 0.6 (beta), ``neighbors`` 4. A frame keeps trunc(tokens * retain_ratio)
tokens on average, 49 / 39 / 29 / 19 of 196.

Side signals: the paper takes the frame vectors (for the cuts) and the saliency from SigLIP's attention-pooling head,
which LLaVA checkpoints do not hold. Give its weights as ``head_weights``; without them, mean-pooled features stand for
the frame vectors and the attention received in the tower's last layer for the saliency (as FlashVID compares with
FastVID). The details of every video say which of the two was used.

Where this differs from the authors' code: equal densities are decided by the lower index instead of noise; an anchor
is a member of its own cluster even where another anchor has the same direction; with an ``anchor_stride`` of 1 or 2 the
release merges within the frame and not over the segment; anchors beyond the tokens of a frame (at large ratios, in long
segments) are left out; several videos and batches are served. A budget without context tokens keeps the salient ones
alone. Videos of fewer than ``min_segments`` frames are refused, and so are newline tokens inside the video.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from holitom.checks import require, require_finite, require_integer, require_retain_ratio, require_within
from holitom.compressor import Compressor
from holitom.encoded_video import EncodedVideo
from holitom.errors import InputError
from holitom.methods import MethodFacts, register
from holitom.methods.fastvid.anchors import (
    AnchorPlan,
    JoinedSegments,
    choose_anchors,
    cut_segments,
    frame_budget,
    merge_anchors,
    merge_anchors_again,
    plan_anchors,
)
from holitom.methods.fastvid.pooling_head import PoolingHead
from holitom.ops.exact_similarity import exact_cosine
from holitom.ops.selection import PlainDetails, sound_frames
from holitom.ops.token_ops import highest, packed_positions
from holitom.tokens import CompressedTokens, TokenKind


@register(
    "fastvid",
    MethodFacts("FastVID", "FastVID", ("#E69F00", "v", "solid"), threshold="of frame vectors, not of tokens"),
)
@dataclass(frozen=True)
class FastVidConfig:
    """Settings of FastVID.

    Attributes:
        retain_ratio: share of the tokens of a frame that reaches the LLM, in (0, 1], truncated.
        min_segments: fewest segments of a video (c); it must have as many frames.
        similarity_threshold: neighbouring frames less similar than this are cut apart (tau).
        context_ratio: share of the kept tokens that are anchors, in [0, 1], truncated (d).
        anchor_stride: distance of the anchor frames of a segment (p).
        anchor_weight: weight of an anchor against the mean of its members (beta).
        neighbors: neighbours of the density estimate.
        head_weights: safetensors file with SigLIP's ``post_layernorm`` and ``head`` tensors, or None for the fallback.
        head_heads: attention heads of that head, 16 in siglip-so400m.
    """

    retain_ratio: float = 0.15
    min_segments: int = 8
    similarity_threshold: float = 0.9
    context_ratio: float = 0.4
    anchor_stride: int = 4
    anchor_weight: float = 0.6
    neighbors: int = 4
    head_weights: str | None = None
    head_heads: int = 16

    def __post_init__(self) -> None:
        require_retain_ratio(self.retain_ratio)
        require_within("similarity_threshold", self.similarity_threshold, "[-1, 1]", "the paper uses 0.9")
        for name, share in (("context_ratio", 0.4), ("anchor_weight", 0.6)):
            require_within(name, getattr(self, name), "[0, 1]", f"the paper uses {share}")
        for name, paper in (("min_segments", 8), ("anchor_stride", 4), ("neighbors", 4), ("head_heads", 16)):
            require_integer(name, getattr(self, name), 1, f"the paper uses {paper}")
        path = self.head_weights
        valid = path is None or (isinstance(path, str) and path != "")
        require(valid, "head_weights", path, "a path or null", "null does without the pooling head")

    def build(self) -> Compressor:
        """A compressor with these settings, applied to no model yet.

        Raises:
            CheckpointError: if ``head_weights`` is no file with the tensors of a pooling head.
        """
        return Compressor(FastVidOuter(self), None)


@dataclass(frozen=True)
class FastVidDetails(PlainDetails):
    """Details of one video.

    A merged token joins an anchor in each anchor frame of its segment; its source is the one in the first anchor frame
    at or after its own.

    Attributes:
        side_signals: ``"pooling_head"`` or ``"received_attention"`` (the fallback).
        salient_per_frame: tokens kept unchanged in every frame.
        anchor_frames: anchor frames of every segment.
        anchors: anchors in each anchor frame of every segment.
    """

    side_signals: str
    salient_per_frame: int
    anchor_frames: list[list[int]]
    anchors: list[int]


class FastVidOuter:
    """FastVID's outer stage as the compressor calls it."""

    question_free = True
    keeps_positions = True
    checks_features = True

    def __init__(self, config: FastVidConfig) -> None:
        self.config = config
        self.head = None if config.head_weights is None else PoolingHead(config.head_weights, config.head_heads)
        self.signals: tuple[str, ...] = ("received_attention",) if self.head is None else ("tower_output",)

    @torch.no_grad()
    def __call__(self, video: EncodedVideo) -> CompressedTokens:
        """Cut, keep the salient tokens and merge the others into anchors.

        Raises:
            InputError: for newlines inside the video, too few frames or tokens, or values that are not finite.
            CheckpointError: if the pooling head belongs to another tower.
        """
        config, features = self.config, video.features
        frames, tokens, _ = features.shape
        salient, context = self._check(video)
        vectors, saliency = self._side_signals(video)
        segments = self._segments(features, vectors, saliency)
        plan = plan_anchors(segments, context, config.anchor_stride, tokens - salient)
        everything = torch.ones_like(saliency, dtype=torch.bool)
        counts = torch.full((frames,), salient, device=features.device)
        chosen = highest(saliency, everything, counts)
        rest = packed_positions(~chosen, tokens - salient)
        anchors = choose_anchors(features, rest, plan, config.neighbors)
        merged = merge_anchors(features, rest, plan, anchors, config.anchor_weight)
        salient_at = packed_positions(chosen.view(1, -1), frames * salient)[0]
        return self._assemble(features, salient_at, rest, merged, plan)

    def preference(self, video: EncodedVideo, kept: CompressedTokens) -> Tensor:
        """The saliency that tokens are kept by; see :mod:`holitom.budget`."""
        return self._side_signals(video)[1]

    def most_kept(self, frames: int, tokens_per_frame: int) -> int:
        """Most tokens the budget allows."""
        return frames * sum(frame_budget(tokens_per_frame, self.config.retain_ratio, self.config.context_ratio))

    def _check(self, video: EncodedVideo) -> tuple[int, int]:
        """Salient and context tokens per frame, once it is clear that the video can be served."""
        config, (frames, tokens) = self.config, video.features.shape[:2]
        if video.order == "raster":
            raise InputError(
                "mm_newline_position 'grid' and 'frame' are not supported by FastVID, whose tokens keep their "
                "positions: use 'one_token' or 'no_token'"
            )
        if frames < config.min_segments:
            raise InputError(
                f"the video has {frames} frame(s), fewer than min_segments = {config.min_segments}: sample more "
                "frames, or set min_segments lower"
            )
        salient, context = frame_budget(tokens, config.retain_ratio, config.context_ratio)
        if salient + context == 0:
            raise InputError(
                f"retain_ratio = {config.retain_ratio} keeps no token of a frame of {tokens}: it must be at least "
                f"{1 / tokens:.4f}; the paper uses 0.10 and more"
            )
        return salient, context

    def _side_signals(self, video: EncodedVideo) -> tuple[Tensor, Tensor]:
        """Vector of every frame, (frames, width), and saliency of every token, (frames, tokens); float32."""
        if self.head is None:
            return video.features.mean(1, dtype=torch.float32), video.pooled("received_attention")
        vectors, attention = self.head(video.signals["tower_output"])
        return vectors, video.pool(attention[..., None])[..., 0].to(video.features.device)

    def _segments(self, features: Tensor, vectors: Tensor, saliency: Tensor) -> list[tuple[int, int]]:
        """Segments of the video; the one transfer to the host."""
        wide = vectors.double()
        similarity = exact_cosine(wide[1:], wide[:-1])
        checked = {"features": features, "saliency": saliency, "frame vectors": vectors[:, None]}
        sound = [sound_frames(values).to(wide) for values in checked.values()]
        fetched = torch.cat([part.to(features.device) for part in (*sound, similarity)]).tolist()
        frames = len(wide)
        for number, (name, values) in enumerate(checked.items()):
            require_finite(name, [int(good) for good in fetched[number * frames : (number + 1) * frames]], values)
        return cut_segments(fetched[3 * frames :], self.config.min_segments, self.config.similarity_threshold)

    def _assemble(
        self,
        features: Tensor,
        salient_at: Tensor,
        rest: Tensor,
        merged: tuple[Tensor, Tensor, Tensor, JoinedSegments],
        plan: AnchorPlan,
    ) -> CompressedTokens:
        """Salient tokens and anchors in the order of their places, and what became of every token."""
        frames, tokens, _ = features.shape
        vectors, places, membership, segments = merged
        index = torch.cat([salient_at, places])
        order = index.argsort()
        rows = order.argsort()
        own = features.flatten(0, 1).index_select(0, salient_at)
        kept = torch.cat([own, vectors.to(features.dtype)])[order]
        salient_rows, anchor_rows = rows.split([len(salient_at), len(places)])
        source = torch.full((frames, tokens), -1, device=features.device)
        joined = torch.cat([anchor_rows, anchor_rows.new_full((1,), -1)])[membership]
        source.scatter_(1, rest, joined)
        source.view(-1)[salient_at] = salient_rows
        kinds = torch.where(source < 0, TokenKind.DYNAMIC_DROPPED.value, TokenKind.CONTEXTUAL_MERGED.value)
        kinds.view(-1)[places] = TokenKind.CONTEXTUAL_CENTER.value
        kinds.view(-1)[salient_at] = TokenKind.DYNAMIC_KEPT.value
        used = "received_attention" if self.head is None else "pooling_head"
        salient = len(salient_at) // frames
        details = FastVidDetails(frames, tokens, plan.segments, source, kinds, used, salient, plan.frames, plan.counts)
        weight = self.config.anchor_weight
        again = partial(_merge_again, salient_at=salient_at, rest=rest, merged=segments, order=order, weight=weight)
        return CompressedTokens(kept, index[order], details, merge_again=again)


def _merge_again(
    values: Tensor, salient_at: Tensor, rest: Tensor, merged: JoinedSegments, order: Tensor, weight: float
) -> Tensor:
    """Other values of the tokens, (frames, tokens, channels), kept and mixed as the tokens were."""
    anchors = merge_anchors_again(values, rest, merged, weight).to(values.dtype)
    return torch.cat([values.flatten(0, 1).index_select(0, salient_at), anchors])[order]
