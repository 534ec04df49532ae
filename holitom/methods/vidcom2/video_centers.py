"""Uniqueness of tokens and frames by their distance to the centres of frame and video: the rule of VidCom2."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from holitom.ops.token_ops import highest

_WIDTHS = tuple(2.0**power for power in range(-3, 2))  # squared widths of the kernels
_TEMPERATURE = 0.01


def quiet_channels(features: Float[Tensor, "frames tokens dim"]) -> Float[Tensor, "frames tokens half"]:
    """Unit vectors of the half of the channels that varies least over the tokens of a video, in float32.

    VidCom2: trunc(dim / 2) channels, at least one; ties go to the lower channel. Zero vectors stay zero.
    """
    dim = features.shape[-1]
    flat = features.flatten(0, 1).float()
    channels = flat.var(0, correction=0).argsort(stable=True)[: max(1, dim // 2)]
    return normalize(flat[:, channels], dim=-1).view(*features.shape[:2], -1)


def likeness(
    tokens: Float[Tensor, "frames tokens dim"], center: Float[Tensor, "#frames 1 dim"]
) -> Float[Tensor, "frames tokens"]:
    """Sum of five Gaussian kernels of the distance between each token and its centre, in (0, 5]."""
    distance = (tokens - center).square().sum(-1)
    return sum((torch.exp(distance / (-2 * width)) for width in _WIDTHS), torch.zeros_like(distance))


def frame_budgets(likeness_to_video: Float[Tensor, "frames tokens"], retain_ratio: float) -> Int[Tensor, " frames"]:
    """Tokens each frame keeps: more where its tokens are less like the video's centre (VidCom2).

    Args:
        likeness_to_video: likeness of each token to the video's centre.
        retain_ratio: share kept on average.

    Returns:
        int64 counts between 1 and the tokens of a frame, halves rounded to even.
    """
    tokens = likeness_to_video.shape[1]
    uniqueness = -likeness_to_video.double().mean(1)
    weight = ((uniqueness - uniqueness.max()) / _TEMPERATURE).softmax(0)
    ratio = (retain_ratio * (1 + weight - weight.mean())).clamp(max=1)
    return (tokens * ratio).round().clamp(min=1).long()


def unlike_centers(
    features: Float[Tensor, "frames tokens dim"], retain_ratio: float
) -> tuple[Bool[Tensor, "frames tokens"], Float[Tensor, "frames tokens"]]:
    """The tokens of each frame that are least like the centres of their frame and of the video (VidCom2).

    Args:
        features: token features in any floating dtype.
        retain_ratio: share kept on average over the frames, in (0, 1].

    Returns:
        The kept tokens, ties to the lower position, and each token's likeness to both centres.
    """
    tokens = quiet_channels(features)
    to_video = likeness(tokens, tokens.mean((0, 1), keepdim=True))
    scores = to_video + likeness(tokens, tokens.mean(1, keepdim=True))
    everything = torch.ones_like(scores, dtype=torch.bool)
    return highest(-scores, everything, frame_budgets(to_video, retain_ratio)), scores
