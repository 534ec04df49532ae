"""EarlyTom: token compression that begins in the vision tower (CVPR 2026, arXiv 2605.30010).

Stages: behind three layers of the tower similar frames are merged, so that the layers after them run on fewer. After
the projector and the pooling every frame that is left keeps its most attended tokens: those of the first and last frame
of a group are the best of the frame, those of the frames between the best of equally long windows. Inside the LLM
HoliTom's inner stage follows, at its layer 18.

The attention a token receives is that of the last tower layer behind which frames are merged. If so many frames are
gone that all tokens of the others fit the budget, all are kept.

The release sets the threshold and the tower layers per benchmark *and* ratio, and its published numbers are those.
The default is one setting for everything, that of the release's own example at 20 %: threshold 0.5, layers 8, 21, 23.
``benchmark`` takes the published ones instead (:data:`PUBLISHED`). ``keep_last_middle`` gives back the frame that the
release loses: of a segment's frames between its first and last, the last one is dropped without being merged into
another. That is surely a slip, but the numbers were measured with it, so it is the default.

Where this differs from the release: similarities are float32, exactly 1 for equal frames; only videos are merged, not
the tiles of an image; grid newlines follow every row that holds a token; several videos and batches are served.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from holitom.checks import (
    require,
    require_flag,
    require_integer,
    require_retain_ratio,
    require_within,
)
from holitom.compressor import Compressor
from holitom.encoded_video import EncodedVideo, FrameMerges
from holitom.hooks.tower.frame_merging import FrameMerging, require_tower_layers
from holitom.methods import MethodFacts, register
from holitom.methods.earlytom.frame_merging import (
    FramePlan,
    MergeRule,
    Similarity,
    fetch_similarities,
    merge_frames,
    plan_frames,
    stream_segments,
)
from holitom.methods.earlytom.selection import ratio_after_merging, select_tokens
from holitom.methods.holitom.config import InnerConfig
from holitom.methods.holitom.inner import merging_stage
from holitom.ops.selection import PlainDetails, check_finite
from holitom.tokens import CompressedTokens, TokenKind

# Benchmark, then ratio: threshold and tower layers of the published numbers on LLaVA-OneVision-7B.
PUBLISHED: dict[str, dict[float, tuple[float, tuple[int, ...]]]] = {
    "mvbench": {0.25: (0.8, (6, 14, 20)), 0.2: (0.8, (6, 14, 20)), 0.15: (0.8, (6, 14, 20)), 0.1: (0.65, (8, 14, 20))},
    "egoschema": {
        0.25: (0.7, (10, 21, 23)),
        0.2: (0.6, (10, 21, 23)),
        0.15: (0.5, (10, 21, 23)),
        0.1: (0.3, (10, 21, 23)),
    },
    "longvideobench": {
        0.25: (0.8, (4, 14, 24)),
        0.2: (0.6, (10, 21, 23)),
        0.15: (0.5, (10, 21, 23)),
        0.1: (0.3, (10, 21, 23)),
    },
    "videomme": {
        0.25: (0.7, (10, 21, 23)),
        0.2: (0.5, (8, 21, 23)),
        0.15: (0.4, (8, 21, 23)),
        0.1: (0.3, (10, 21, 23)),
    },
}


@register("earlytom", MethodFacts("EarlyTom"))
@dataclass(frozen=True)
class EarlyTomConfig:
    """Settings of EarlyTom.

    Attributes:
        retain_ratio: share of the tokens of a video that reaches the LLM, in (0, 1].
        similarity_threshold: frames whose smoothed similarity to the first of their segment is lower begin another
            (tau).
        tower_layers: indices of the tower layers behind which frames are merged, ascending, at least one.
        max_frames: a segment has fewer frames than this (M).
        smoothing: weight of a frame's own similarity against the smoothed one before, in (0, 1] (gamma).
        keep_last_middle: keep the frame of a segment that the release loses.
        benchmark: take threshold and tower layers of the published numbers of this benchmark at ``retain_ratio``; one
            of mvbench, egoschema, longvideobench and videomme, or null.
        inner: HoliTom's stage inside the LLM; null leaves it out.
    """

    retain_ratio: float = 0.15
    similarity_threshold: float = 0.5
    tower_layers: list[int] = field(default_factory=lambda: [8, 21, 23])
    max_frames: int = 6
    smoothing: float = 0.9
    keep_last_middle: bool = False
    benchmark: str | None = None
    inner: InnerConfig | None = field(default_factory=InnerConfig)

    def __post_init__(self) -> None:
        require_retain_ratio(self.retain_ratio)
        require_within("similarity_threshold", self.similarity_threshold, "[-1, 1]", "the release uses 0.3 to 0.8")
        require_tower_layers("tower_layers", self.tower_layers, [8, 21, 23])
        require_integer("max_frames", self.max_frames, 2, "the release uses 6")
        require_within("smoothing", self.smoothing, "(0, 1]", "the release uses 0.9")
        require_flag("keep_last_middle", self.keep_last_middle, "the release's is false")
        if self.benchmark is not None:
            known = PUBLISHED.get(self.benchmark) if isinstance(self.benchmark, str) else None
            names = f"one of {', '.join(PUBLISHED)}"
            require(known is not None, "benchmark", self.benchmark, names, "null uses the settings beside it")
            published = known is not None and self.retain_ratio in known
            shares = "0.25, 0.2, 0.15 or 0.1 where a benchmark is named"
            require(published, "retain_ratio", self.retain_ratio, shares, "null as benchmark allows others")

    def published(self) -> tuple[float, tuple[int, ...]]:
        """Threshold and tower layers in use."""
        if self.benchmark is None:
            return self.similarity_threshold, tuple(self.tower_layers)
        return PUBLISHED[self.benchmark][self.retain_ratio]

    def build(self) -> Compressor:
        """A compressor with these settings, applied to no model yet."""
        threshold, layers = self.published()
        rule = MergeRule(threshold, self.max_frames, self.smoothing, self.keep_last_middle)
        tower = FrameMerging(layers, EarlyTomMerging(rule))
        inner = None if self.inner is None else merging_stage(self.inner)
        return Compressor(EarlyTomOuter(self.retain_ratio), inner, tower)


class EarlyTomMerging:
    """EarlyTom's rules inside the tower as its hooks call them.

    Args:
        rule: the settings.
        similarity: of an earlier and a later frame, whatever their states; None asks the states.
    """

    reads_attention = True

    def __init__(self, rule: MergeRule, similarity: Similarity | None = None) -> None:
        self.rule = rule
        self._similarity = similarity

    def nominal(self) -> "EarlyTomMerging":
        """The same rules where frames are as alike as it takes to merge most: 32 become 20, 12 and 8."""
        return EarlyTomMerging(self.rule, lambda earlier, later: 1 - 1e-6 * (earlier if later == earlier + 1 else 1e3))

    def _asked(self, states: Tensor) -> Similarity:
        return self._similarity or fetch_similarities(states, self.rule.max_frames)

    def plan(self, states: Tensor) -> FramePlan:
        """Segments of similar frames, and what goes on of each; one transfer to the host."""
        return plan_frames(len(states), self._asked(states), self.rule)

    def merge(self, values: Tensor, plan: FramePlan) -> Tensor:
        """The frames that go on."""
        return merge_frames(values, plan)

    def target(self, plan: FramePlan, frames: int) -> list[int]:
        """Where each frame went."""
        return plan.target(frames)

    def groups(self, states: Tensor) -> list[tuple[int, int]]:
        """Segments of the frames that are left; one transfer to the host."""
        return stream_segments(len(states), self._asked(states), self.rule)


@dataclass(frozen=True)
class EarlyTomDetails(PlainDetails):
    """Details of one video; its segments are those of the merged frames, spread over the video.

    Attributes:
        merges: what happened to its frames inside the tower.
        ratio_after_merging: share of the tokens of the merged frames that is kept.
    """

    merges: FrameMerges
    ratio_after_merging: float


class EarlyTomOuter:
    """EarlyTom's selection of tokens as the compressor calls it."""

    checks_features = True
    question_free = True
    signals: tuple[str, ...] = ()
    keeps_positions = False

    def __init__(self, retain_ratio: float) -> None:
        self.retain_ratio = retain_ratio

    @torch.no_grad()
    def __call__(self, video: EncodedVideo) -> CompressedTokens:
        """Select tokens of the merged frames.

        Raises:
            InputError: if features or attention are not finite.
            RuntimeError: if the video did not pass through a tower with EarlyTom's stage.
        """
        merges, features = video.merges, video.features
        if merges is None:
            raise RuntimeError("EarlyTom selects tokens of frames that its own stage merged inside the tower")
        assert merges.received_attention is not None
        received = video.pooled_values(merges.received_attention)
        check_finite(features=features, received_attention=received)
        ratio = ratio_after_merging(self.retain_ratio, merges.frames, merges.merged_frames)
        chosen = select_tokens(received, merges.groups, ratio)
        return _compressed(features, chosen, merges, ratio)

    def preference(self, video: EncodedVideo, kept: CompressedTokens) -> Tensor:
        """The attention each token of the merged frames receives where they merged; see :mod:`holitom.budget`."""
        assert video.merges is not None
        assert video.merges.received_attention is not None
        return video.pooled_values(video.merges.received_attention)

    def most_kept(self, frames: int, tokens_per_frame: int) -> int:
        """Most tokens the budget allows: every frame may round up."""
        return min(frames * tokens_per_frame, int(frames * tokens_per_frame * self.retain_ratio) + frames)


