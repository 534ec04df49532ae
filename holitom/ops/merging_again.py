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
    source, rows, weight = tokens.details.source_map(), len(tokens.index), tokens.center_weight
    if weight is None or not rows:
        return mean_of_sources(values, source, rows)
    # All frames of a segment share a static token's place, so the mean over them is that of the segment's averages.
    place = torch.arange(values.shape[1], device=source.device)
    central = tokens.index.to(source.device)[source] % values.shape[1] == place
    wide = values.double()
    center, others = (mean_of_sources(wide, source.masked_fill(~some, -1), rows) for some in (central, ~central))
    joined = mean_of_sources((~central)[..., None].to(wide), source, rows) > 0
    return torch.where(joined, weight * center + (1 - weight) * others, center).to(values.dtype)


def mean_of_sources(
    values: Float[Tensor, "frames tokens channels"], source: Int[Tensor, "frames tokens"], rows: int
) -> Float[Tensor, "rows channels"]:
    """Plain mean of the tokens that became each output row, in the dtype of the values; 0 for a row of none.

    Args:
        values: of the original tokens.
        source: output row of each of them, -1 for those left out.
        rows: output rows.
    """
    flat, owner = values.flatten(0, 1).double(), source.flatten().to(values.device)
    return merged_members(flat[None], owner[None], (owner >= 0)[None], rows, None)[0].to(values.dtype)
