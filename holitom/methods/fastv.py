"""FastV: an image is worth half the tokens after layer 2 (ECCV 2024, arXiv 2403.06764).

Stage: inside the LLM, once, in the prefill; all visual tokens reach the LLM. Layer K-1's attention of the last prompt
token, averaged over the heads, ranks the visual tokens; layer K and those after it see the best ones, at their original
positions, and all text. The defaults are those of the comparison table (K = 2, 80 % pruned), which its FLOPs fix.

The references materialise the attention map of layer K-1, which needs eager attention; here the one row that is used is
computed beside whatever attention the model runs. A video's newline tokens belong to its span. A span keeps at least
one token.
"""

from dataclasses import dataclass
from functools import partial

from holitom.checks import require_integer, require_within
from holitom.compressor import Compressor
from holitom.hooks.decoder.pruning import pruning_stages
from holitom.hooks.decoder.rules import DecoderStage
from holitom.methods import MethodFacts, register
from holitom.ops.short_sequences import kept_length


@register(
    "fastv",
    MethodFacts(
        "FastV",
        "FastV",
        ("#7F7F7F", "*", "solid"),
        share_settings=lambda share, _: [f"prune_ratio={round(1 - share, 6)}"],
    ),
)
@dataclass(frozen=True)
class FastvConfig:
    """Pruning at one layer.

    Attributes:
        prune_layer: index K of the first decoder layer that sees the shorter sequence; at least 1.
        prune_ratio: share of the tokens of a video span that is dropped, in [0, 1); the rest is rounded half to even.
    """

    prune_layer: int = 2
    prune_ratio: float = 0.8

    def __post_init__(self) -> None:
        require_integer("prune_layer", self.prune_layer, 1, "the paper uses 2")
        require_within("prune_ratio", self.prune_ratio, "[0, 1)", "0.8 drops four of five tokens")

    def build(self) -> Compressor:
        """A compressor with these settings, applied to no model yet."""
        kept = partial(kept_length, merge_ratio=self.prune_ratio)
        stage = DecoderStage(self.prune_layer, kept, "prune_layer", keeps_all=self.prune_ratio == 0)
        return Compressor(None, pruning_stages([stage]))
