"""Budgets of outer stages: none is exceeded, and with ``fill_budget`` every one is met to the token.

A stage's ``most_kept`` is a bound: rounding, or what a video shows, leaves most methods a few tokens below it. Engines
that lay out a prompt before its features exist need a number that holds. With ``fill_budget`` a stage that ends below
its bound takes its next best tokens until the bound is met, so that ``most_kept`` is the count. It is off by default,
and off in every row of the paper's tables.

Which tokens are next best, of those that no row of the result stands at:

1. tokens that are part of no kept token come before those that were merged into one;
2. among each of the two the one that the method likes best: by its own ``preference``, else by the attention it
   receives in the vision tower where the method reads that, else by its distance from what is kept (1 - cosine
   similarity to the nearest kept token);
3. of equals the lower index.

An added token has its own features and its own place. What was kept stays as it is and in its order; a token that was
merged into a kept one, and is now there itself, stays part of that one too, and the details say which it was.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from holitom.encoded_video import EncodedVideo
from holitom.ops.exact_similarity import exact_cosine
from holitom.ops.merging_again import mean_of_sources, merged_again
from holitom.ops.nearest import most_similar
from holitom.ops.selection import PlainDetails
from holitom.ops.token_ops import upload
from holitom.stages import OuterStage
from holitom.tokens import CompressedTokens, TokenKind

COMPARED = 2**24  # similarities computed at a time: 64 MiB


@dataclass(frozen=True)
class FilledDetails(PlainDetails):
    """Details of a video whose budget was filled; what else the method says of it (``merges``, ...) is here as well.

    Attributes:
        method: the details as the method left them, of its own tokens alone.
        budget: tokens that were to be kept.
        added: rows of the tokens that were added, ascending.
        absorbed: for each of them the row that it is part of besides, -1 where it was dropped.
    """

    method: Any
    budget: int
    added: Int[Tensor, " added"]
    absorbed: Int[Tensor, " added"]

    def __getattr__(self, name: str) -> Any:
        """Whatever only the method's own details have."""
        if name == "method" or name.startswith("__"):  # a copy in the making has none yet
            raise AttributeError(name)
        return getattr(self.method, name)


def fill_up(outer: OuterStage, video: EncodedVideo, kept: CompressedTokens, most: int) -> CompressedTokens:
    """What a stage kept of a video and its next best tokens, ``most`` in all.

    Where frames merged in the tower leave fewer, all of them are kept, with a warning.
    """
    return filled(video, kept, most, preference(outer, video, kept))


def preference(outer: OuterStage, video: EncodedVideo, kept: CompressedTokens) -> Float[Tensor, "frames tokens"]:
    """How much a stage likes each token of the features it was given; the highest is its next best one."""
    own: Callable[[EncodedVideo, CompressedTokens], Tensor] | None = getattr(outer, "preference", None)
    if own is not None:
        return own(video, kept)
    if "received_attention" in outer.signals:
        return video.pooled("received_attention")
    return distance_from_kept(video.features, kept.features)


