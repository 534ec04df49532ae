"""Cosine similarity that is exactly 1 for equal vectors, of any tokens and of those at the same place of two frames."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def exact_cosine(first: Float[Tensor, "*shape dim"], second: Float[Tensor, "*shape dim"]) -> Float[Tensor, "*shape"]:
    """Cosine similarity that is exactly 1 for equal vectors, so that still footage ties and rounding decides nothing.

    From the distance of the unit vectors, 1 - |u - v|^2 / 2; a product of the vectors over their lengths scatters
    around 1 by the order of summation, which differs between devices.

    Args:
        first: vectors in any floating dtype.
        second: vectors of the same shape.

    Returns:
        In the dtype of the input, 0 where one of the two is a zero vector; not finite where a value is not.
    """
    lengths = [torch.linalg.vector_norm(vectors, dim=-1, keepdim=True) for vectors in (first, second)]
    units = [vectors / length for vectors, length in zip((first, second), lengths, strict=True)]
    similarity = 1 - (units[0] - units[1]).square().sum(-1) / 2
    return similarity.masked_fill(((lengths[0] == 0) | (lengths[1] == 0)).squeeze(-1), 0)


def similarity_to(
    features: Float[Tensor, "frames tokens dim"], frames: Int[Tensor, " pairs"], compared: Int[Tensor, " pairs"]
) -> Float[Tensor, "pairs tokens"]:
    """Cosine similarity of the tokens of some frames to those at the same position of other frames.

    Args:
        features: token features in any floating dtype.
        frames: the frames.
        compared: the frame that each of them is compared with.

    Returns:
        float32, 1 where the two are equal, 0 where one is a zero vector; not finite where a feature is not.
    """
    _, tokens, dim = features.shape
    # On a CPU the products of one step should stay in cache; an accelerator prefers few launches.
    step = max(1, (2**26 if features.is_cuda else 2**21) // (tokens * dim))
    found = [features.new_zeros(0, tokens, dtype=torch.float32)]
    for one, other in zip(frames.split(step), compared.split(step), strict=True):
        first, second = features.index_select(0, one).float(), features.index_select(0, other).float()
        found.append(exact_cosine(first, second))
    return torch.cat(found)
