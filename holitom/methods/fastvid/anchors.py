"""Segments, salient tokens and merging into anchors, for FastVID (arXiv 2503.11187, Sec. 3).

The tokens of a frame that are not salient are represented by anchors, its density peaks, in every few frames of a
segment; every such token of the segment joins one anchor of each of these frames.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from holitom.ops.clustering import density_peak_scores, squared_distances
from holitom.ops.group_clustering import batches
from holitom.ops.token_ops import highest, packed_positions, upload

# Largest table of anchors against tokens, in elements (float32).
PASS_ELEMENTS = 2**26


def cut_segments(similarity: list[float], least: int, threshold: float) -> list[tuple[int, int]]:
    """Cut a video where neighbouring frames differ (FastVID, dynamic temporal segmentation).

    Args:
        similarity: cosine similarity of each frame to the next one.
        least: fewest segments; the ``least`` - 1 lowest similarities are cuts, ties to the earlier one.
        threshold: every lower similarity is a cut as well.

    Returns:
        First and last frame of every segment, inclusive.
    """
    lowest = sorted(range(len(similarity)), key=lambda pair: (similarity[pair], pair))[: least - 1]
    cuts = sorted({*lowest, *(pair for pair, value in enumerate(similarity) if value < threshold)})
    return list(zip([0, *(cut + 1 for cut in cuts)], [*cuts, len(similarity)], strict=True))


def frame_budget(tokens: int, retain_ratio: float, context_ratio: float) -> tuple[int, int]:
    """Salient tokens and context tokens that a frame may keep, both truncated in favour of the salient ones."""
    kept = int(tokens * retain_ratio)
    context = int(kept * context_ratio)
    return kept - context, context


@dataclass(frozen=True)
class AnchorPlan:
    """Where the anchors of a video are.

    Attributes:
        segments: first and last frame of every segment, inclusive.
        frames: anchor frames of every segment, ascending.
        counts: anchors in each anchor frame of every segment.
    """

    segments: list[tuple[int, int]]
    frames: list[list[int]]
    counts: list[int]

    @property
    def total(self) -> int:
        """Anchors of the video."""
        return sum(len(frames) * count for frames, count in zip(self.frames, self.counts, strict=True))

    def next_anchor(self) -> list[int]:
        """For every frame the first anchor frame at or after it, counted within its segment."""
        return [
            sum(anchor < frame for anchor in frames)
            for (first, last), frames in zip(self.segments, self.frames, strict=True)
            for frame in range(first, last + 1)
        ]


def plan_anchors(segments: list[tuple[int, int]], context: int, stride: int, most: int) -> AnchorPlan:
    """Place the context tokens of every segment in its last frame and every ``stride``-th frame before it.

    Args:
        segments: first and last frame of every segment, inclusive.
        context: context tokens per frame of the video.
        stride: distance of anchor frames.
        most: tokens of a frame that can be anchors; a larger share of the budget is not used.
    """
    frames = [list(range(first + (last - first) % stride, last + 1, stride)) for first, last in segments]
    lengths = [last - first + 1 for first, last in segments]
    counts = [min(most, context * length // len(at)) for length, at in zip(lengths, frames, strict=True)]
    return AnchorPlan(segments, frames, counts)


def choose_anchors(
    features: Float[Tensor, "frames tokens dim"], rest: Int[Tensor, "frames rest"], plan: AnchorPlan, neighbors: int
) -> Int[Tensor, "anchor_frames most"]:
    """Density peaks among the remaining tokens of every anchor frame.

    Args:
        features: token features in any floating dtype.
        rest: positions of the remaining tokens of every frame, ascending.
        plan: where anchors are wanted.
        neighbors: k of the density; limited to the remaining tokens.

    Returns:
        Entries of ``rest`` that are anchors, ascending; 0 in slots beyond the anchors of a frame.
    """
    most, dim = max(plan.counts), features.shape[-1]
    frames = [frame for at in plan.frames for frame in at]
    counts = [count for at, count in zip(plan.frames, plan.counts, strict=True) for _ in at]
    chosen, wanted = upload(features.device, frames, counts)
    found = []
    for first, last in batches([rest.shape[1]] * len(frames), dim):
        positions = rest.index_select(0, chosen[first:last])
        points = features.index_select(0, chosen[first:last]).gather(1, positions[..., None].expand(-1, -1, dim))
        squares, valid = squared_distances(points), torch.ones_like(positions, dtype=torch.bool)
        near = torch.full_like(wanted[first:last], neighbors)
        peaks = highest(density_peak_scores(squares, valid, near, neighbors), valid, wanted[first:last])
        found.append(packed_positions(peaks, most))
    return torch.cat(found)


JoinedSegments = list[tuple[int, int, Tensor, Tensor]]


def merge_anchors(
    features: Float[Tensor, "frames tokens dim"],
    rest: Int[Tensor, "frames rest"],
    plan: AnchorPlan,
    anchors: Int[Tensor, "anchor_frames most"],
    anchor_weight: float,
) -> tuple[Float[Tensor, "anchors dim"], Int[Tensor, " anchors"], Int[Tensor, "frames rest"], JoinedSegments]:
    """Mix every anchor with the mean of the tokens that are most similar to it.

    In each anchor frame for itself, all remaining tokens of the segment join the anchor of largest cosine similarity,
    the anchors of that frame themselves.

    Args:
        features: token features in any floating dtype.
        rest: positions of the remaining tokens of every frame.
        plan: where the anchors are.
        anchors: entries of ``rest`` that are anchors, from :func:`choose_anchors`.
        anchor_weight: least weight of the anchor against the mean of its members, itself included; with m members it is
            1 / (m + 1) if that is more.

    Returns:
        The merged vectors in float32, segment by segment and frame by frame; frame * tokens_per_frame + position of
        each; for every remaining token the anchor it joined in the first anchor frame at or after its own, -1 where its
        segment has none; and of every segment with anchors the first and last frame, the anchors among its remaining
        tokens, (anchor_frames, count), and the one that each token joined in every anchor frame.
    """
    tokens, dim = features.shape[1:]
    (following,) = upload(features.device, plan.next_anchor())
    membership = torch.full_like(rest, -1)
    segments: JoinedSegments = []
    parts, places, done, row = [features.new_empty(0, dim, dtype=torch.float32)], [following[:0]], 0, 0
    for (first, last), frames, count in zip(plan.segments, plan.frames, plan.counts, strict=True):
        here = anchors[row : row + len(frames), :count]
        row += len(frames)
        if count == 0:
            continue
        at, stride = frames[0], frames[1] - frames[0] if len(frames) > 1 else 1
        positions = rest[first : last + 1]
        points = features[first : last + 1].gather(1, positions[..., None].expand(-1, -1, dim)).float()
        local = slice(at - first, last - first + 1, stride)
        vectors, owner, own = _merge_segment(points, local, here, anchor_weight)
        segments.append((first, last, own, owner))
        parts.append(vectors.flatten(0, 1))
        global_frames = torch.arange(at, last + 1, stride, device=rest.device)
        places.append((global_frames[:, None] * tokens + positions[local].gather(1, here)).flatten())
        joined = following[first : last + 1]
        spread = owner.gather(0, joined[None, :, None].expand(1, -1, owner.shape[2]))[0]
        membership[first : last + 1] = done + joined[:, None] * count + spread
        done += len(frames) * count
    return torch.cat(parts), torch.cat(places), membership, segments


def merge_anchors_again(
    values: Float[Tensor, "frames tokens channels"],
    rest: Int[Tensor, "frames rest"],
    merged: JoinedSegments,
    anchor_weight: float,
) -> Float[Tensor, "anchors channels"]:
    """Other values of the tokens, mixed as :func:`merge_anchors` mixed the tokens; float32.

    Args:
        values: of the tokens.
        rest: positions of the remaining tokens of every frame.
        merged: the last that it returned.
        anchor_weight: what it was given.
    """
    parts = [values.new_empty(0, values.shape[-1], dtype=torch.float32)]
    for first, last, own, owner in merged:
        positions = rest[first : last + 1, :, None].expand(-1, -1, values.shape[-1])
        flat = values[first : last + 1].gather(1, positions).flatten(0, 1).float()
        parts += [
            _mix(flat, anchors[None], joined.view(1, -1), anchor_weight)[0]
            for anchors, joined in zip(own, owner, strict=True)
        ]
    return torch.cat(parts)


def _merge_segment(
    points: Float[Tensor, "frames rest dim"], local: slice, anchors: Int[Tensor, "anchor_frames count"], weight: float
) -> tuple[
    Float[Tensor, "anchor_frames count dim"],
    Int[Tensor, "anchor_frames frames rest"],
    Int[Tensor, "anchor_frames count"],
]:
    """Merged anchors of one segment, the anchor that every token joined in each anchor frame, and where anchors are."""
    frames, rest, _ = points.shape
    own = torch.arange(frames, device=points.device)[local, None] * rest + anchors
    flat = points.flatten(0, 1)
    units = torch.nn.functional.normalize(flat, dim=-1)
    at_once = max(1, PASS_ELEMENTS // (anchors.shape[1] * len(flat)))
    parts = [_join(flat, units, some, weight) for some in own.split(at_once)]
    vectors, owners = (torch.cat(part) for part in zip(*parts, strict=True))
    return vectors, owners.view(-1, frames, rest), own


def _join(
    flat: Float[Tensor, "n dim"], units: Float[Tensor, "n dim"], anchors: Int[Tensor, "sets count"], weight: float
) -> tuple[Float[Tensor, "sets count dim"], Int[Tensor, "sets n"]]:
    """Let all tokens join the most similar anchor of every set; merge, and return the choices."""
    owner = (units[anchors] @ units.T).argmax(1)
    # An anchor belongs to itself even where another one has the same direction.
    slots = torch.arange(anchors.shape[1], device=flat.device)
    owner.scatter_(1, anchors, slots.expand_as(anchors))
    return _mix(flat, anchors, owner, weight), owner


def _mix(
    flat: Float[Tensor, "n dim"], anchors: Int[Tensor, "sets count"], owner: Int[Tensor, "sets n"], weight: float
) -> Float[Tensor, "sets count dim"]:
    """Every anchor with the mean of its members."""
    slots = torch.arange(anchors.shape[1], device=flat.device)
    members = owner[:, None, :] == slots[:, None]
    sizes = members.sum(-1, keepdim=True)
    # Products with a 0/1 matrix add in a fixed order, unlike scattered additions.
    means = (members.float() @ flat) / sizes
    share = (1 / (sizes + 1)).clamp_min(weight)
    return share * flat[anchors] + (1 - share) * means
