"""Sizes of one outer compression: what a video's static counts settle before any token moves."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from holitom.checks import require_finite
from holitom.methods.holitom.config import OuterConfig
from holitom.methods.holitom.spatial_merging import dynamic_budget
from holitom.methods.holitom.temporal_merging import adjusted_ratio
from holitom.methods.holitom.temporal_segmentation import Segmentation, fetch_cut
from holitom.ops.group_clustering import group_columns
from holitom.ops.token_ops import upload


@dataclass(frozen=True)
class OuterPlan:
    """Sizes of one compression, all known on the host; arrays are int64.

    Attributes:
        segmentation: the segments and their static tokens.
        ratio: share to keep of the tokens that temporal merging leaves.
        static_kept: clusters of static tokens per segment.
        dynamic: dynamic tokens per frame.
        selected: dynamic tokens kept unchanged, per frame.
        contextual: clusters of the other dynamic tokens, per frame.
    """

    segmentation: Segmentation
    ratio: float
    static_kept: np.ndarray
    dynamic: np.ndarray
    selected: np.ndarray
    contextual: np.ndarray

    def rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Output rows of the static, selected and contextual tokens in block order.

        Block order is segment by segment: its static tokens, then its frames, each with the selected tokens before
        the contextual ones.
        """
        firsts, _ = self.segmentation.extents
        ahead = np.zeros_like(self.selected)
        ahead[firsts] = self.static_kept
        per_frame = ahead + self.selected + self.contextual
        starts = np.cumsum(per_frame) - per_frame
        return (
            consecutive(starts[firsts], self.static_kept),
            consecutive(starts + ahead, self.selected),
            consecutive(starts + ahead + self.selected, self.contextual),
        )

    def upload(self, device: torch.device) -> "UploadedPlan":
        """What the device must know, in one transfer."""
        found = self.segmentation
        first, last = found.extents
        moved = upload(
            device,
            *group_columns(found.static_counts, self.static_kept.tolist()),
            *group_columns((self.dynamic - self.selected).tolist(), self.contextual.tolist()),
            last,
            last - first + 1,
            found.segment_of_frame(),
            self.selected,
            np.concatenate(self.rows()),
            np.repeat(first, self.static_kept),
            np.repeat(np.arange(len(self.contextual)), self.contextual),
        )
        return UploadedPlan(moved[:4], moved[4:8], *moved[8:])


class UploadedPlan(NamedTuple):
    """The numbers of an :class:`OuterPlan` on the device of the features.

    Attributes:
        static_groups: see :class:`~holitom.ops.group_clustering.TokenGroups`.
        contextual_groups: the same.
        last: last frame of every segment.
        length: frames of every segment.
        segment: segment of every frame.
        selected: dynamic tokens to select of every frame.
        rows: output rows in block order, of all static, then all selected, then all contextual tokens.
        static_frame: first frame of the segment of every static output token.
        contextual_frame: frame of every contextual output token.
    """

    static_groups: list[Int[Tensor, " merging_segments"]]
    contextual_groups: list[Int[Tensor, " merging_frames"]]
    last: Int[Tensor, " segments"]
    length: Int[Tensor, " segments"]
    segment: Int[Tensor, " frames"]
    selected: Int[Tensor, " frames"]
    rows: Int[Tensor, " kept"]
    static_frame: Int[Tensor, " static"]
    contextual_frame: Int[Tensor, " contextual"]


def make_plan(
    runs: Int[Tensor, "pairs tokens"],
    norms: Float[Tensor, "frames tokens"],
    received_attention: Float[Tensor, "frames tokens"],
    config: OuterConfig,
    features: Tensor | None = None,
) -> OuterPlan:
    """Fetch the segmentation, the only transfer from the device, and settle all sizes on the host.

    Args:
        runs: run lengths of static pairs.
        norms: lengths of the features, not finite where a feature is not.
        received_attention: attention each token receives.
        config: settings.
        features: what ``norms`` are the lengths of; only for the words of an error.

    Returns:
        The plan.

    Raises:
        InputError: if features or attention are not finite.
    """
    frames, tokens = norms.shape
    longest = min(frames, config.max_segment_frames)
    finite, found = fetch_cut(runs, norms, received_attention, config.segmentation, longest)
    require_finite("features", finite[0], features)
    require_finite("received_attention", finite[1], received_attention)
    ratio = adjusted_ratio(config.retain_ratio, frames * tokens, found.removable)
    static = np.asarray(found.static_counts, dtype=np.int64)
    dynamic = tokens - static[found.segment_of_frame()]
    selected, contextual = dynamic_budget(dynamic, ratio, config.contextual_ratio)
    return OuterPlan(found, ratio, np.rint(static * ratio).astype(np.int64), dynamic, selected, contextual)


def consecutive(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Concatenate the ranges ``start .. start + count - 1``, one per entry."""
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(int(counts.sum()))
