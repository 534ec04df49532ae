"""Dominant and contextual tokens of VisionZip, frame by frame: the most attended ones, and sums of the others."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from holitom.ops.token_ops import highest, packed_positions

_FRAMES_PER_STEP = 64  # bounds the float32 copies of a long video: 64 frames of 196 x 3584 take 0.2 GB


@dataclass(frozen=True)
class FrameTokens:
    """Kept tokens of every frame: the dominant ones in raster order, then the contextual ones in that of their targets.

    Attributes:
        features: the kept tokens in the dtype of the input.
        positions: int64 position of each in its frame; a contextual token counts as its target.
        owner: int64 slot (0 .. kept - 1) that each original token of a frame went into; -1 for dropped ones.
        dominant: tokens kept unchanged.
    """

    features: Float[Tensor, "frames kept dim"]
    positions: Int[Tensor, "frames kept"]
    owner: Int[Tensor, "frames tokens"]
    dominant: Bool[Tensor, "frames tokens"]


def split_budget(tokens: int, budget: int, dominant_share: float) -> tuple[int, int]:
    """Dominant and contextual tokens of a frame (VisionZip, Sec. 3.2: 54 to 10).

    A frame that has no more tokens than its budget keeps all of them as they are.

    >>> [split_budget(196, budget, 54 / 64) for budget in (50, 40, 30, 20, 400)]
    [(42, 8), (33, 7), (25, 5), (16, 4), (196, 0)]
    """
    if budget >= tokens:
        return tokens, 0
    dominant = int(budget * dominant_share)
    return dominant, budget - dominant


def dominant_and_contextual(
    features: Float[Tensor, "frames tokens dim"],
    received_attention: Float[Tensor, "frames tokens"],
    key_metric: Float[Tensor, "frames tokens channels"],
    dominant_count: int,
    contextual_count: int,
    mean: bool = False,
) -> FrameTokens:
    """Keep the most attended tokens of each frame and merge the rest into a few (VisionZip, Sec. 3.2).

    The targets lie at equal steps among the rest; every other token of the rest joins the target whose key is most
    similar, the lower one if two are.

    Args:
        features: token features in any floating dtype.
        received_attention: attention each token receives; ties go to the lower position.
        key_metric: keys by which tokens are compared, by cosine.
        dominant_count: tokens per frame that stay as they are.
        contextual_count: targets per frame; with 0 the rest is dropped. Both counts together are at most ``tokens``.
        mean: a contextual token is the mean of target and members, not the target plus the mean of its members.

    Returns:
        The kept tokens of every frame.
    """
    frames, tokens, _ = features.shape
    everything = torch.ones_like(received_attention, dtype=torch.bool)
    counts = torch.full((frames,), dominant_count, device=features.device)
    dominant = highest(received_attention, everything, counts)
    kept_at = packed_positions(dominant, dominant_count)
    rest_at = packed_positions(~dominant, tokens - dominant_count)
    owner = torch.full((frames, tokens), -1, device=features.device)
    owner.scatter_(1, kept_at, torch.arange(dominant_count, device=features.device).expand(frames, -1))
    kept = features.gather(1, _channels(kept_at, features))
    if contextual_count == 0:
        return FrameTokens(kept, kept_at, owner, dominant)
    step = max(1, rest_at.shape[1] // contextual_count)
    targets = torch.arange(contextual_count, device=features.device) * step
    target_at = rest_at[:, targets]
    cluster = nearest_target(key_metric.float().gather(1, _channels(rest_at, key_metric)), targets)
    owner.scatter_(1, rest_at, cluster + dominant_count)
    joined = one_hot(cluster, contextual_count).transpose(1, 2)
    joined.scatter_(2, targets.expand(frames, -1).unsqueeze(2), 0)  # members only
    contextual = torch.cat(
        [
            _merge(*part, mean)
            for part in zip(
                features.split(_FRAMES_PER_STEP),
                rest_at.split(_FRAMES_PER_STEP),
                target_at.split(_FRAMES_PER_STEP),
                joined.split(_FRAMES_PER_STEP),
                strict=True,
            )
        ]
    )
    return FrameTokens(torch.cat([kept, contextual], 1), torch.cat([kept_at, target_at], 1), owner, dominant)


def nearest_target(
    metric: Float[Tensor, "frames rest channels"], targets: Int[Tensor, " contextual"]
) -> Int[Tensor, "frames rest"]:
    """Number of the target with the largest cosine similarity for each token of the rest; a target is its own."""
    directions = normalize(metric, dim=-1)
    cluster = (directions @ directions[:, targets].transpose(1, 2)).argmax(-1)
    numbers = torch.arange(len(targets), device=metric.device)
    return cluster.index_copy(1, targets, numbers.expand(len(metric), -1))


def _merge(features: Tensor, rest_at: Tensor, target_at: Tensor, joined: Tensor, mean: bool) -> Tensor:
    """Contextual tokens of a few frames: products with 0/1 weights, so that every sum has one fixed order."""
    target = features.gather(1, _channels(target_at, features)).float()
    rest = features.gather(1, _channels(rest_at, features)).float()
    members, total = joined.sum(-1, keepdim=True), joined.float() @ rest
    merged = (target + total) / (1 + members) if mean else target + total / members.clamp_min(1)
    return merged.to(features.dtype)


def _channels(positions: Tensor, values: Tensor) -> Tensor:
    """Positions (frames, n) as an index for ``gather`` on (frames, tokens, channels)."""
    return positions.unsqueeze(-1).expand(-1, -1, values.shape[-1])
