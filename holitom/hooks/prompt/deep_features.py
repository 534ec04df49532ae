"""Visual features that a prompt brings for early decoder layers (DeepStack), contracted like its tokens.

Qwen3-VL's tower gives, beside the tokens, one set of features for each of the first decoder layers. What compression
did to the tokens of a video is done to them: kept with a kept token, merged with the same weights where tokens were
merged, dropped with a dropped one. Images and their features stay.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from holitom.hooks.decoder.late_features import FEATURES, PLACES, spread
from holitom.hooks.prompt.contraction import ContractedBatch, contract
from holitom.hooks.prompt.prompt_layout import PlacedVideo
from holitom.ops.merging_again import merged_again
from holitom.tokens import CompressedTokens


def contracted_deep_features(
    named: dict[str, Any],
    batch: ContractedBatch,
    first: Sequence[int],
    videos: Sequence[Sequence[tuple[PlacedVideo, CompressedTokens]]],
) -> dict[str, Any]:
    """The decoder's arguments for such features after :func:`~holitom.hooks.prompt.contraction.contract`.

    Args:
        named: the decoder's arguments before; without such features nothing is returned.
        batch: what is left of the prompt.
        first: per row, index of its first real token before.
        videos: per row, its videos with what is left of each.
    """
    features = named.get(FEATURES)
    if not features:
        return {}
    places = named[PLACES].to(batch.kept.device)
    left = places.gather(1, batch.kept.clamp(min=0)) & (batch.kept >= 0)
    widths = [part.shape[-1] for part in features]
    states = spread(torch.cat(list(features), dim=-1), places)  # all sets at once
    own = [
        [(placed, replace(tokens, features=merged_again(tokens, placed.visual(row)))) for placed, tokens in pairs]
        for row, pairs in zip(states, videos, strict=True)
    ]
    short = contract(states, first, own).embeds[left]
    return {PLACES: left, FEATURES: list(short.split(widths, dim=-1))}
