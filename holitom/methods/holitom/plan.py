"""Sizes of one outer compression: what a video's static counts settle before any token moves."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from holitom.checks import require_finite
from holitom.methods.holitom.config import OuterConfig
from holitom.methods.holitom.spatial_merging import dynamic_budget
from holitom.methods.holitom.temporal_merging import adjusted_ratio
from holitom.methods.holitom.temporal_segmentation import SEGMENTERS, Segmentation, window_table
from holitom.ops.token_ops import consecutive, to_host


@dataclass(frozen=True)
class OuterPlan:
    """Sizes of one compression, all known on the host.

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
    static_kept: list[int]
    dynamic: list[int]
    selected: list[int]
    contextual: list[int]

    def rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Output rows of the static, selected and contextual tokens in block order.

        Block order is segment by segment: its static tokens, then its frames, each with the selected tokens before
        the contextual ones.
        """
        firsts = [first for first, _ in self.segmentation.segments]
        static, selected, contextual = map(np.asarray, (self.static_kept, self.selected, self.contextual))
        ahead = np.zeros_like(selected)
        ahead[firsts] = static
        per_frame = ahead + selected + contextual
        starts = np.cumsum(per_frame) - per_frame
        return (
            consecutive(starts[firsts], static),
            consecutive(starts + ahead, selected),
            consecutive(starts + ahead + selected, contextual),
        )


def segment_of_frame(segments: list[tuple[int, int]]) -> np.ndarray:
    """Number of the segment each frame belongs to."""
    return np.repeat(np.arange(len(segments)), [last - first + 1 for first, last in segments])


def make_plan(
    runs: Int[Tensor, "pairs tokens"],
    norms: Float[Tensor, "frames tokens"],
    received_attention: Float[Tensor, "frames tokens"],
    config: OuterConfig,
    features: Tensor | None = None,
) -> OuterPlan:
    """Fetch the static counts, the only transfer from the device, and settle all sizes on the host.

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
    fetched = to_host(window_table(runs, norms, received_attention, min(frames, config.max_segment_frames)))
    for name, finite in zip(("features", "received_attention"), fetched[:, :2].T.tolist(), strict=True):
        require_finite(name, finite, features if name == "features" else received_attention)
    found = SEGMENTERS[config.segmentation](fetched[:, 2:], config.max_segment_frames)
    ratio = adjusted_ratio(config.retain_ratio, frames * tokens, found.removable)
    dynamic = [tokens - found.static_counts[segment] for segment in segment_of_frame(found.segments)]
    budgets = [dynamic_budget(count, ratio, config.contextual_ratio) for count in dynamic]
    return OuterPlan(
        segmentation=found,
        ratio=ratio,
        static_kept=[round(count * ratio) for count in found.static_counts],
        dynamic=dynamic,
        selected=[selected for selected, _ in budgets],
        contextual=[contextual for _, contextual in budgets],
    )
