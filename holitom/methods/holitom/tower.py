"""Frames that stand still need not be encoded to the end: an extension of HoliTom by this project, not in the paper.

The paper merges over time what stands still between frames, behind a vision tower that has encoded every frame to its
end. This merges whole frames inside the tower, behind a few of its layers: consecutive frames of which nearly all
patches stand still over the whole group, by the same rule as the outer stage's tokens, go on as one. The outer stage
then sees fewer frames and keeps the larger share of their tokens, so that the budget is that of the whole video.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from holitom.checks import require_finite
from holitom.encoded_video import FrameMerges
from holitom.methods.holitom.temporal_merging import static_masks
from holitom.methods.holitom.temporal_segmentation import static_counts, static_run_lengths
from holitom.methods.holitom.tower_config import TowerConfig
from holitom.ops.selection import PlainDetails
from holitom.ops.similarity import similarity_and_norms
from holitom.ops.token_ops import to_host, upload
from holitom.tokens import CompressedTokens, TokenKind

Group = tuple[int, int]


@dataclass(frozen=True)
class StillGroups:
    """Which frames one layer merges.

    Attributes:
        groups: first and last frame of every group, inclusive; a frame that is not merged is a group of its own.
        moving: patches of each group that do not stand still; None where all are averaged alike.
    """

    groups: list[Group]
    moving: Bool[Tensor, "groups patches"] | None


def still_groups(counts: Int[Tensor, "frames longest"], patches: int, static_share: float) -> list[Group]:
    """Cut a video into the fewest groups of frames over each of which enough patches stand still.

    A part of a group is a group as well, so that taking the longest from the start on gives the fewest.

    Args:
        counts: patches that stand still over each window, by last frame and length - 1, in host memory; a group is no
            longer than this has columns.
        patches: of a frame.
        static_share: share of them that must stand still.
    """
    longest, table = counts.shape[1], counts.tolist()
    groups, first = [], 0
    for frame in range(1, len(table)):
        length = frame - first
        if length >= longest or table[frame][length] / patches < static_share:
            groups.append((first, frame - 1))
            first = frame
    return [*groups, (first, len(table) - 1)]


def merge_groups(
    values: Float[Tensor, "frames patches *rest"], plan: StillGroups
) -> Float[Tensor, "groups patches *rest"]:
    """One frame for every group: the mean over its frames in float32, where ``moving`` says so its first frame."""
    (firsts,) = upload(values.device, [first for first, _ in plan.groups])
    merged = values.index_select(0, firsts)
    for row, (first, last) in enumerate(plan.groups):
        if last == first:
            continue
        mean = values[first : last + 1].mean(0, dtype=torch.float32).to(values.dtype)
        if plan.moving is not None:
            keep = plan.moving[row].view(-1, *[1] * (values.dim() - 2))
            mean = torch.where(keep, merged[row], mean)
        merged[row] = mean
    return merged


class StillFrameMerging:
    """The extension's rules inside the tower as its hooks call them.

    Args:
        config: the settings.
        most: merge as many frames as ``max_frames`` allows, whatever the states.
    """

    reads_attention = False

    def __init__(self, config: TowerConfig, most: bool = False) -> None:
        self.config = config
        self._most = most

    def nominal(self) -> "StillFrameMerging":
        """The same rules where every frame stands still."""
        return StillFrameMerging(self.config, most=True)

    @torch.no_grad()
    def plan(self, states: Tensor) -> StillGroups:
        """Groups of frames that stand still; one transfer to the host.

        Raises:
            InputError: if a state is not finite.
        """
        config, (frames, patches) = self.config, states.shape[:2]
        longest = min(frames, config.max_frames)
        if self._most:
            groups = still_groups(torch.full((frames, longest), patches), patches, config.static_share)
            return StillGroups(groups, None)
        similarity, norms = similarity_and_norms(states)
        runs = static_run_lengths(similarity, config.similarity_threshold)
        sound = norms.isfinite().all(1, keepdim=True).int()
        fetched = to_host(torch.cat([sound, static_counts(runs, longest)], dim=1))
        require_finite("the vision tower's states", fetched[:, 0].tolist())
        groups = still_groups(fetched[:, 1:], patches, config.static_share)
        if config.moving_rule != "first":
            return StillGroups(groups, None)
        last, length = upload(runs.device, [end for _, end in groups], [end - first + 1 for first, end in groups])
        return StillGroups(groups, ~static_masks(runs, last, length))

    def merge(self, values: Tensor, plan: StillGroups) -> Tensor:
        """The frames that go on."""
        return merge_groups(values, plan)

    def target(self, plan: StillGroups, frames: int) -> list[int]:
        """The group that each frame is in; none is lost."""
        return [number for number, (first, last) in enumerate(plan.groups) for _ in range(first, last + 1)]

    def groups(self, states: Tensor) -> list[Group]:
        """Nobody asks: the outer stage finds segments by itself."""
        raise NotImplementedError


@dataclass(frozen=True)
class MergedDetails(PlainDetails):
    """Details of a video whose frames were merged inside the tower; its segments are spread over the video.

    Attributes:
        merges: what happened to its frames inside the tower.
        adjusted_ratio: share of the tokens of the merged frames that the outer stage was to keep.
    """

    merges: FrameMerges
    adjusted_ratio: float


def spread(kept: CompressedTokens, merges: FrameMerges, ratio: float) -> CompressedTokens:
    """Tokens of merged frames as tokens of the video: at the places of the first frame in each merged one.

    Args:
        kept: the outer stage's tokens of the merged frames.
        merges: what happened inside the tower; no frame is lost.
        ratio: for the details.
    """
    details, device, tokens = kept.details, kept.index.device, kept.details.tokens_per_frame
    first, target = upload(device, merges.representatives, merges.targets[-1])
    index = first[kept.index // tokens] * tokens + kept.index % tokens
    source, kinds = details.source_map()[target], details.token_kinds()[target]
    alone = torch.bincount(target, minlength=merges.merged_frames) == 1
    center = torch.zeros_like(source, dtype=torch.bool)
    center.view(-1)[index] = True
    mixed = ~alone[target][:, None]
    for kept_kind, merged_kind in _MERGED.items():
        kinds = torch.where(mixed & ~center & (kinds == kept_kind), merged_kind.value, kinds)
    kinds = torch.where(mixed & center & (kinds == TokenKind.DYNAMIC_KEPT), TokenKind.CONTEXTUAL_CENTER.value, kinds)
    segments = merges.over_video(details.segments)
    own = MergedDetails(merges.frames, tokens, segments, source, kinds, merges, ratio)
    return CompressedTokens(kept.features, index, own, kept.every_row)


# what a token that reaches the LLM is called, and what those that its frame was merged with are
_MERGED = {
    TokenKind.DYNAMIC_KEPT: TokenKind.CONTEXTUAL_MERGED,
    TokenKind.CONTEXTUAL_CENTER: TokenKind.CONTEXTUAL_MERGED,
    TokenKind.STATIC_CENTER: TokenKind.STATIC_MERGED,
}
