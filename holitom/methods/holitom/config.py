"""Settings of HoliTom's two stages, as frozen dataclasses; every default of theirs lives here and nowhere else."""

from dataclasses import dataclass
from typing import Literal

from holitom.checks import require_flag, require_integer, require_one_of, require_retain_ratio, require_within

MergeRule = Literal["sequential", "mean"]
SegmentationRule = Literal["global", "greedy", "fixed"]
StaticRule = Literal["clusters", "attention"]
PAPER_LAYER, PAPER_LAYERS = 18, 28  # K of the paper, in LLaVA-OneVision-7B


@dataclass(frozen=True)
class OuterConfig:
    """Outer-LLM stage: segmentation, temporal merging and spatial merging (HoliTom, Sec. 3.1 and 3.2).

    Attributes:
        retain_ratio: share of the visual tokens of a video that reaches the LLM, in (0, 1].
        similarity_threshold: cosine similarity above which a token stands still between two frames (tau).
        center_weight: weight of a cluster's centre when static tokens are merged (beta of the release).
        neighbors: neighbours of the density estimate of DPC-KNN (K of the release).
        segmentation: ``"global"`` is the method: the cuts that make most tokens redundant. For the ablation:
            ``"greedy"`` cuts from the start, each time where that segment saves most; ``"fixed"`` cuts every
            ``max_segment_frames`` frames.
        max_segment_frames: longest segment in frames.
        static_rule: ``"clusters"`` is the method: static tokens are merged into clusters. For the ablation,
            ``"attention"`` keeps those that receive most attention and drops the others.
        contextual_ratio: share of the kept dynamic tokens that are cluster centres instead of selected ones (D); 1
            clusters all of them, which is the ablation's counterpart.
        plain_mean: merge clusters by their plain mean, centre included (``NO_BETA`` of the release).
    """

    retain_ratio: float = 0.15
    similarity_threshold: float = 0.80
    center_weight: float = 0.6
    neighbors: int = 7
    segmentation: SegmentationRule = "global"
    max_segment_frames: int = 1024
    static_rule: StaticRule = "clusters"
    contextual_ratio: float = 0.0
    plain_mean: bool = False

    def __post_init__(self) -> None:
        require_retain_ratio(self.retain_ratio)
        tau, weight, share = self.similarity_threshold, self.center_weight, self.contextual_ratio
        require_within("similarity_threshold", tau, "[-1, 1]", "the paper uses 0.80, and 0.65 at 10 %")
        require_within("center_weight", weight, "[0, 1]", "the release uses 0.6")
        require_integer("neighbors", self.neighbors, 1, "the release uses 7")
        require_one_of("segmentation", self.segmentation, SegmentationRule, "the paper uses global")
        require_one_of("static_rule", self.static_rule, StaticRule, "the paper uses clusters")
        require_integer("max_segment_frames", self.max_segment_frames, 1, "the release uses 1024")
        require_within("contextual_ratio", share, "[0, 1]", "the paper uses 0")
        require_flag("plain_mean", self.plain_mean, "the release uses false")


@dataclass(frozen=True)
class InnerConfig:
    """Inner-LLM stage: merging inside the decoder (HoliTom, Sec. 3.3).

    Attributes:
        merge_layer: index K of the first decoder layer that sees the shorter sequence; at least 1. None is as deep in
            the model as the paper's 18 of 28 layers (see :meth:`layer_in`).
        merge_ratio: share of the tokens of a video span that is merged away, in [0, 1); 0 leaves the model as it is.
        merge_rule: ``"sequential"`` averages pairwise in order, which the paper's table was made with;
            ``"mean"`` takes the mean of the whole group, which the paper describes.
        causal: keep layer K-1 causal. False reproduces the release, whose layer K-1 runs without a causal mask.
    """

    merge_layer: int | None = None
    merge_ratio: float = 0.5
    merge_rule: MergeRule = "sequential"
    causal: bool = True

    def __post_init__(self) -> None:
        if self.merge_layer is not None:
            remedy = "the paper uses 18 of 28 layers, null is as deep in any model"
            require_integer("merge_layer", self.merge_layer, 1, remedy)
        require_within("merge_ratio", self.merge_ratio, "[0, 1)", "the paper uses 0.5")
        require_one_of("merge_rule", self.merge_rule, MergeRule, "the default is sequential")
        require_flag("causal", self.causal, "the default is true")

    def layer_in(self, layers: int) -> int:
        """``merge_layer``, or what stands for it in a decoder of so many layers: 18 of 28, 15 of 24, 5 of 8."""
        return max(1, round(layers * PAPER_LAYER / PAPER_LAYERS)) if self.merge_layer is None else self.merge_layer