def _compressed(features: Tensor, chosen: Tensor, merges: FrameMerges, ratio: float) -> CompressedTokens:
    """The chosen tokens, at the places of the first frame in each merged one, and what became of every token."""
    tokens, device = features.shape[1], features.device
    row = torch.full((merges.merged_frames + 1, tokens), -1, device=device)
    row.view(-1)[chosen] = torch.arange(len(chosen), device=device)
    first, target = (torch.tensor(frames, device=device) for frames in (merges.representatives, merges.targets[-1]))
    source = row[target]  # lost frames are -1: the extra row
    index = first[chosen // tokens] * tokens + chosen % tokens
    kinds = torch.where(source < 0, TokenKind.DYNAMIC_DROPPED.value, TokenKind.CONTEXTUAL_MERGED.value)
    kinds.view(-1)[index] = TokenKind.CONTEXTUAL_CENTER.value
    alone = torch.bincount(target[target >= 0], minlength=merges.merged_frames) == 1
    unchanged = alone[chosen // tokens]
    kinds.view(-1)[index[unchanged]] = TokenKind.DYNAMIC_KEPT.value
    details = EarlyTomDetails(merges.frames, tokens, merges.over_video(merges.groups), source, kinds, merges, ratio)
    return CompressedTokens(features.flatten(0, 1).index_select(0, chosen), index, details)
