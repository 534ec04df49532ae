"""What is clustered: loaders of the points of many groups, and the rows their clusters get."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from holitom.ops.kernels.dispatch import use_kernels
from holitom.ops.token_ops import upload

LoadPoints = Callable[[list[int], Tensor, Tensor], Tensor]


def rows_of(membership: Int[Tensor, "groups tokens"], rows: Int[Tensor, " clusters"]) -> Int[Tensor, "groups tokens"]:
    """Output row of each token from its cluster's row; -1 for tokens in no cluster."""
    return torch.cat([rows, rows.new_full((1,), -1)])[membership]


def segment_means(features: Float[Tensor, "frames tokens dim"], segments: list[tuple[int, int]]) -> LoadPoints:
    """Loader of the averages of a segment's tokens over its frames, for :func:`cluster_groups` (float32)."""

    if use_kernels(features):
        from holitom.ops.kernels import clusters  # noqa: PLC0415

        extent = [first for first, _ in segments], [last - first + 1 for first, last in segments]
        firsts, lengths = upload(features.device, *extent)
        return lambda _, chosen, positions: clusters.segment_means(features, firsts, lengths, chosen, positions)

    def load(groups: list[int], _: Tensor, positions: Tensor) -> Tensor:
        # One reduction per segment reads its frames once, in any dtype and without a copy.
        means = []
        for row, group in enumerate(groups):
            first, last = segments[group]
            mean = features[first : last + 1].mean(0, dtype=torch.float32)
            means.append(mean.index_select(0, positions[row]))
        return torch.stack(means)

    return load


def frame_tokens(features: Float[Tensor, "frames tokens dim"]) -> LoadPoints:
    """Loader of a frame's own tokens, for :func:`holitom.ops.group_clustering.cluster_groups`."""
    tokens, dim = features.shape[1:]
    flat = features.flatten(0, 1)

    def load(_: list[int], chosen: Tensor, positions: Tensor) -> Tensor:
        rows = chosen[:, None] * tokens + positions
        return flat.index_select(0, rows.flatten()).view(*positions.shape, dim)

    return load