@torch.no_grad()
def distance_from_kept(
    features: Float[Tensor, "frames tokens dim"], kept: Float[Tensor, "kept dim"]
) -> Float[Tensor, "frames tokens"]:
    """1 - cosine similarity of each token to the most similar kept one, float32, exactly 0 where they are equal."""
    if len(kept) == 0:
        return features.new_ones(features.shape[:2], dtype=torch.float32)
    others = kept.float()
    parts = []
    for part in features.flatten(0, 1).split(max(1, COMPARED // len(kept))):
        at = torch.arange(len(part) + len(kept), device=part.device).split([len(part), len(kept)])
        nearest = others[most_similar(torch.cat([part, kept.to(part.dtype)]), *at)]
        parts.append(1 - exact_cosine(part.float(), nearest))
    return torch.cat(parts).view(features.shape[:2])


@torch.no_grad()
def filled(
    video: EncodedVideo, kept: CompressedTokens, budget: int, score: Float[Tensor, "frames tokens"]
) -> CompressedTokens:
    """The kept tokens and the next best ones, ``budget`` in all, or all tokens where there are fewer.

    An added token stands behind the last kept one that belongs before it: one of a lower index, or one of the static
    tokens that stand before the frames of their segment. The device is not asked.

    Args:
        video: as the stage saw it.
        kept: what the stage kept, fewer than ``budget``.
        budget: tokens to keep.
        score: of every token of ``video.features``, finite; see :func:`preference`.
    """
    frames, tokens, _ = video.features.shape
    device, have = kept.index.device, kept.features.shape[0]
    count = max(0, min(budget, frames * tokens) - have)
    if have + count < budget:
        warnings.warn(
            f"fill_budget: frames merged in the vision tower leave {frames * tokens} tokens, fewer than the budget of "
            f"{budget}: all of them are kept",
            stacklevel=2,
        )
    target, first = _frames_of(video, device)
    group = (kept.details.source_map()[first] >= 0).long().flatten()
    group[target[kept.index // tokens] * tokens + kept.index % tokens] = 2  # no candidates
    order = score.flatten().argsort(descending=True, stable=True)
    chosen = order[group[order].argsort(stable=True)][:count].sort().values
    index = first[chosen // tokens] * tokens + chosen % tokens
    own = video.features.flatten(0, 1).index_select(0, chosen).to(kept.features.dtype)
    return _joined(kept, own, index, _rows(_places(kept, video, tokens), index), (target, first), budget)


def _frames_of(video: EncodedVideo, device: torch.device) -> tuple[Tensor, Tensor]:
    """Frame of the features that each frame of the video is in, -1 for lost ones, and the first in each of those."""
    if video.merges is None:
        every = torch.arange(video.features.shape[0], device=device)
        return every, every
    target, first = upload(device, video.merges.targets[-1], video.merges.representatives)
    return target, first


def _places(kept: CompressedTokens, video: EncodedVideo, tokens: int) -> Tensor:
    """Where kept tokens stand in reading order: at their index, static ones of a block before their first frame."""
    if video.order == "raster":
        return kept.index
    static = kept.details.token_kinds().flatten()[kept.index] == TokenKind.STATIC_CENTER
    return torch.where(static, kept.index // tokens * tokens - 1, kept.index)


def _rows(places: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of the kept tokens and, each behind the last one of a lower place, of those at ``index`` (ascending)."""
    least_behind = places.flip(0).cummin(0).values.flip(0) if len(places) else places
    slots = torch.searchsorted(least_behind, index)
    old = torch.arange(len(places), device=places.device)
    new_rows = slots + torch.arange(len(index), device=index.device)
    return old + torch.searchsorted(slots, old, right=True), new_rows


def _joined(
    kept: CompressedTokens,
    own: Tensor,
    index: Tensor,
    rows: tuple[Tensor, Tensor],
    frames: tuple[Tensor, Tensor],
    budget: int,
) -> CompressedTokens:
    """Kept and added tokens (``own``, at ``index``) in the order of their ``rows``, and what became of every token."""
    details, (old, new), (target, first) = kept.details, rows, frames
    moved = torch.cat([old, old.new_full((1,), -1)])[details.source_map()]  # dropped tokens are -1: the extra entry
    added = torch.full_like(moved, -1)  # which of the added tokens each token is
    added.view(-1)[index] = torch.arange(len(index), device=index.device)
    added = added[first[target.clamp(min=0)]].masked_fill((target < 0)[:, None], -1)
    source = torch.where(added >= 0, torch.cat([new, new.new_full((1,), -1)])[added], moved)
    filled_details = FilledDetails(
        details.frames,
        details.tokens_per_frame,
        details.segments,
        source,
        _kinds(details.token_kinds(), added, index, target),
        method=details,
        budget=budget,
        added=new,
        absorbed=moved.flatten()[index],
    )
    order = torch.cat([old, new]).argsort()  # no two are equal
    features, places = torch.cat([kept.features, own])[order], torch.cat([kept.index, index])[order]
    again = partial(_filled_again, method=partial(merged_again, kept), added=added, count=len(index), order=order)
    return replace(kept, features=features, index=places, details=filled_details, merge_again=again)


def _kinds(kinds: Tensor, added: Tensor, index: Tensor, target: Tensor) -> Tensor:
    """What became of every token: added ones are kept as they are, or stand for the frames merged with their own."""
    alone = (target[:, None] == target).sum(1) == 1
    members = torch.where(alone, TokenKind.DYNAMIC_KEPT.value, TokenKind.CONTEXTUAL_MERGED.value)
    heads = torch.where(alone, TokenKind.DYNAMIC_KEPT.value, TokenKind.CONTEXTUAL_CENTER.value).to(kinds.dtype)
    kinds = torch.where(added >= 0, members.to(kinds.dtype)[:, None], kinds)
    kinds.view(-1)[index] = heads[index // kinds.shape[1]]
    return kinds


def _filled_again(
    values: Tensor, method: Callable[[Tensor], Tensor], added: Tensor, count: int, order: Tensor
) -> Tensor:
    """The method's own tokens of other values, and the added ones."""
    own = method(values)
    return torch.cat([own, mean_of_sources(values, added, count).to(own.dtype)])[order]
