"""The most similar of some rows of a matrix for every other one, exactly, at the price of a low-precision product.

On a processor with bfloat16 units the product of rounded rows costs half of the float32 one. It decides a row alone
where its best entry leads by more than all rounding can add up to; elsewhere the few entries that could still be the
best are computed again in float32, so that the answer is that of the float32 product.
"""

import warnings
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import BFloat16, Float, Int
from torch import Tensor
from torch.linalg import vector_norm

from holitom.ops.cpu_memory import row_dots, work_buffer

SMALLEST_NORM = 1e-12
# Below this many rows on either side, or channels, rounding and comparing cost more than the product saves.
SHORTLIST_FROM, SHORTLIST_NARROW_FROM = 256, 128
SHORTLIST_CHANNELS = 256
# More candidates than this for each row (all rows together): one product of everything is cheaper.
MOST_CANDIDATES = 24
CHUNK_ELEMENTS = 2**18  # float32 rows that stay in the second-level cache
SAMPLED_ROWS = 32  # their mean stands for what all rows share
UNIT = 2.0**-8  # relative rounding error of bfloat16
# Share of the vectors' lengths that float32 sums of thousands of products may err by; their largest error seen is 1e-6.
SUMMING = 2.0**-16


@torch.no_grad()
def most_similar(
    vectors: Float[Tensor, "seq dim"],
    rows: Int[Tensor, " rows"],
    others: Int[Tensor, " others"],
    shortlist: bool | None = None,
) -> Int[Tensor, " rows"]:
    """Index in ``others`` of the vector with the largest cosine similarity to each of ``rows``, the first of equals.

    Args:
        vectors: of any floating dtype; similarities are those of float32 numbers.
        rows: which of them look for another one, ascending.
        others: which of them may be found, ascending, at least one.
        shortlist: whether a low-precision product chooses what is computed in float32; None: where it pays.

    Returns:
        int64 indices.
    """
    if shortlist_pays(vectors, min(len(rows), len(others))) if shortlist is None else shortlist:
        found = by_shortlist(vectors, rows, others)
        if found is not None:
            return found
    return by_product(vectors.index_select(0, rows).float(), vectors.index_select(0, others).float())


def by_product(rows: Float[Tensor, "rows dim"], others: Float[Tensor, "others dim"]) -> Int[Tensor, " rows"]:
    """:func:`most_similar` of float32 vectors by one product of all."""
    # The length of a row changes nothing in which of the others is nearest.
    return (rows @ others.T).div_(vector_norm(others, dim=-1).clamp_min_(SMALLEST_NORM)).argmax(dim=-1)


def shortlist_pays(vectors: Tensor, count: int) -> bool:
    """Whether a low-precision product is faster, with ``count`` rows or others, whichever are fewer."""
    smallest = SHORTLIST_NARROW_FROM if vectors.dtype == torch.bfloat16 else SHORTLIST_FROM
    return count >= smallest and vectors.shape[1] >= SHORTLIST_CHANNELS and has_units(vectors.device)


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


def by_shortlist(
    vectors: Float[Tensor, "seq dim"], rows: Int[Tensor, " rows"], others: Int[Tensor, " others"]
) -> Int[Tensor, " rows"] | None:
    """:func:`most_similar` by a low-precision product; None where that leaves too much or values are not finite."""
    upper, errors, lengths = rough_similarity(vectors, rows, others)
    possible = upper >= (upper - errors).amax(dim=1, keepdim=True)
    counts = possible.sum(dim=1)
    if int(counts.sum()) > MOST_CANDIDATES * len(rows) or not bool(counts.all()):
        return None
    best = upper.argmax(dim=1)  # a row's only candidate has its largest bound
    unsure = (counts > 1).nonzero().flatten()
    possible, counts = possible.index_select(0, unsure), counts.index_select(0, unsure)
    at = possible.nonzero()[:, 1]
    dots = listed_products(vectors, rows.index_select(0, unsure), counts, others.index_select(0, at))
    scores = torch.full(possible.shape, -torch.inf)
    scores[possible] = dots / lengths.index_select(0, at)
    return best.index_copy_(0, unsure, scores.argmax(dim=1))


def listed_products(
    vectors: Float[Tensor, "seq dim"],
    rows: Int[Tensor, " rows"],
    counts: Int[Tensor, " rows"],
    partners: Int[Tensor, " pairs"],
) -> Float[Tensor, " pairs"]:
    """Float32 inner products of each of ``rows``, ascending, with so many of the ``partners``, row after row."""
    quiet_sparse()
    if vectors.dtype != torch.float32:
        used, places = torch.cat([rows, partners]).unique(return_inverse=True)
        vectors, (rows, partners) = vectors.index_select(0, used).float(), places.split([len(rows), len(partners)])
    # The pattern has a row for every vector, so that no float32 one is copied.
    ends = torch.zeros(len(vectors) + 1, dtype=torch.int64).index_copy_(0, rows + 1, counts).cumsum(0)
    pattern = torch.sparse_csr_tensor(ends, partners, vectors.new_zeros(len(partners)), (len(vectors), len(vectors)))
    return torch.sparse.sampled_addmm(pattern, vectors, vectors.T, beta=0).values()


