"""What every configuration of the paper's tables makes of a prompt of a checkpoint's size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from eval.efficiency.flops.sizes import ModelSizes, sizes_of
from eval.instruments.answering import inner_stages
from eval.paper.config_names import paper_methods
from eval.paper.formula import outer_tokens
from holitom.compressor import Compressor
from holitom.hooks.decoder.rules import DecoderStage, stage_counts
from holitom.settings import RunConfig, load_config
from holitom.shipped import CONFIGS
from llava.model.newlines import count_newlines

TEXT_BEFORE, TEXT_BEHIND = 20, 60  # about a question with four choices in Qwen's chat template


@dataclass(frozen=True)
class Plan:
    """What one configuration makes of the prompt.

    Attributes:
        sizes: of the checkpoint.
        name: of the configuration.
        config: the configuration.
        compressor: built from it, applied to no model; None compresses nothing.
        visual: visual tokens that reach the language model, by the paper's count.
        newlines: newline tokens that stand among them.
        text: text tokens before and behind the video.
        spans: tokens of the video, newlines included, before the first stage and from each stage on.
        stages: the stages inside the language model.
        tower_frames: frames that each layer of the tower sees; where a method merges frames there, of a video of which
            it merges most.
    """

    sizes: ModelSizes
    name: str
    config: RunConfig
    compressor: Compressor | None
    visual: int
    newlines: int
    text: tuple[int, int]
    spans: tuple[int, ...]
    stages: tuple[DecoderStage, ...]
    tower_frames: tuple[int, ...]

    @property
    def lengths(self) -> list[int]:
        """Tokens that each layer of the language model sees in the prefill, all kinds counted."""
        text = sum(self.text)
        lengths = [text + self.spans[0]] * self.sizes.layers
        for stage, span in zip(self.stages, self.spans[1:], strict=True):
            lengths[stage.layer :] = [text + span] * (self.sizes.layers - stage.layer)
        return lengths

    @property
    def tokens(self) -> dict[str, int]:
        """Counts for the record: of the prompt, and of the video (newlines included) before and behind the stages."""
        return {
            "text": sum(self.text),
            "visual": self.visual,
            "newlines": self.newlines,
            "before_llm": self.spans[0],
            "after_inner": self.spans[-1],
            "prompt": sum(self.text) + self.spans[0],
        }


def spread_index(sizes: ModelSizes, visual: int) -> torch.Tensor:
    """Places of ``visual`` tokens spread evenly over the frames and over each frame, (visual,) int64 on the CPU.

    Where newline tokens follow the rows of a frame their number depends on which tokens are left. Spread like this no
    row is empty as long as a frame keeps one token for each: the most newlines that compression can leave.
    """
    kept = visual // sizes.frames
    places = torch.arange(kept) * sizes.tokens_per_frame // max(kept, 1)
    return (torch.arange(sizes.frames)[:, None] * sizes.tokens_per_frame + places).flatten()


def _newlines(sizes: ModelSizes, visual: int) -> int:
    if sizes.newline_mode != "grid":
        return count_newlines(sizes.frames, sizes.newline_mode, sizes.tokens_per_frame)
    rows = spread_index(sizes, visual) // int(sizes.tokens_per_frame**0.5)
    return len(rows.unique())


def make_plan(
    sizes: ModelSizes, name: str, config: RunConfig, retained: int, text: tuple[int, int] = (TEXT_BEFORE, TEXT_BEHIND)
) -> Plan:
    """What a configuration makes of a video of the checkpoint's size.

    Args:
        sizes: of the checkpoint.
        name: of the configuration.
        config: the configuration.
        retained: share of the visual tokens that reaches the language model as the paper counts it, in percent.
        text: text tokens before and behind the video.
    """
    compressor = config.build()
    visual = outer_tokens(sizes.paper, retained / 100)
    nominal = getattr(compressor.outer, "nominal", None) if compressor is not None else None
    if nominal is not None:
        visual = nominal(sizes.frames, sizes.tokens_per_frame)
    newlines = _newlines(sizes, visual)
    stages = inner_stages(compressor)
    span = visual + newlines
    later = stage_counts(stages, (((text[0], text[0] + span),),))
    spans = (span, *(counts[0][0] for counts in later))
    tower = compressor.tower if compressor is not None else None
    merged = tower.nominal_frames(sizes.frames, sizes.tower_layers) if tower is not None else None
    frames = tuple(merged or [sizes.frames] * sizes.tower_layers)
    return Plan(sizes, name, config, compressor, visual, newlines, text, spans, stages, frames)


def _row(path: Path) -> tuple[str, int]:
    """Method and retained percent of a file; file names are those of the table's rows."""
    method, _, retained = path.stem.partition("_r")
    return method, int(retained or 100)


def plans_of(
    name: str, text: tuple[int, int] = (TEXT_BEFORE, TEXT_BEHIND), methods: Sequence[str] | None = None
) -> list[Plan]:
    """Plans of all rows of the paper's tables that ``configs/`` holds for a checkpoint, in the order of the tables.

    Args:
        name: one of :data:`CHECKPOINTS`.
        text: text tokens before and behind the video.
        methods: whose rows, in this order; those of the paper's tables unless given, the others have no nominal count.
    """
    methods = paper_methods() if methods is None else methods
    files = [path for path in (CONFIGS / name.replace("-", "_")).glob("*.yaml") if path.stem.split("_r")[0] in methods]
    files.sort(key=lambda path: (methods.index(_row(path)[0]), -_row(path)[1]))
    return [make_plan(sizes_of(name), path.stem, load_config(path), _row(path)[1], text) for path in files]


def newer_methods(name: str) -> list[str]:
    """Methods with rows for a checkpoint outside the paper's tables whose work has a nominal size, by name.

    That is a count of tokens of their own, or frames that merge in the tower, of which settings bound how many.
    """
    found: list[str] = []
    for path in sorted((CONFIGS / name.replace("-", "_")).glob("*.yaml")):
        method, compressor = _row(path)[0], load_config(path).build()
        sized = compressor is not None and (hasattr(compressor.outer, "nominal") or compressor.tower is not None)
        if method not in (*paper_methods(), *found) and sized:
            found.append(method)
    return found
