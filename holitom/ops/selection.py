"""Selections of whole tokens, and what methods that know at once what became of each need: checks and the record."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from holitom.checks import require_finite
from holitom.ops.token_ops import to_host
from holitom.tokens import CompressedTokens, TokenKind


@dataclass(frozen=True)
class PlainDetails:
    """Details of a method that knows its source map and kinds at once.

    Attributes:
        frames: see :class:`~holitom.tokens.TokenDetails`.
        tokens_per_frame: see :class:`~holitom.tokens.TokenDetails`.
        segments: see :class:`~holitom.tokens.TokenDetails`.
        source: what :meth:`source_map` gives.
        kinds: what :meth:`token_kinds` gives.
    """

    frames: int
    tokens_per_frame: int
    segments: list[tuple[int, int]]
    source: Int[Tensor, "frames tokens"]
    kinds: Int[Tensor, "frames tokens"]

    def source_map(self) -> Tensor:
        """See :class:`~holitom.tokens.TokenDetails`."""
        return self.source

    def token_kinds(self) -> Tensor:
        """See :class:`~holitom.tokens.TokenDetails`."""
        return self.kinds


def kept_per_frame(tokens: int, retain_ratio: float) -> int:
    """Tokens that each frame keeps, rounded up.

    >>> [kept_per_frame(196, ratio) for ratio in (0.25, 0.2, 0.15, 0.1)]
    [49, 40, 30, 20]
    """
    return math.ceil(tokens * retain_ratio)


def sound_frames(values: Float[Tensor, "frames tokens ..."]) -> Bool[Tensor, " frames"]:
    """Whether the length of every token of a frame is finite in float32: no value is NaN, infinite or huge."""
    wide = values[..., None] if values.dim() == 2 else values
    if wide.dtype == torch.float64:  # which vector_norm does not narrow
        wide = wide.float()
    return torch.linalg.vector_norm(wide, dim=-1, dtype=torch.float32).isfinite().all(1)


def check_finite(**values: Float[Tensor, "frames tokens ..."]) -> None:
    """One transfer to the host that refuses values which no ranking can use and no LLM can read.

    Every method makes this check, by itself or along with the one transfer it makes anyway.

    Args:
        **values: one number or vector per token, under the name that the message uses; all of one number of frames.

    Raises:
        InputError: naming what is not finite or too large, and in which frames.
    """
    finite = torch.stack([sound_frames(entry) for entry in values.values()]).long()
    for (name, entry), sound in zip(values.items(), to_host(finite).tolist(), strict=True):
        require_finite(name, sound, entry)


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


def all_tokens(features: Tensor) -> CompressedTokens:
    """All tokens (frames, tokens, dim) of a video, for methods without an outer stage.

    Raises:
        InputError: if they are not finite, as every outer stage does.
    """
    check_finite(features=features)
    frames, tokens, _ = features.shape
    index = torch.arange(frames * tokens, device=features.device)
    source = index.view(frames, tokens)
    details = PlainDetails(frames, tokens, [(0, frames - 1)], source, torch.full_like(source, TokenKind.DYNAMIC_KEPT))
    return CompressedTokens(features.flatten(0, 1), index, details)
