"""DyCoke (arXiv 2411.15024): of every four frames one stays whole, the others lose what repeats an earlier frame.

Stage: before the LLM, after projector and pooling; needs the features alone. In groups of four frames the first is kept
whole; the second and third keep the trunc((1 - ``merge_ratio``) * tokens) positions least similar to the first, the
fourth those least similar to the third, before its own pruning. The method calls this merging, but nothing is averaged.
Tokens are frame by frame and in raster order; positions are contiguous.

The table's row of 25 % is reached with ``merge_ratio`` 1 only: one frame of four survives and nothing less is possible,
hence there are no rows below. The paper's own setting is 0.7.

What the released code does otherwise, and the switch: ``reference_groups`` keeps the third frame of the last group
whole where no frame follows (1,764 tokens of 32 x 196, not 1,568) and loses the last of an odd number of frames; fewer
than five frames are an error. ``similarity_order`` puts the tokens of a pruned frame by ascending similarity. Equal
similarities are decided by the lower position, where the release leaves it to an unstable selection.

``decode`` adds the method's second half, a selection of cache entries in every decode step; it changes neither the
FLOPs of the prompt nor the first token, and the table's rows do without it.
"""

from dataclasses import asdict, dataclass

import numpy as np
import torch

from holitom.checks import require_flag, require_within
from holitom.compressor import Compressor
from holitom.encoded_video import EncodedVideo
from holitom.errors import InputError
from holitom.methods import MethodFacts, register
from holitom.methods.dycoke.decode import DycokeDecodePruning
from holitom.methods.dycoke.temporal_pruning import GROUP, group_references, prune_groups
from holitom.ops.selection import check_finite, keep_selected
from holitom.tokens import CompressedTokens


@dataclass(frozen=True)
class DycokeDecodeConfig:
    """Settings of the selection in decode steps, see :class:`~holitom.methods.dycoke.decode.DycokeDecodePruning`.

    Attributes:
        layer: first decoder layer that attends to fewer cache entries; at least 1.
        prune_ratio: share of a video's entries that is left out, in [0, 1).
        similarity_threshold: a step that attends to a video as the step before did sees all of it.
    """

    layer: int = 3
    prune_ratio: float = 0.7
    similarity_threshold: float = 0.9

    def __post_init__(self) -> None:
        self.build()  # checks the bounds

    def build(self) -> DycokeDecodePruning:
        """The stage, applied to no decoder yet."""
        return DycokeDecodePruning(**asdict(self))


@register(
    "dycoke",
    MethodFacts(
        "DyCoke",
        "DyCoke",
        ("#D55E00", "h", "dotted"),
        share=lambda settings: 0.25 if settings.merge_ratio == 1 else None,  # one frame of four
    ),
)
@dataclass(frozen=True)
class DycokeConfig:
    """Settings of DyCoke.

    Attributes:
        merge_ratio: share of the tokens that the second, third and fourth frame of each group lose, in [0, 1].
        reference_groups: group frames as the released code does.
        similarity_order: order the tokens of a pruned frame as the released code does.
        decode: pruning of the cache in decode steps; None leaves it out.
    """

    merge_ratio: float = 1.0
    reference_groups: bool = False
    similarity_order: bool = False
    decode: DycokeDecodeConfig | None = None

    def __post_init__(self) -> None:
        require_within("merge_ratio", self.merge_ratio, "[0, 1]", "the paper uses 0.7, its 25 % row needs 1")
        for name in ("reference_groups", "similarity_order"):
            require_flag(name, getattr(self, name), "the release behaves like true")

    def build(self) -> Compressor:
        """A compressor with these settings, applied to no model yet."""
        return Compressor(DycokeOuter(self), None if self.decode is None else self.decode.build())


class DycokeOuter:
    """DyCoke's temporal merging of one video."""

    question_free = True
    signals: tuple[str, ...] = ()
    keeps_positions = False
    checks_features = True

    def __init__(self, config: DycokeConfig) -> None:
        self.config = config

    @torch.no_grad()
    def __call__(self, video: EncodedVideo) -> CompressedTokens:
        """Drop what repeats an earlier frame of its group.

        Raises:
            InputError: if ``reference_groups`` asks for more frames than there are, or raster order is needed and
                ``similarity_order`` forbids it.
        """
        config, (frames, tokens, _) = self.config, video.features.shape
        if config.reference_groups and frames <= GROUP:
            raise InputError(
                f"a video of {frames} frames is too short for reference_groups = True: it must have at least "
                f"{GROUP + 1} frames; sample more, or use reference_groups = False"
            )
        if config.similarity_order and video.order == "raster":
            raise InputError(
                "similarity_order = True does not keep raster order, which this mm_newline_position needs: use "
                "similarity_order = False, or mm_newline_position = 'one_token'"
            )
        check_finite(features=video.features)
        count = self._kept_of_pruned(tokens)
        index = prune_groups(video.features, count, config.reference_groups, config.similarity_order)
        segments = [(first, min(first + GROUP, frames) - 1) for first in range(0, frames, GROUP)]
        return keep_selected(video.features, index, segments)

    def most_kept(self, frames: int, tokens_per_frame: int) -> int:
        """Tokens a video of this size is compressed to, exactly."""
        compared = group_references(frames, self.config.reference_groups)
        pruned, whole = int(np.sum(compared >= 0)), int(np.sum(compared == -1))
        return pruned * self._kept_of_pruned(tokens_per_frame) + whole * tokens_per_frame

    def _kept_of_pruned(self, tokens: int) -> int:
        return int((1 - self.config.merge_ratio) * tokens)
