"""Attention and diversity pick the tokens of a frame that stay unchanged, for FlashVID (arXiv 2602.08024; ADTS)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

# Largest table of distances, and largest copy of features, worked on at one time, in elements (float64).
PASS_ELEMENTS = 2**25


def frames_at_once(tokens: int, dim: int) -> int:
    """Frames whose features and distances fit one pass."""
    return max(1, PASS_ELEMENTS // (tokens * max(tokens, dim)))


def pick_tokens(
    features: Float[Tensor, "frames tokens dim"],
    received_attention: Float[Tensor, "frames tokens"],
    means: Float[Tensor, "frames dim"],
    count: int,
) -> Bool[Tensor, "frames tokens"]:
    """Pick ``count`` tokens of every frame that are far from one another, attended to and like their segment.

    The distance of a candidate from another token is 1 - cosine, times the attention the candidate receives, times its
    inner product with the mean token of its segment, which may be negative. First the token whose distance to its
    nearest other one is largest (the second smallest of its distances, the one from itself included), then again and
    again the token that is farthest from all picked ones. Ties go to the lower position; no token is picked twice.

    Args:
        features: token features in any floating dtype; distances are float64.
        received_attention: attention each token receives.
        means: mean token of every frame's segment, see :func:`~holitom.methods.flashvid.segmentation.segment_means`.
        count: tokens to pick per frame, at most its tokens.

    Returns:
        Mask with ``count`` True entries per frame.
    """
    frames, tokens, dim = features.shape
    parts = []
    for begin in range(0, frames, frames_at_once(tokens, dim)):
        chosen = slice(begin, begin + frames_at_once(tokens, dim))
        wide = features[chosen].double()
        weight = received_attention[chosen].double() * (wide @ means[chosen].double()[:, :, None])[..., 0]
        units = normalize(wide, dim=-1, eps=1e-300)
        distances = (1 - units @ units.mT) * weight[:, None, :]
        parts.append(_farthest(distances, count))
    return torch.cat(parts)


def pick_order(distances: Float[Tensor, "frames tokens tokens"], count: int) -> Int[Tensor, "frames {count}"]:
    """Greedy choice of the farthest tokens, in the order of the picks.

    Args:
        distances: from the token of the row to the candidate of the column.
        count: tokens to pick per frame.
    """
    frames, tokens, _ = distances.shape
    order = torch.zeros(frames, count, dtype=torch.int64, device=distances.device)
    if count == 0:
        return order
    nearest = distances.topk(min(2, tokens), dim=1, largest=False).values[:, -1]
    picked = torch.zeros(frames, tokens, dtype=torch.bool, device=distances.device)
    rows = torch.arange(frames, device=distances.device)
    reach = torch.full_like(nearest, torch.inf)
    for step in range(count):
        pick = nearest.masked_fill(picked, -torch.inf).argmax(1)
        order[:, step] = pick
        picked[rows, pick] = True
        reach = torch.minimum(reach, distances[rows, pick])
        nearest = reach
    return order


def _farthest(distances: Float[Tensor, "frames tokens tokens"], count: int) -> Bool[Tensor, "frames tokens"]:
    """Mask of :func:`pick_order`."""
    mask = torch.zeros(distances.shape[:2], dtype=torch.bool, device=distances.device)
    return mask.scatter_(1, pick_order(distances, count), True)
