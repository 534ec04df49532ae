"""Spatial merging of HoliTom (Sec. 3.2): what is kept of the tokens that move, and with it every size of a compression.

A video's static counts settle all of them before any token moves.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from holitom.checks import require_finite
from holitom.methods.holitom.config import OuterConfig
from holitom.methods.holitom.temporal_merging import adjusted_ratio
from holitom.methods.holitom.temporal_segmentation import Segmentation, fetch_cut
from holitom.ops.group_clustering import group_columns
from holitom.ops.token_ops import upload


def dynamic_budget(tokens: np.ndarray, ratio: float, contextual_ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """Number of selected and of clustered tokens that stand for each frame's dynamic tokens.

    Args:
        tokens: dynamic tokens per frame.
        ratio: share of them to keep, rounded up.
        contextual_ratio: share of the kept ones that are cluster centres; the rest is rounded half to even.

    Returns:
        Selected tokens and clusters per frame, int64.
    """
    kept = np.ceil(tokens * ratio).astype(np.int64)
    selected = np.rint(kept * (1 - contextual_ratio)).astype(np.int64)
    return selected, kept - selected


@dataclass(frozen=True)
class OuterPlan:
    """Sizes of one compression: the lists are on the host, the tensors where the features are.

    Attributes:
        segmentation: the segments and their static tokens.
        ratio: share to keep of the tokens that temporal merging leaves.
        static_kept: clusters of static tokens per segment.
        dynamic_kept: tokens kept of each frame's dynamic ones.
        rest: dynamic tokens per frame that are not kept unchanged.
        contextual: their clusters per frame.
        static_groups: see :class:`~holitom.ops.group_clustering.TokenGroups`.
        contextual_groups: the same.
        extent: last frame of every segment and its length.
        segment: segment of every frame.
        selected: dynamic tokens kept unchanged, per frame.
        rows: output rows in block order, of all static, then all selected, then all contextual tokens: segment by
            segment its static tokens, then its frames, each with the selected tokens before the contextual ones.
        frame: frame of each of them, the first of the segment for static ones.
    """

    segmentation: Segmentation
    ratio: float
    static_kept: list[int]
    dynamic_kept: list[int]
    rest: list[int]
    contextual: list[int]
    static_groups: Sequence[Int[Tensor, " merging_segments"]]
    contextual_groups: Sequence[Int[Tensor, " merging_frames"]]
    extent: tuple[Int[Tensor, " segments"], Int[Tensor, " segments"]]
    segment: Int[Tensor, " frames"]
    selected: Int[Tensor, " frames"]
    rows: Int[Tensor, " kept"]
    frame: Int[Tensor, " kept"]


def make_plan(
    runs: Int[Tensor, "pairs tokens"],
    norms: Float[Tensor, "frames tokens"],
    received_attention: Float[Tensor, "frames tokens"],
    config: OuterConfig,
    features: Float[Tensor, "frames tokens dim"],
) -> OuterPlan:
    """Fetch the segmentation, the only transfer from the device, and settle all sizes on the host.

    Args:
        runs: run lengths of static pairs.
        norms: lengths of the features, not finite where a feature is not.
        received_attention: attention each token receives.
        config: settings.
        features: what ``norms`` are the lengths of; only for the words of an error.

    Raises:
        InputError: if features or attention are not finite.
    """
    frames, tokens = norms.shape
    longest = min(frames, config.max_segment_frames)
    finite, found = fetch_cut(runs, norms, received_attention, config.segmentation, longest)
    require_finite("features", finite[0], features)
    require_finite("received_attention", finite[1], received_attention)
    ratio = adjusted_ratio(config.retain_ratio, frames * tokens, found.removable)
    (first, last), static = np.array(found.segments).T, np.array(found.static_counts)
    segment, every = np.repeat(np.arange(len(first)), last - first + 1), np.arange(frames)
    static_kept, dynamic = np.rint(static * ratio).astype(np.int64), tokens - static[segment]
    selected, contextual = dynamic_budget(dynamic, ratio, config.contextual_ratio)
    rest = dynamic - selected
    frame = np.repeat(np.concatenate([first, every, every]), np.concatenate([static_kept, selected, contextual]))
    rows = np.empty_like(frame)
    rows[frame.argsort(kind="stable")] = np.arange(len(rows))
    groups = *group_columns(static, static_kept), *group_columns(rest, contextual)
    moved = upload(norms.device, *groups, last, last - first + 1, segment, selected, rows, frame)
    sizes = static_kept.tolist(), (selected + contextual).tolist(), rest.tolist(), contextual.tolist()
    return OuterPlan(found, ratio, *sizes, moved[:4], moved[4:8], (moved[8], moved[9]), *moved[10:])
