"""What reads a whole video: similarity of tokens to those at the same place one frame later, averages over frames."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from holitom.ops.cpu_memory import CACHED_ELEMENTS, row_dots, work_buffer
from holitom.ops.kernels import kernel_for

SMALLEST_NORM = 1e-8


def similarity_and_norms(
    features: Float[Tensor, "frames tokens dim"],
) -> tuple[Float[Tensor, "frames-1 tokens"], Float[Tensor, "frames tokens"]]:
    """Cosine similarity of every token to the same position one frame later (HoliTom, Sec. 3.1), and each one's length.

    Works through one or a few frames at a time, so the float32 copies stay small whatever the length of the video.

    Args:
        features: token features in any floating dtype.

    Returns:
        float32 similarities in [-1, 1] (0 where one of the two is a zero vector) and float32 Euclidean norms.
    """
    _, tokens, dim = features.shape
    if kernel := kernel_for("similarity_and_norms", features):
        return kernel(features, SMALLEST_NORM)
    if features.device.type == "cpu":
        products, norms = products_in_cache(features)
    else:
        products, norms = products_by_block(features, max(1, 2**26 // (tokens * dim)))
    divisors = norms.clamp_min(SMALLEST_NORM)
    similarity = products / (divisors[:-1] * divisors[1:])
    return similarity.clamp_(-1, 1), norms


def products_by_block(features: Float[Tensor, "frames tokens dim"], step: int) -> tuple[Tensor, Tensor]:
    """Float32 inner products with the next frame and lengths, ``step`` frames at a time: few launches."""
    products, lengths = [], []
    for start in range(0, len(features), step):
        block = features[start : start + step + 1].float()
        lengths.append(torch.linalg.vector_norm(block[:step], dim=-1))
        products.append((block[:-1] * block[1:]).sum(-1))
    return torch.cat(products), torch.cat(lengths)


@torch.no_grad()
def products_in_cache(features: Float[Tensor, "frames tokens dim"]) -> tuple[Tensor, Tensor]:
    """The same on a CPU, a few frames at a time: every number is read and converted once, and no product is stored."""
    frames, tokens, dim = features.shape
    products, squares = (np.empty((count, tokens), dtype=np.float32) for count in (frames - 1, frames))
    step = min(frames, max(1, CACHED_ELEMENTS // (tokens * dim)))
    converts = features.dtype != torch.float32
    wide = work_buffer((2, step, tokens, dim), torch.float32, features.device) if converts else features[:0]
    before = np.empty(0)
    with np.errstate(all="ignore"):  # what is not finite is told apart by who reads the lengths
        for number, start in enumerate(range(0, frames, step)):
            stop = min(start + step, frames)
            now = features[start:stop]
            # Memory of the host that NumPy shares: nothing waits.
            block = np.from_dlpack(wide[number % 2, : stop - start].copy_(now) if converts else now.detach())
            row_dots(block, block, squares[start:stop])
            row_dots(block[:-1], block[1:], products[start : stop - 1])
            if start:
                row_dots(before, block[0], products[start - 1])
            before = block[-1]
    return torch.from_numpy(products), torch.from_numpy(squares).sqrt_()


def average_frames(
    features: Float[Tensor, "frames tokens dim"], segments: Sequence[tuple[int, int]], places: Int[Tensor, "segments n"]
) -> Float[Tensor, "segments n dim"]:
    """Average some tokens over the frames of segments; only they are read, what is not float32 is widened in the cache.

    Args:
        features: token features in any floating dtype.
        segments: first and last frame of each segment, inclusive.
        places: its tokens.

    Returns:
        float32.
    """
    frames, tokens, dim = features.shape
    pairs = [(some, first, last + 1) for some, (first, last) in zip(places, segments, strict=True)]
    if features.dtype == torch.float32 and features.device.type == "cpu":
        starts = torch.arange(0, frames * tokens, tokens)
        rows = torch.cat([(some[:, None] + starts[first:stop]).flatten() for some, first, stop in pairs])
        lengths = np.repeat([stop - first for _, first, stop in pairs], places.shape[1])
        bags = torch.from_numpy(np.cumsum(lengths) - lengths)
        return embedding_bag(rows, features.flatten(0, 1), bags, mode="mean").view(*places.shape, dim)
    means = torch.empty(*places.shape, dim, device=features.device)
    for mean, (some, first, stop) in zip(means, pairs, strict=True):
        step = max(1, CACHED_ELEMENTS // max(1, mean.numel()))
        for start in range(first, stop, step):
            block = features[start : min(start + step, stop)].index_select(1, some)
            wide = work_buffer(block.shape, mean.dtype, mean.device).copy_(block)
            total = wide[0] if step == 1 else wide.sum(0)
            mean.copy_(total) if start == first else mean.add_(total)
        mean.div_(stop - first)
    return means
