"""Selections of whole tokens, and what every method that only selects needs: positions, checks and the record."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from holitom.checks import require_finite
from holitom.ops.token_ops import to_host
from holitom.tokens import CompressedTokens, PlainDetails, TokenKind


def kept_per_frame(tokens: int, retain_ratio: float) -> int:
    """Tokens that each frame keeps, rounded up.

    >>> [kept_per_frame(196, ratio) for ratio in (0.25, 0.2, 0.15, 0.1)]
    [49, 40, 30, 20]
    """
    return math.ceil(tokens * retain_ratio)


def check_finite(**values: Float[Tensor, "frames tokens"]) -> None:
    """One transfer to the host that refuses values which no ranking can use.

    Args:
        **values: one number per token that is finite if and only if everything of the token is, under the name that
            the message uses; all of one shape.

    Raises:
        InputError: naming what is not finite, and in which frames.
    """
    finite = torch.stack([entry.isfinite().all(1) for entry in values.values()]).long()
    for name, sound in zip(values, to_host(finite).tolist(), strict=True):
        require_finite(name, sound)


def token_sums(values: Float[Tensor, "frames tokens channels"]) -> Float[Tensor, "frames tokens"]:
    """float32 sum of each token's channels: not finite where one of them is not (see :func:`check_finite`)."""
    return values.sum(-1, dtype=torch.float32)


def keep_selected(
    features: Float[Tensor, "frames tokens dim"],
    index: Int[Tensor, " kept"],
    segments: list[tuple[int, int]] | None = None,
) -> CompressedTokens:
    """The tokens at ``index`` as they are; all others are dropped.

    Args:
        features: token features in any floating dtype.
        index: frame * tokens + position of the tokens to keep, in reading order.
        segments: first and last frame of the groups of frames that the method works in; one of all frames if None.

    Returns:
        The kept tokens with their record.
    """
    frames, tokens, _ = features.shape
    source = index.new_full((frames * tokens,), -1)
    source.index_copy_(0, index, torch.arange(len(index), device=index.device))
    source = source.view(frames, tokens)
    kinds = torch.where(source >= 0, TokenKind.DYNAMIC_KEPT.value, TokenKind.DYNAMIC_DROPPED.value)
    details = PlainDetails(frames, tokens, segments or [(0, frames - 1)], source, kinds)
    return CompressedTokens(features.flatten(0, 1).index_select(0, index), index, details)
