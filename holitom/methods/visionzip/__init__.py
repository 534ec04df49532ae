"""VisionZip (arXiv 2412.04467), per frame: the most attended tokens, and a few that stand for all the others.

Stage: before the LLM, after projector and pooling, in the variant that video papers compare with. Scores and keys come
from the tower's last layer and are pooled like the features; SigLIP has no CLS token, so the score is the attention a
patch receives from all patches. Each frame keeps ``tokens_per_frame`` tokens, 54 of 64 of them dominant: 50, 40, 30 and
20 tokens in the rows of 25, 20, 15 and 10 % (50, not 49, of 196). Order: every frame's dominant tokens in raster order,
then its contextual ones; positions are contiguous. Where newlines need raster order, each frame is sorted; in a grid a
newline follows every row, also one that keeps no token, as in the released code. The release then
pairs tokens in raster order with positions in the order of attention, so that rows move within a frame; here a token
keeps its row, unless ``attention_positions`` asks for the release's pairs.

A contextual token is the mean of its target and the tokens that join it. The released code adds the mean of those
tokens to the target, which makes it up to twice as long as a normal token; ``contextual_sum`` does the same, and the
files for the table's rows set it, since the published numbers were made so. The released code serves one video per
request; here every video gets what it would get alone.
"""

from dataclasses import dataclass

import torch

from holitom.checks import require_flag, require_integer, require_within
from holitom.compressor import Compressor
from holitom.encoded_video import EncodedVideo
from holitom.methods import MethodFacts, register
from holitom.methods.visionzip.dominant_contextual import dominant_and_contextual, split_budget
from holitom.ops.selection import PlainDetails, check_finite
from holitom.tokens import CompressedTokens, TokenKind

ROWS = {50: 0.25, 40: 0.2, 30: 0.15, 20: 0.1}  # tokens of 196 per frame -> the row of the table


@register(
    "visionzip",
    MethodFacts(
        "VisionZip",
        "VisionZip",
        ("#009E73", "D", "solid"),
        share_settings=lambda share, tokens: [f"tokens_per_frame={max(2, round(share * tokens))}"],
        share=lambda settings: ROWS.get(settings.tokens_per_frame),
    ),
)
@dataclass(frozen=True)
class VisionzipConfig:
    """Settings of VisionZip.

    Attributes:
        tokens_per_frame: tokens that each frame keeps, at least 1; frames that have no more keep all.
        dominant_share: share of them kept unchanged, in [0, 1]; the count is rounded down.
        contextual_sum: contextual tokens are a target plus the mean of its members (the release), not their mean.
        attention_positions: where newlines need raster order, a frame's dominant tokens, in raster order, get their
            positions in the order of attention (the release), not their own. It changes nothing elsewhere.
    """

    tokens_per_frame: int = 30
    dominant_share: float = 0.84375
    contextual_sum: bool = False
    attention_positions: bool = False

    def __post_init__(self) -> None:
        require_integer("tokens_per_frame", self.tokens_per_frame, 1, "the table's rows use 50, 40, 30 and 20 of 196")
        require_within("dominant_share", self.dominant_share, "[0, 1]", "the paper uses 54 / 64 = 0.84375")
        for name in ("contextual_sum", "attention_positions"):
            require_flag(name, getattr(self, name), "the release uses true")

    def build(self) -> Compressor:
        """A compressor with these settings, applied to no model yet."""
        return Compressor(VisionzipOuter(self), None)


class VisionzipOuter:
    """VisionZip on the pooled tokens of one video."""

    question_free = True
    signals: tuple[str, ...] = ("received_attention", "key_metric")
    keeps_positions = False
    checks_features = True

    def __init__(self, config: VisionzipConfig) -> None:
        self.config = config

    @torch.no_grad()
    def __call__(self, video: EncodedVideo) -> CompressedTokens:
        """Keep and merge the tokens of every frame by its own attention and keys."""
        features, attention, keys = video.features, video.pooled("received_attention"), video.pooled("key_metric")
        check_finite(features=features, received_attention=attention, key_metric=keys)
        frames, tokens, _ = features.shape
        counts = split_budget(tokens, self.config.tokens_per_frame, self.config.dominant_share)
        kept = dominant_and_contextual(features, attention, keys, *counts, mean=not self.config.contextual_sum)
        per_frame = kept.positions.shape[1]
        starts = torch.arange(frames, device=features.device)[:, None]
        index, flat = (starts * tokens + kept.positions).flatten(), kept.features.flatten(0, 1)
        source = torch.where(kept.owner < 0, -1, starts * per_frame + kept.owner)
        placed = index
        if video.order == "raster":
            if self.config.attention_positions:
                ranked = attention.argsort(dim=1, descending=True, stable=True)[:, : counts[0]]
                placed = (starts * tokens + torch.cat([ranked, kept.positions[:, counts[0] :]], 1)).flatten()
            order = placed.argsort()  # no two are equal
            placed, flat = placed[order], flat[order]
            source = torch.where(source < 0, -1, order.argsort()[source])
        kinds = torch.where(kept.owner < 0, TokenKind.DYNAMIC_DROPPED.value, TokenKind.CONTEXTUAL_MERGED.value)
        kinds.view(-1).index_fill_(0, index, TokenKind.CONTEXTUAL_CENTER.value)
        kinds.masked_fill_(kept.dominant, TokenKind.DYNAMIC_KEPT.value)
        details = PlainDetails(frames, tokens, [(0, frames - 1)], source, kinds)
        return CompressedTokens(flat, placed, details, every_row=True)

    def most_kept(self, frames: int, tokens_per_frame: int) -> int:
        """Tokens a video of this size is compressed to, exactly."""
        return frames * min(tokens_per_frame, self.config.tokens_per_frame)
