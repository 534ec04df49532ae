"""What the segmentation of a video needs: similarity of neighbouring frames, run lengths, counts and the best cut."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from holitom.ops.kernels import kernel, readable
from holitom.ops.kernels.launching import on_device, packed_rows

LARGEST_DIM = 16384
LARGEST_VIDEO = 4096  # frames
_FRAMES = 8
_TOKENS = 64


@triton.jit(do_not_specialize=["frames"])
def adjacent(
    features, similarity, norms, frames, tokens, dim, f_frame, f_token, smallest, FRAMES: tl.constexpr, D: tl.constexpr
):
    """Walk over ``FRAMES`` frames at one position: every vector is read once, the one of the frame before twice."""
    token, first = tl.program_id(0), tl.program_id(1) * FRAMES
    depth = tl.arange(0, D)
    features += token.to(tl.int64) * f_token
    before = tl.load(features + first.to(tl.int64) * f_frame + depth, mask=depth < dim, other=0.0).to(tl.float32)
    length = tl.sqrt(tl.sum(before * before, 0))
    tl.store(norms + first * tokens + token, length)
    for step in range(1, FRAMES + 1):
        frame = first + step
        inside = frame < frames
        at = features + frame.to(tl.int64) * f_frame + depth
        vector = tl.load(at, mask=depth < tl.where(inside, dim, 0), other=0.0).to(tl.float32)
        norm = tl.sqrt(tl.sum(vector * vector, 0))
        product = tl.sum(before * vector, 0)
        cosine = product / (tl.maximum(length, smallest) * tl.maximum(norm, smallest))
        # Comparisons leave what is not a number as it is.
        cosine = tl.where(cosine > 1.0, 1.0, cosine)
        cosine = tl.where(cosine < -1.0, -1.0, cosine)
        tl.store(similarity + (frame - 1) * tokens + token, cosine, mask=inside)
        if step < FRAMES:  # the next program stores the frame it begins with
            tl.store(norms + frame * tokens + token, norm, mask=inside)
        before, length = vector, norm


@kernel(lambda features: readable(features) and features.shape[-1] <= LARGEST_DIM)
def similarity_and_norms(features: Tensor, smallest: float) -> tuple[Tensor, Tensor]:
    """:func:`holitom.ops.similarity.similarity_and_norms` in one launch, reading the features about once.

    Args:
        features: (frames, tokens, dim), dim at most 16,384, in float32, float16 or bfloat16.
        smallest: least length that a product is divided by.

    Returns:
        (frames - 1, tokens) similarities and (frames, tokens) norms, float32.
    """
    frames, tokens, dim = features.shape
    features = packed_rows(features)
    similarity = features.new_empty(frames - 1, tokens, dtype=torch.float32)
    norms = features.new_empty(frames, tokens, dtype=torch.float32)
    with on_device(features):
        adjacent[(tokens, triton.cdiv(frames, _FRAMES))](
            features, similarity, norms, frames, tokens, dim, *features.stride()[:2], smallest,
            FRAMES=_FRAMES, D=triton.next_power_of_2(dim), num_warps=4 if dim <= 4096 else 8,
        )  # fmt: skip
    return similarity, norms


@triton.jit(do_not_specialize=["threshold"])
def run_lengths(similarity, runs, tokens, threshold, PAIRS: tl.constexpr, TOKENS: tl.constexpr):
    """Pairs above the threshold that end with one pair, for ``TOKENS`` positions: its number less the latest below."""
    pair = tl.program_id(0)
    token = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    inside = token < tokens
    latest = tl.full([TOKENS], -1, tl.int32)
    for first in range(0, pair + 1, PAIRS):
        earlier = first + tl.arange(0, PAIRS)
        mask = (earlier[:, None] <= pair) & inside[None, :]
        value = tl.load(similarity + earlier[:, None] * tokens + token[None, :], mask=mask, other=0.0)
        moved = mask & ~(value > threshold)
        latest = tl.maximum(latest, tl.max(tl.where(moved, earlier[:, None], -1), 0))
    tl.store(runs + pair * tokens + token, (pair - latest).to(tl.int64), mask=inside)


@kernel()
def static_run_lengths(similarity: Tensor, threshold: float) -> Tensor:
    """:func:`holitom.methods.holitom.temporal_segmentation.static_run_lengths` in one launch.

    Args:
        similarity: (pairs, tokens) float32, at least one pair.
        threshold: see there.

    Returns:
        (pairs, tokens) int64.
    """
    similarity = similarity.contiguous()
    pairs, tokens = similarity.shape
    runs = torch.empty(pairs, tokens, dtype=torch.int64, device=similarity.device)
    with on_device(similarity):
        run_lengths[(pairs, triton.cdiv(tokens, _TOKENS))](
            similarity, runs, tokens, threshold, PAIRS=32, TOKENS=_TOKENS
        )
    return runs


@triton.jit(do_not_specialize=["received", "longest"])
def count_windows(
    runs, norms, received, counts, table, tokens, longest, r_frame, BLOCK: tl.constexpr, LENGTHS: tl.constexpr
):
    """Two flags of one frame, and the counts of ``LENGTHS`` windows that end with it, stored by their first frame."""
    frame, part = tl.program_id(0), tl.program_id(1)
    length = part * LENGTHS + tl.arange(0, LENGTHS)
    count = tl.zeros([LENGTHS], tl.int32)
    broken = tl.zeros([2], tl.int32)
    for first in range(0, tokens, BLOCK):
        token = first + tl.arange(0, BLOCK)
        inside = token < tokens
        run = tl.load(runs + (frame - 1) * tokens + token, mask=token < tl.where(frame > 0, tokens, 0), other=0)
        count += tl.sum((inside[:, None] & (run[:, None] >= length[None, :])).to(tl.int32), 0)
        norm = tl.load(norms + frame * tokens + token, mask=inside, other=0.0).to(tl.float32)
        weight = tl.load(received + frame * r_frame + token, mask=inside, other=0.0).to(tl.float32)
        # Infinity less itself and what is not a number less itself are not 0.
        bad = tl.sum((~(norm - norm == 0)).to(tl.int32), 0)
        bad_weight = tl.sum((~(weight - weight == 0)).to(tl.int32), 0)
        broken += tl.where(tl.arange(0, 2) == 0, bad, bad_weight)
    row = table + frame * 4
    tl.store(row + tl.arange(0, 2), (broken == 0).to(tl.int32), mask=tl.arange(0, 2) < tl.where(part == 0, 2, 0))
    began = (frame - length).to(tl.int64)
    tl.store(counts + began * longest + length, count, mask=(length < longest) & (length <= frame))


@triton.jit(do_not_specialize=["frames", "longest"])
def best_cuts(counts, table, frames, longest, N: tl.constexpr):
    """What the best cut of a video that ends with a frame saves, for all frames at once, one first frame at a time."""
    frame = tl.arange(0, N)
    best, steps, static = (tl.full([N], -1, tl.int32), tl.zeros([N], tl.int32), tl.zeros([N], tl.int32))
    saved = 0  # by the best cut of what lies before ``first``
    count = tl.load(counts + frame, mask=frame < tl.minimum(frames, longest), other=0)
    for first in range(0, frames):
        length = frame - first
        counts += longest
        # The next row is under way while this one is worked on.
        inside = (length > 0) & (length <= longest) & (frame < frames)
        following = tl.load(counts + length - 1, mask=inside, other=0)
        total = saved + count * length
        # Of equal ones the latest, hence the one whose last window is shortest.
        better = (length >= 0) & (length < longest) & (total >= best)
        best = tl.where(better, total, best)
        steps, static = tl.where(better, length, steps), tl.where(better, count, static)
        saved = tl.sum(tl.where(length == 0, best, 0), 0)
        count = following
    tl.store(table + frame * 4 + 2, steps, mask=frame < frames)
    tl.store(table + frame * 4 + 3, static, mask=frame < frames)


@kernel(lambda runs, norms, received_attention: readable(received_attention) and len(norms) <= LARGEST_VIDEO)
def best_windows(runs: Tensor, norms: Tensor, received_attention: Tensor, longest: int) -> Tensor:
    """What :func:`holitom.methods.holitom.temporal_segmentation.optimal_segments` walks back, in two launches.

    The second is one program, which steps through the frames: 1,024 short steps are less than the table of counts takes
    to the host, not to speak of as many steps there.

    Args:
        runs: (frames - 1, tokens) int64 run lengths.
        norms: (frames, tokens) float32, at most ``LARGEST_VIDEO`` frames.
        received_attention: (frames, tokens) in any floating dtype that kernels read.
        longest: longest window in frames.

    Returns:
        (frames, 4) int32: 1 if all norms of the frame are finite, 1 if all its attention is, and of the best cut of the
        frames up to it the length - 1 of the last window and the tokens that stand still over it.
    """
    frames, tokens = norms.shape
    runs, norms, received_attention = runs.contiguous(), norms.contiguous(), packed_rows(received_attention)
    counts = torch.empty(frames, longest, dtype=torch.int32, device=norms.device)
    table = torch.empty(frames, 4, dtype=torch.int32, device=norms.device)
    width = max(128, triton.next_power_of_2(frames))
    with on_device(norms):
        count_windows[(frames, triton.cdiv(longest, 32))](
            runs, norms, received_attention, counts, table, tokens, longest, received_attention.stride(0),
            BLOCK=64, LENGTHS=32,
        )  # fmt: skip
        best_cuts[(1,)](counts, table, frames, longest, N=width, num_warps=min(8, max(1, width // 256)))
    return table
