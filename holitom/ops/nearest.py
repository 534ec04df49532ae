"""The most similar row of another matrix for every row of one, exactly, at the price of a low-precision product.

On a processor with bfloat16 units the product of rounded rows costs half of the float32 one. It decides a row alone
where its best entry leads by more than all rounding can add up to; elsewhere the few entries that could still be the
best are computed again in float32, so that the answer is that of the float32 product.
"""

import warnings
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.linalg import vector_norm

SMALLEST_NORM = 1e-12
# Below this many rows on either side rounding and comparing cost more than the product saves.
SHORTLIST_FROM = 512
SHORTLIST_NARROW_FROM = 256
# More candidates than this for each row (all rows together): one product of everything is cheaper.
MOST_CANDIDATES = 24
CHUNK_ELEMENTS = 2**17  # float32 rows that stay in the second-level cache
UNIT = 2.0**-8  # relative rounding error of bfloat16
# Share of the rows' lengths that float32 sums of thousands of products may err by; their largest error seen is 1e-6.
SUMMING = 2.0**-15
# Rows whose mean has less than this share of their squared length gain nothing from taking it away.
COMMON_SHARE = 0.1


@torch.no_grad()
def most_similar(
    rows: Float[Tensor, "rows dim"],
    others: Float[Tensor, "others dim"],
    narrow: tuple[Tensor, Tensor] | None = None,
    shortlist: bool | None = None,
) -> Int[Tensor, " rows"]:
    """Index of the row of ``others`` with the largest cosine similarity to each of ``rows``, the first of equals.

    Args:
        rows: float32 vectors.
        others: at least one float32 vector.
        narrow: both in bfloat16 if they hold such numbers, whose products are exact in float32.
        shortlist: whether a low-precision product chooses what is computed in float32; None: where it pays.

    Returns:
        int64 indices.
    """
    if shortlist is None:
        smallest = SHORTLIST_NARROW_FROM if narrow is not None else SHORTLIST_FROM
        shortlist = min(len(rows), len(others)) >= smallest and has_units(rows.device)
    # The length of a row changes nothing in which of the others is nearest.
    lengths = vector_norm(others, dim=-1).clamp_min_(SMALLEST_NORM)
    if shortlist:
        cosines = candidates(rows, others, lengths, narrow)
        if cosines is not None:
            return cosines.argmax(dim=-1)
    return (rows @ others.T).div_(lengths).argmax(dim=-1)


@cache
def has_units(device: torch.device) -> bool:
    """Whether the processor multiplies bfloat16 matrices faster than float32 ones."""
    return device.type == "cpu" and torch.backends.mkldnn.is_available() and torch.cpu._is_avx512_bf16_supported()


@cache
def quiet_sparse() -> None:
    """Let torch say once, unheard, that its sparse tensors are in beta."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor(torch.tensor([0, 0]), torch.tensor([], dtype=torch.int64), torch.empty(0), (1, 1))


def candidates(
    rows: Float[Tensor, "rows dim"],
    others: Float[Tensor, "others dim"],
    lengths: Float[Tensor, " others"],
    narrow: tuple[Tensor, Tensor] | None,
) -> Float[Tensor, "rows others"] | None:
    """Float32 cosine similarity times the row's length of all that may be a row's best; minus infinity elsewhere.

    Args:
        rows: vectors.
        others: vectors.
        lengths: lengths of ``others``, none 0.
        narrow: see :func:`most_similar`.

    Returns:
        The similarities; None where values are not finite or the product leaves too many candidates.
    """
    upper, errors = rough_similarity(rows, others, lengths, narrow)
    # ``errors`` is the rounding of the stored product, which grows with each entry; the rest is in ``upper``.
    possible = upper >= (upper - errors).amax(dim=1, keepdim=True)
    counts = possible.sum(dim=1)
    total = int(counts.sum())
    if total > MOST_CANDIDATES * len(rows) or not bool(counts.all()):
        return None
    quiet_sparse()
    at = possible.nonzero()
    ends = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    wanted = torch.sparse_csr_tensor(ends, at[:, 1], upper.new_zeros(total), upper.shape)
    dots = torch.sparse.sampled_addmm(wanted, rows, others.T, beta=0).values()
    cosines = upper.fill_(-torch.inf)
    cosines[possible] = dots / lengths.index_select(0, at[:, 1])
    return cosines


def rough_similarity(
    rows: Float[Tensor, "rows dim"],
    others: Float[Tensor, "others dim"],
    lengths: Float[Tensor, " others"],
    narrow: tuple[Tensor, Tensor] | None,
) -> tuple[Float[Tensor, "rows others"], Float[Tensor, "rows others"]]:
    """Upper bounds of the cosine similarities times the row's length, and how far below them the truth may lie.

    With x = m + x' and y = m + y' (m the mean of the others, a large part of hidden states), x.y = x'.y' + m.y + m.x'.
    Only x'.y' is rounded, so that what all vectors share costs no digits; by Cauchy and Schwarz rounding x' to X and y'
    to Y moves it by at most |x' - X| |y'| + |X| |y' - Y|.
    """
    mean = others.mean(dim=0)
    slack = SUMMING * vector_norm(rows, dim=-1)
    if narrow is not None and bool(mean.square().sum() <= COMMON_SHARE * lengths.square().mean()):
        upper = (narrow[0] @ narrow[1].T).float()  # nothing is rounded but the stored product
        errors = upper.abs()
    else:
        left, left_lengths, left_errors = rounded(rows, mean)
        right, right_lengths, right_errors = rounded(others, mean)
        upper = (left @ right.T).float()
        errors = upper.abs()
        upper.add_((rows @ mean - mean @ mean)[:, None]).add_(others @ mean)
        slack += left_errors * (right_lengths / lengths).amax()
        slack += (left_lengths + left_errors) * (right_errors / lengths).amax()
    errors.mul_(UNIT / lengths)
    upper.div_(lengths).add_(errors)
    # Twice the rounding of the product lies between an upper bound and its lower bound, and twice the slack.
    return upper, errors.mul_(2).add_(2 * slack[:, None])


def rounded(
    vectors: Float[Tensor, "rows dim"], mean: Float[Tensor, " dim"]
) -> tuple[Tensor, Float[Tensor, " rows"], Float[Tensor, " rows"]]:
    """``vectors - mean`` in bfloat16, the lengths of the differences and of what rounding took from them."""
    out = torch.empty(vectors.shape, dtype=torch.bfloat16, device=vectors.device)
    step = max(1, CHUNK_ELEMENTS // vectors.shape[1])
    work = vectors.new_empty(step, vectors.shape[1])
    lengths, errors = vectors.new_empty(len(vectors)), vectors.new_empty(len(vectors))
    for first in range(0, len(vectors), step):
        part = slice(first, min(first + step, len(vectors)))
        block = torch.sub(vectors[part], mean, out=work[: part.stop - first])
        out[part] = block
        lengths[part] = vector_norm(block, dim=-1)
        errors[part] = vector_norm(block.sub_(out[part]), dim=-1)
    return out, lengths, errors