def rough_similarity(
    vectors: Float[Tensor, "seq dim"],
    rows: Int[Tensor, " rows"],
    others: Int[Tensor, " others"],
) -> tuple[Float[Tensor, "rows others"], Float[Tensor, "rows others"], Float[Tensor, " others"]]:
    """Upper bounds of the cosine similarities times the row's length, how far below the truth may lie, and lengths.

    With x = m + x' and y = m + y' (m about the mean, a large part of hidden states), x.y = x'.y' + m.x + m.y - m.m.
    Only x'.y' is rounded, so that what all vectors share costs no digits; by Cauchy and Schwarz rounding x' to X and
    y' to Y moves it by at most |x' - X| |y'| + |X| |y' - Y|. The lengths are those of the others.
    """
    common = vectors[:: max(1, len(vectors) // SAMPLED_ROWS)].mean(dim=0, dtype=torch.float32)
    count, halves = len(rows), halved(vectors, torch.cat([rows, others]), common)
    shares, errors = halves.shares, halves.errors
    if vectors.dtype == torch.bfloat16:
        # Nothing is rounded: the shares are taken from the product itself, by two more columns.
        shares = shares.bfloat16()  # what is taken away is added again, and need not be the very share
        columns = halves.numbers[:, -2:]
        columns[:count, 0], columns[:count, 1] = shares[:count], 1
        columns[count:, 0], columns[count:, 1] = -1, -shares[count:]
    upper = (halves.numbers[:count] @ halves.numbers[count:].T).float()
    length = vector_norm(common)
    summed = halves.lengths + length
    spread = (halves.lengths**2 - 2 * halves.shares + SUMMING * summed**2).clamp_min_(0).sqrt_()
    left = torch.stack([SUMMING * summed, errors, spread + errors], dim=1)[:count]
    right = torch.stack([summed, spread, errors])[:, count:]
    wrong = torch.addmm(upper.abs(), left, right, beta=UNIT)
    lengths = halves.lengths[count:].clamp_min(SMALLEST_NORM)
    upper.add_(shares[:count, None]).add_(shares[count:]).add_(wrong).div_(lengths)
    # Twice the error lies between an upper bound and its lower bound.
    return upper, wrong.mul_(2 / lengths), lengths


class Halves(NamedTuple):
    """Vectors for a product in bfloat16.

    Attributes:
        numbers: ``vectors - common`` rounded; of vectors in bfloat16 they as they are, and room for two more columns.
        shares: parts of a product that are due to what is common, to be added for either vector.
        lengths: lengths of the vectors.
        errors: lengths of what rounding took.
    """

    numbers: BFloat16[Tensor, "listed width"]
    shares: Float[Tensor, " listed"]
    lengths: Float[Tensor, " listed"]
    errors: Float[Tensor, " listed"]


def halved(vectors: Float[Tensor, "seq dim"], order: Int[Tensor, " listed"], common: Float[Tensor, " dim"]) -> Halves:
    """The listed vectors in bfloat16, a few at a time, each read once."""
    dim, exact = len(common), vectors.dtype == torch.bfloat16
    numbers = work_buffer((len(order), dim + 2 * exact), torch.bfloat16, vectors.device)
    if exact:
        torch.index_select(vectors, 0, order, out=numbers[:, :dim])
    shares, squares, errors = torch.zeros(3, len(order))
    step = max(1, CHUNK_ELEMENTS // dim)
    work = torch.empty(step, dim)
    columns = order, numbers[:, :dim], shares, squares, errors
    for listed, rough, share, square, error in zip(*(column.split(step) for column in columns), strict=True):
        block = work[: len(listed)]
        if exact:
            block.copy_(rough)
        elif vectors.dtype == torch.float32:
            torch.index_select(vectors, 0, listed, out=block)
        else:
            block.copy_(vectors.index_select(0, listed))
        torch.mv(block, common, out=share)
        row_dots(block.numpy(), block.numpy(), square.numpy())
        if not exact:
            rough.copy_(block.sub_(common))
            block.sub_(rough)
            row_dots(block.numpy(), block.numpy(), error.numpy())
    return Halves(numbers, shares.sub_(common @ common / 2), squares.sqrt_(), errors.sqrt_())
