"""HoliTom: holistic token merging (NeurIPS 2025, arXiv 2505.21334).

``tower`` adds a stage of this project's own, which the paper does not have: see :mod:`holitom.methods.holitom.tower`.
"""

from dataclasses import dataclass, field, replace

from holitom.compressor import Compressor
from holitom.encoded_video import EncodedVideo
from holitom.errors import InputError
from holitom.hooks.tower.frame_merging import FrameMerging
from holitom.methods import MethodFacts, register
from holitom.methods.holitom.config import InnerConfig, OuterConfig
from holitom.methods.holitom.inner import merging_stage
from holitom.methods.holitom.outer import OuterCompression
from holitom.methods.holitom.temporal_merging import adjusted_ratio
from holitom.methods.holitom.tower import StillFrameMerging, spread
from holitom.methods.holitom.tower_config import TowerConfig
from holitom.tokens import CompressedTokens


@register(
    "holitom",
    MethodFacts(
        "HoliTom",
        "HoliTom",
        ("#0072B2", "o", "solid"),
        share_settings=lambda share, _: [f"outer.retain_ratio={share}"],
        share=lambda settings: None if settings.outer is None else settings.outer.retain_ratio,
        threshold="a token is static over a pair above it",
    ),
    without_inner=MethodFacts("HoliTom, outer stage", "HoliTom (w/o M)", ("#D55E00", "s", "solid")),
)
@dataclass(frozen=True)
class HolitomConfig:
    """Both stages, or one of them.

    Attributes:
        outer: before the LLM; None leaves it out.
        inner: inside the LLM; None is the paper's "w/o M".
        tower: an extension that is not in the paper: merging of still frames inside the vision tower; None, the
            default, is the paper's method.
    """

    outer: OuterConfig | None = field(default_factory=OuterConfig)
    inner: InnerConfig | None = field(default_factory=InnerConfig)
    tower: TowerConfig | None = None

    def __post_init__(self) -> None:
        if self.outer is None and self.inner is None:
            raise InputError("outer and inner are both null: give at least one stage, or run without a compressor")
        if self.outer is None and self.tower is not None:
            raise InputError("tower is set while outer is null: merged frames need the outer stage; set tower to null")

    def build(self) -> Compressor:
        """A compressor with these settings, applied to no model yet."""
        outer = HolitomOuter(self.outer) if self.outer is not None else None
        inner = merging_stage(self.inner) if self.inner is not None else None
        tower = None if self.tower is None else FrameMerging(self.tower.layers, StillFrameMerging(self.tower))
        return Compressor(outer, inner, tower)


class HolitomOuter:
    """HoliTom's outer stage as the compressor calls it; the work is done in :mod:`~holitom.methods.holitom.outer`."""

    question_free = True
    signals: tuple[str, ...] = ("received_attention",)
    keeps_positions = False
    checks_features = True

    def __init__(self, config: OuterConfig) -> None:
        self.compress = OuterCompression(config)

    def __call__(self, video: EncodedVideo) -> CompressedTokens:
        """Segment, merge and select the tokens of one video."""
        received, merges = video.pooled("received_attention"), video.merges
        if merges is None:
            return self.compress(video.features, received, video.order)
        config, merged = self.compress.config, merges.merged_frames
        ratio = adjusted_ratio(config.retain_ratio, merges.frames, merges.frames - merged)
        stage = OuterCompression(replace(config, retain_ratio=ratio))
        return spread(stage(video.features, received, video.order), merges, ratio)

    def most_kept(self, frames: int, tokens_per_frame: int) -> int:
        """Most tokens the budget allows."""
        return self.compress.most_kept(frames, tokens_per_frame)
