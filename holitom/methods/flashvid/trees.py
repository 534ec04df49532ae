"""Links of tokens to the frame before and the trees they form, for FlashVID (arXiv 2602.08024; TSTM)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from holitom.methods.flashvid.segmentation import FrameSegments
from holitom.ops.exact_similarity import cosine_table, frames_at_once

# The lowest threshold of a link: no token without a link (-1) is ever merged.
LEAST_LINK = -1 + 1e-6
TIE = 1e-12  # similarities of equal tokens differ by less, after the order of summation


@dataclass(frozen=True)
class Links:
    """The most similar token of the frame before, for every token.

    Attributes:
        parent: its position; 0 where there is none.
        similarity: its cosine similarity, float32; -1 where there is none.
    """

    parent: Int[Tensor, "frames tokens"]
    similarity: Float[Tensor, "frames tokens"]


def link_tokens(
    features: Float[Tensor, "frames tokens dim"], picked: Bool[Tensor, "frames tokens"], segments: FrameSegments
) -> Links:
    """Link every free token to the most similar free token of the frame before, wherever in the frame that is.

    Tokens of a segment's first frame, picked tokens and tokens behind a frame without free ones have no link. Ties go
    to the lower position.

    Args:
        features: token features in any floating dtype; similarities are computed in float64.
        picked: tokens that are not free.
        segments: of the frames.
    """
    tokens, step = features.shape[1], frames_at_once(features)
    parents = [torch.zeros(1, tokens, dtype=torch.int64, device=features.device)]
    reached = [torch.full((1, tokens), -torch.inf, dtype=torch.float32, device=features.device)]
    passes = (of_all.split(step) for of_all in (features[1:], features[:-1], picked[:-1]))
    for some, before, taken in zip(*passes, strict=True):
        table = cosine_table(some, before).masked_fill_(taken[:, None, :], -torch.inf)
        best = table.amax(-1)
        reached.append(best.float())
        parents.append((table >= best[..., None] - TIE).byte().argmax(-1))
    similarity, parent = torch.cat(reached), torch.cat(parents)
    none = picked | segments.first[:, None] | similarity.isneginf()
    return Links(parent.masked_fill(none, 0), similarity.masked_fill(none, -1))


def merged_tokens(
    links: Links, picked: Bool[Tensor, "frames tokens"], segments: FrameSegments, threshold: float, budget: int
) -> Bool[Tensor, "frames tokens"]:
    """Which tokens are merged into their parents.

    Those whose link is above the threshold. Where a segment would keep fewer than ``budget`` tokens a frame, its
    threshold is raised to the link that is in place tokens * frames - budget * frames of the segment's links, the
    highest first, and only links above that one merge.

    Args:
        links: from :func:`link_tokens`.
        picked: tokens that are not free.
        segments: of the frames.
        threshold: link threshold (tau_m).
        budget: tokens a frame is entitled to, less than it has.
    """
    tokens, lengths = picked.shape[1], segments.lengths
    similarity = links.similarity
    merged = similarity > threshold
    same = segments.number[:, None] == segments.number
    kept = lengths * tokens - same.double().mul(merged.sum(1)).sum(1).long()
    # All links, segment after segment and in each the highest first: a segment's links begin at its first frame's.
    flat = similarity.flatten()
    order = flat.argsort(descending=True, stable=True)
    order = order[segments.number.repeat_interleave(tokens)[order].argsort(stable=True)]
    begins = torch.searchsorted(segments.number, segments.number) * tokens
    place = begins + lengths * (tokens - budget) - 1
    raised = flat[order[place.clamp(0, len(flat) - 1)]].clamp_min(LEAST_LINK)
    protected = kept < budget * lengths
    return torch.where(protected[:, None], similarity > raised[:, None], merged) & ~picked


def merge_trees(
    features: Float[Tensor, "frames tokens dim"],
    links: Links,
    merged: Bool[Tensor, "frames tokens"],
    tree_mean: bool = False,
) -> tuple[Float[Tensor, "frames tokens dim"], Int[Tensor, "frames tokens"]]:
    """Merge every tree of linked tokens into its root.

    The frames are walked from the last to the first, each handing its sums to the frame before. A root ends as the sum
    of its whole tree over 1 + the number of its *direct* children, as the release computes it: a chain of n tokens
    becomes half its sum.

    Args:
        features: token features in any floating dtype.
        links: from :func:`link_tokens`.
        merged: which tokens join their parents.
        tree_mean: divide by the number of tokens of the tree instead, the average that the paper describes.

    Returns:
        float32 values, of use at tokens that are not merged; and for every token frame * tokens + position of its root,
        itself if it is not merged.
    """
    frames, tokens, _ = features.shape
    sums = features.float().clone()
    size = torch.ones(frames, tokens, device=features.device)
    children = torch.ones_like(size)
    places = torch.arange(tokens, device=features.device)
    # Products with a 0/1 matrix add in a fixed order, unlike scattered additions.
    joins = ((links.parent[:, None, :] == places[:, None]) & merged[:, None, :]).float()
    for frame in range(frames - 1, 0, -1):
        join = joins[frame]
        sums[frame - 1] += join @ sums[frame]
        size[frame - 1] += join @ size[frame]
        children[frame - 1] += join.sum(1)
    own = torch.arange(frames * tokens, device=features.device).view(frames, tokens)
    root = own.clone()
    for frame in range(1, frames):
        root[frame] = torch.where(merged[frame], root[frame - 1].gather(0, links.parent[frame]), own[frame])
    return sums.div_((size if tree_mean else children)[..., None]), root
