"""FLOPs of one layer or part for given numbers of tokens and frames, for prompts that no row describes.

Counts of rows are made on the graph (``eval.efficiency.flops.counted``); the tests hold these terms against them.
"""

from __future__ import annotations

from collections.abc import Sequence

from eval.efficiency.flops.sizes import ModelSizes


def tower_flops(sizes: ModelSizes, frames: Sequence[int] | None = None) -> int:
    """The tower: patch embedding of all frames, and in each layer four projections, attention, feed-forward.

    Args:
        sizes: of the checkpoint.
        frames: what each layer sees; None: all of them.
    """
    patches, width = sizes.patches, sizes.tower_dim
    embedding = 2 * patches * 3 * sizes.patch**2 * width
    projections, attention = 4 * 2 * patches * width**2, 2 * 2 * patches**2 * width
    feed_forward = 2 * 2 * patches * width * sizes.tower_inner
    seen = sizes.frames * sizes.tower_layers if frames is None else sum(frames)
    return sizes.frames * embedding + seen * (projections + attention + feed_forward)


def projector_flops(sizes: ModelSizes, frames: int | None = None) -> int:
    """The projector on all patches of ``frames`` frames, or all (pooling comes after it, without a matrix product)."""
    widths = sizes.tower_dim * sizes.dim + (sizes.projector_layers - 1) * sizes.dim**2
    return (sizes.frames if frames is None else frames) * sizes.patches * 2 * widths


def attention_pairs(queries: int, keys: int, square: bool) -> int:
    """Pairs of query and key that an attention computes; a causal prefill has as many queries as keys."""
    return queries * keys if square or queries < keys else queries * (queries + 1) // 2


def layer_flops(sizes: ModelSizes, new: int, keys: int, square: bool) -> int:
    """One layer of the language model on ``new`` tokens that see ``keys`` tokens, themselves included."""
    projections = 2 * new * sizes.dim * (2 * sizes.query_width + 2 * sizes.key_width)
    attention = 2 * 2 * attention_pairs(new, keys, square) * sizes.query_width
    return projections + attention + 3 * 2 * new * sizes.dim * sizes.inner


def head_flops(sizes: ModelSizes) -> int:
    """Logits of one position."""
    return 2 * sizes.dim * sizes.vocabulary
