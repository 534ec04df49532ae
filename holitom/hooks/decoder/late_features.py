"""Visual features that a decoder adds to its hidden states behind early layers (DeepStack), where a stage came before.

A decoder like Qwen3-VL's adds one set of features behind each of its first layers, at the visual tokens. Behind a stage
there are fewer tokens: the features are reduced exactly as the stage reduced the hidden states, dropped with a dropped
token and averaged with those it was merged with, and added by a forward hook. The sets for the layers before the first
stage are left to the decoder.
"""

from collections.abc import Callable, Sequence
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from holitom.hooks.decoder.decoder_state import ForwardCall
from holitom.ops.short_sequences import ShortSequences

FEATURES, PLACES = "deepstack_visual_embeds", "visual_pos_masks"
Again = Callable[[Tensor, ShortSequences, Sequence[int]], Tensor]


def spread(features: Float[Tensor, "visual dim"], places: Bool[Tensor, "batch seq"]) -> Float[Tensor, "batch seq dim"]:
    """Features of the visual tokens at their places, zero elsewhere."""
    places = places.to(features.device)
    everywhere = features.new_zeros(*places.shape, features.shape[-1])
    return everywhere.masked_scatter(places[..., None], features)


def keep_late(call: ForwardCall, kwargs: dict[str, Any], layer: int) -> dict[str, Any]:
    """Keyword arguments of a prefill without the features for ``layer`` and those after it, which ``call`` keeps."""
    features = kwargs.get(FEATURES) or ()
    if len(features) <= layer:
        return kwargs
    call.late = {number: spread(part, kwargs[PLACES]) for number, part in enumerate(features) if number >= layer}
    return {**kwargs, FEATURES: features[:layer]}


def reduce_late(call: ForwardCall, reduced: ShortSequences, again: Again | None) -> None:
    """Reduce the features that are still to come as a stage reduced the hidden states; ``call`` is as it was before."""
    call.late = {number: (again or gather_kept)(part, reduced, call.first) for number, part in call.late.items()}


def gather_kept(
    values: Float[Tensor, "batch seq dim"], reduced: ShortSequences, first: Sequence[int]
) -> Float[Tensor, "batch short_seq dim"]:
    """Values of the kept tokens, zero at padding: what a stage that only drops tokens leaves."""
    kept = reduced.kept.to(values.device)[..., None]
    return values.gather(1, kept.clamp(min=0).expand(-1, -1, values.shape[-1])).masked_fill(kept < 0, 0)


def add_late(call: ForwardCall | None, layer: int, hidden: Tensor) -> Tensor | None:
    """Hidden states behind a layer with the features that belong there; None if there are none."""
    features = None if call is None else call.late.pop(layer, None)
    return None if features is None else hidden + features.to(hidden)
