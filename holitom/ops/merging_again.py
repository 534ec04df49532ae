"""Other values of a video's tokens, selected and merged as an outer stage did with the tokens."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from holitom.ops.clustering import merged_members
from holitom.tokens import CompressedTokens


@torch.no_grad()
def merged_again(
    tokens: CompressedTokens, values: Float[Tensor, "frames tokens channels"]
) -> Float[Tensor, "kept channels"]:
    """Other values of a video's tokens, selected and merged as the tokens were, without gradients as these."""
    if tokens.merge_again is not None:
        return tokens.merge_again(values)
    return mean_of_sources(values, tokens.details.source_map(), len(tokens.index))


def mean_of_sources(
    values: Float[Tensor, "frames tokens channels"], source: Int[Tensor, "frames tokens"], rows: int
) -> Float[Tensor, "rows channels"]:
    """Plain mean of the tokens that became each output row, in the dtype of the values.

    Args:
        values: of the original tokens.
        source: output row of each of them, -1 for dropped ones; every row has one at least.
        rows: output rows.
    """
    flat, owner = values.flatten(0, 1).double(), source.flatten().to(values.device)
    return merged_members(flat[None], owner[None], (owner >= 0)[None], rows, None)[0].to(values.dtype)
