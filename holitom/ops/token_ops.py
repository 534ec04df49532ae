"""Tensor helpers shared by the token-compression stages; none of them waits for the device unless it says so."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from holitom.ops.kernels import kernel_for


def to_host(values: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """Copy ``values`` to host memory; on an accelerator this waits for everything queued before it."""
    return values.to("cpu")


def upload(device: torch.device, *columns: Sequence[int] | np.ndarray) -> list[Int[Tensor, "..."]]:
    """Copy integer lists to ``device`` in one transfer that does not wait for the device.

    Args:
        device: where the tensors go.
        columns: lists of integers of any lengths.

    Returns:
        One int64 tensor per list, all views of one buffer.
    """
    arrays = [np.asarray(column, dtype=np.int64) for column in columns]
    packed = torch.from_numpy(np.concatenate(arrays))
    if device.type == "cuda":
        packed = packed.pin_memory()
    return list(packed.to(device, non_blocking=True).split([len(array) for array in arrays]))


def packed_positions(mask: Bool[Tensor, "rows width"], most: int) -> Int[Tensor, "rows {most}"]:
    """Columns of the True entries of every row, ascending, packed to the left.

    Args:
        mask: which entries to list; no row has more than ``most`` True entries.
        most: width of the result, known on the host so that the device is not asked.

    Returns:
        int64 columns; slots beyond a row's count hold 0.
    """
    rows, width = mask.shape
    if kernel := kernel_for("packed_positions", mask):
        return kernel(mask, most)
    # Unselected entries all write into one slot past the end, which is cut off.
    slots = torch.where(mask, mask.cumsum(1) - 1, most)
    columns = torch.arange(width, device=mask.device).expand(rows, width)
    return mask.new_zeros((rows, most + 1), dtype=torch.int64).scatter_(1, slots, columns)[:, :most]


def highest(
    scores: Float[Tensor, "rows width"], eligible: Bool[Tensor, "rows width"], counts: Int[Tensor, " rows"]
) -> Bool[Tensor, "rows width"]:
    """Mark the ``counts`` highest eligible scores of every row; of equal scores the lower index comes first.

    Args:
        scores: finite numbers (only the eligible ones are looked at).
        eligible: which entries may be marked.
        counts: how many to mark per row, at most the row's eligible entries.

    Returns:
        Mask with exactly ``counts`` True entries per row.
    """
    if kernel := kernel_for("highest", scores, eligible, counts):
        return kernel(scores, eligible, counts)
    order = scores.masked_fill(~eligible, -torch.inf).argsort(dim=1, descending=True, stable=True)
    first = torch.arange(scores.shape[1], device=scores.device) < counts[:, None]
    return torch.zeros_like(eligible).scatter_(1, order, first)
