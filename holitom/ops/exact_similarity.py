"""Cosine similarity that hardly hangs on the order of summation: exactly 1 for equal vectors, or a float64 table."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from holitom.ops.cpu_memory import CHANNELS, work_buffer

SMALLEST_LENGTH = 1e-300  # of a float64 vector that is divided by its length
# Largest table or float64 copy of features worked on at one time, in elements; a CPU's stays in its caches.
PASS_ELEMENTS, GPU_PASS_ELEMENTS = 2**20, 2**25


def frames_at_once(features: Float[Tensor, "frames tokens dim"]) -> int:
    """Frames whose features, and a table of all pairs of a frame's tokens, fit one pass in float64."""
    _, tokens, dim = features.shape
    return max(1, (GPU_PASS_ELEMENTS if features.is_cuda else PASS_ELEMENTS) // (tokens * max(tokens, dim)))


@torch.no_grad()
def cosine_table(
    first: Float[Tensor, "frames tokens dim"], second: Float[Tensor, "frames others dim"]
) -> Float[Tensor, "frames tokens others"]:
    """Cosine similarity of every token of some frames to every one of as many other frames, in float64.

    Of equal vectors it is 1 to within float64's rounding, of a zero vector 0; not finite where a value is not.
    """
    frames, dim = len(first), first.shape[-1]
    table = torch.empty(frames, first.shape[1], second.shape[1], dtype=torch.float64, device=first.device)
    squares = [table.new_zeros(vectors.shape[:2]) for vectors in (first, second)]
    channels = dim if first.is_cuda else CHANNELS
    for start in range(0, dim, channels):
        parts = [vectors[..., start : start + channels] for vectors in (first, second)]
        sizes = [part.numel() for part in parts]
        memory = work_buffer((sum(sizes),), table.dtype, table.device).split(sizes)
        wide = [kept.view(part.shape).copy_(part) for kept, part in zip(memory, parts, strict=True)]
        torch.baddbmm(table, wide[0], wide[1].mT, beta=min(start, 1), out=table)
        for square, vectors in zip(squares, wide, strict=True):
            square += torch.linalg.vector_norm(vectors, dim=-1).square_()
    lengths = [square.sqrt_().clamp_min_(SMALLEST_LENGTH) for square in squares]
    return table.div_(lengths[0][:, :, None]).div_(lengths[1][:, None, :])


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
