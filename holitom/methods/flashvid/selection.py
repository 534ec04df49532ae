"""Attention and diversity pick the tokens of a frame that stay unchanged, for FlashVID (arXiv 2602.08024; ADTS)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from holitom.ops.clustering import gram_matrix
from holitom.ops.cpu_memory import work_buffer
from holitom.ops.exact_similarity import SMALLEST_LENGTH, frames_at_once


@torch.no_grad()
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
        means: mean token of every frame's segment, see :func:`~holitom.methods.flashvid.segmentation.mean_of_segments`.
        count: tokens to pick per frame, at most its tokens.

    Returns:
        Mask with ``count`` True entries per frame.
    """
    parts, step = [], frames_at_once(features)
    passes = (of_all.split(step) for of_all in (features, received_attention, means))
    for some, attention, mean in zip(*passes, strict=True):
        wide = work_buffer(some.shape, torch.float64, some.device).copy_(some)
        weight = attention.double() * (wide @ mean.double()[:, :, None])[..., 0]
        gram = gram_matrix(some)
        lengths = gram.diagonal(dim1=1, dim2=2).sqrt().clamp_min(SMALLEST_LENGTH)
        cosine = gram.div_(lengths[:, :, None]).div_(lengths[:, None, :])
        parts.append(_farthest(cosine.neg_().add_(1).mul_(weight[:, None, :]), count))
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
