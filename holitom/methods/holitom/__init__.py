"""HoliTom: holistic token merging (NeurIPS 2025, arXiv 2505.21334)."""

from dataclasses import dataclass, field

from holitom.compressor import Compressor
from holitom.errors import InputError
from holitom.methods import register
from holitom.methods.holitom.config import InnerConfig, OuterConfig
from holitom.methods.holitom.inner import merging_stage
from holitom.methods.holitom.outer import OuterCompression
from holitom.tokens import CompressedTokens, EncodedVideo


@register("holitom")
@dataclass(frozen=True)
class HolitomConfig:
    """Both stages, or one of them.

    Attributes:
        outer: before the LLM; None leaves it out.
        inner: inside the LLM; None is the paper's "w/o M".
    """

    outer: OuterConfig | None = field(default_factory=OuterConfig)
    inner: InnerConfig | None = field(default_factory=InnerConfig)

    def __post_init__(self) -> None:
        if self.outer is None and self.inner is None:
            raise InputError("outer and inner are both null: give at least one stage, or run without a compressor")

    def build(self) -> Compressor:
        """A compressor with these settings, applied to no model yet."""
        outer = HolitomOuter(self.outer) if self.outer is not None else None
        return Compressor(outer, merging_stage(self.inner) if self.inner is not None else None)


class HolitomOuter:
    """HoliTom's outer stage as the compressor calls it; the work is done in :mod:`~holitom.methods.holitom.outer`."""

    signals: tuple[str, ...] = ("received_attention",)
    keeps_positions = False
    checks_features = True

    def __init__(self, config: OuterConfig) -> None:
        self.compress = OuterCompression(config)

    def __call__(self, video: EncodedVideo) -> CompressedTokens:
        """Segment, merge and select the tokens of one video."""
        return self.compress(video.features, video.pooled("received_attention"), video.order)

    def most_kept(self, frames: int, tokens_per_frame: int) -> int:
        """Most tokens the budget allows."""
        return self.compress.most_kept(frames, tokens_per_frame)
