"""A compressor that also puts on record what pictures show: received attention and similarity over time.

    compressor = watched(load_compressor("llava_onevision_7b/holitom_r15"))
    with compressor.applied(model):
        model.generate(...)
    save_record(compressor.record, "record.npz")

Nothing of it is computed or kept by a compressor that is not watched. The tensors stay on their device; saving a
record transfers them.
"""

from dataclasses import replace

import torch

from holitom.budget import preference
from holitom.compressor import Compressor
from holitom.encoded_video import EncodedVideo
from holitom.ops.selection import all_tokens
from holitom.ops.similarity import similarity_and_norms
from holitom.stages import OuterStage
from holitom.tokens import CompressedTokens, Observed

_SIGNAL = "received_attention"


class Watched:
    """An outer stage, or none, that hands over what it saw; its tokens are those of the stage alone.

    Args:
        outer: the stage; None lets all tokens pass.
    """

    def __init__(self, outer: OuterStage | None) -> None:
        self.outer = outer
        own = outer.signals if outer is not None else ()
        self.signals = own if _SIGNAL in own else (*own, _SIGNAL)
        self.keeps_positions = outer is not None and outer.keeps_positions
        self.question_free = outer is None or getattr(outer, "question_free", False)

    @torch.no_grad()
    def __call__(self, video: EncodedVideo) -> CompressedTokens:
        """The stage's tokens with :class:`~holitom.tokens.Observed` beside them."""
        kept = all_tokens(video.features) if self.outer is None else self.outer(video)
        similarity = getattr(kept.details, "similarity", None)  # HoliTom's is the very tensor it decided by
        features, received = video.features, video.pooled(_SIGNAL)
        if video.merges is not None:  # a frame that was merged shows what it became
            rows = torch.tensor(video.merges.stand_ins, device=features.device)
            features, received = features[rows], received[rows]
        if similarity is None:
            similarity, _ = similarity_and_norms(features)
        return replace(kept, observed=Observed(received, similarity))

    def preference(self, video: EncodedVideo, kept: CompressedTokens) -> torch.Tensor:
        """As the stage says, which is there where a budget is filled; see :mod:`holitom.budget`."""
        assert self.outer is not None
        return preference(self.outer, video, kept)

    def most_kept(self, frames: int, tokens_per_frame: int) -> int:
        """As the stage says; all tokens without one."""
        total = frames * tokens_per_frame
        return total if self.outer is None else self.outer.most_kept(frames, tokens_per_frame)


def watched(compressor: Compressor) -> Compressor:
    """A compressor of the same stages whose record also holds :class:`~holitom.tokens.Observed`.

    Its ``apply`` raises :class:`~llava.errors.InputError` for a model family whose tower's attention cannot be read.

    Args:
        compressor: applied to no model.
    """
    return Compressor(Watched(compressor.outer), compressor.inner, compressor.tower, compressor.fill)
