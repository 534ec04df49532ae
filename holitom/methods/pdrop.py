"""PyramidDrop: fewer visual tokens stage by stage (CVPR 2025, arXiv 2410.17247).

Stage: inside the LLM, progressively, in the prefill; all visual tokens reach the LLM. Before each drop layer, that
layer's own norm, queries and keys rank the visual tokens by the attention of the last prompt token, averaged over the
heads; the layer and those after it see the best ones and all text. Counts are shares of the span in the prompt, cut to
integers. Positions are numbered anew without gaps after every drop, and tokens decoded later follow them, so every
stage's cache is contiguous.

The drop layers of the comparison table are not published: [2, 7, 14] are those that give its FLOPs, with the paper's
halving ratios. The reference works with padding on the right and drops a span whose count is cut to zero; here padding
is on the left, as everywhere in this project, and a span keeps at least one token. A video's newline tokens belong to
its span.
"""

from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

from holitom.checks import is_finite_number, is_integer, require
from holitom.compressor import Compressor
from holitom.errors import InputError
from holitom.hooks.decoder.pruning import pruning_stages
from holitom.hooks.decoder.rules import DecoderStage
from holitom.methods import MethodFacts, register
from holitom.ops.pruning import truncated_length


@register("pdrop", MethodFacts("PDrop", "PDrop", ("#0072B2", "p", "dotted")))
@dataclass(frozen=True)
class PdropConfig:
    """Drops at several layers.

    Attributes:
        drop_layers: first decoder layer of each stage, ascending, each at least 1.
        keep_ratios: share of the tokens of a video span in the prompt that each stage keeps, in (0, 1], never growing.
    """

    drop_layers: list[int] = field(default_factory=lambda: [2, 7, 14])
    keep_ratios: list[float] = field(default_factory=lambda: [0.5, 0.25, 0.125])

    def __post_init__(self) -> None:
        layers, ratios = self.drop_layers, self.keep_ratios
        for name, value in (("drop_layers", layers), ("keep_ratios", ratios)):
            listed = isinstance(value, list | tuple) and len(value) > 0
            require(listed, name, value, "a list with one entry per stage", "the defaults are the comparison table's")
        if len(layers) != len(ratios):
            raise InputError(
                f"drop_layers = {layers!r} and keep_ratios = {ratios!r} differ in length: give one ratio per layer"
            )
        whole = all(is_integer(layer) and layer >= 1 for layer in layers)
        ascending = whole and all(layer < after for layer, after in pairwise(layers))
        require(ascending, "drop_layers", layers, "ascending integers of at least 1", "the table uses [2, 7, 14]")
        within = all(is_finite_number(ratio) and 0 < ratio <= 1 for ratio in ratios)
        shrinking = within and all(ratio >= after for ratio, after in pairwise(ratios))
        remedy = "the paper uses [0.5, 0.25, 0.125]"
        require(shrinking, "keep_ratios", ratios, "in (0, 1] and never growing from stage to stage", remedy)

    def build(self) -> Compressor:
        """A compressor with these settings, applied to no model yet."""
        stages = [
            DecoderStage(
                layer, partial(truncated_length, keep_ratio=ratio), "drop_layers", "own_layer", True, ratio == 1
            )
            for layer, ratio in zip(self.drop_layers, self.keep_ratios, strict=True)
        ]
        return Compressor(None, pruning_stages(stages))
