"""What comes out of an outer stage: the visual tokens of one video that reach the LLM, and how they came about."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal, Protocol

from jaxtyping import Float, Int
from torch import Tensor

Order = Literal["block", "raster"]


class TokenKind(IntEnum):
    """What became of an original token."""

    DYNAMIC_DROPPED = 0
    DYNAMIC_KEPT = 1
    STATIC_MERGED = 2  # merged into the centre of its cluster
    STATIC_CENTER = 3  # a centre, in the first frame of its segment
    STATIC_DROPPED = 4  # its segment keeps no static token
    CONTEXTUAL_MERGED = 5
    CONTEXTUAL_CENTER = 6


class TokenDetails(Protocol):
    """How the tokens of one video came about: enough for a record or a picture.

    Attributes:
        frames: frames of the video.
        tokens_per_frame: tokens of each frame before compression.
        segments: first and last frame of every segment, inclusive; one of all frames where a method has no segments.
    """

    frames: int
    tokens_per_frame: int
    segments: list[tuple[int, int]]

    def source_map(self) -> Int[Tensor, "frames tokens"]:
        """Output row that each original token was kept as or merged into; -1 for dropped tokens."""

    def token_kinds(self) -> Int[Tensor, "frames tokens"]:
        """What became of each original token, as values of :class:`TokenKind`."""


@dataclass(frozen=True)
class Observed:
    """What a picture shows of a video beside its tokens; see :func:`holitom.watching.watched`.

    Attributes:
        received_attention: attention each token receives in the vision tower's last layer, pooled like the features.
        similarity: cosine similarity of each token to the same position one frame later.
    """

    received_attention: Float[Tensor, "frames tokens"]
    similarity: Float[Tensor, "frames-1 tokens"]


@dataclass(frozen=True)
class CompressedTokens:
    """Visual tokens that reach the LLM, in reading order.

    Attributes:
        features: the tokens, in the dtype of the input.
        index: int64, frame * tokens_per_frame + position of each token; a token merged over a segment counts as
            the first frame's token at the position of its cluster's centre.
        details: how they came about, a :class:`TokenDetails`; methods add what is their own.
        every_row: grid newlines follow every row of the video, also one that holds no token any more.
        observed: for pictures; None unless somebody asked for it.
        center_weight: weight of what stands at a token's own place against the mean of the others whose source it is;
            None where every token is the plain mean of them all, as with methods that only select.
        merge_again: the same selection and merge, decisions and weights included, of other values of the original
            tokens, (frames, tokens, channels) to (kept, channels); None where ``center_weight`` says all of it.
    """

    features: Float[Tensor, "kept dim"]
    index: Int[Tensor, " kept"]
    details: Any
    every_row: bool = False
    observed: Observed | None = None
    center_weight: float | None = None
    merge_again: Callable[[Tensor], Tensor] | None = None
