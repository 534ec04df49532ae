"""What a prompt went through: the tokens of its videos, and what was done to them inside the LLM."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from holitom.encoded_video import FrameMerges
from holitom.hooks.decoder.inner_record import InnerRecord, places_in_span
from holitom.tokens import CompressedTokens


@dataclass
class Record:
    """What the latest prompt (or batch of prompts) went through.

    Attributes:
        videos: the tokens of each video that reached the LLM, in prompt order; all of them without an outer stage.
        inner: the inner stage's result, or None.
        newline_mode: how newline tokens stand among them.
    """

    videos: list[CompressedTokens] = field(default_factory=list)
    inner: InnerRecord | None = None
    newline_mode: str = "one_token"

    @property
    def tokens_before(self) -> list[int]:
        """Visual tokens per video before compression, newlines not counted."""
        return [video.details.frames * video.details.tokens_per_frame for video in self.videos]

    @property
    def tokens_after_outer(self) -> list[int]:
        """The same after the outer stage."""
        return [video.index.shape[0] for video in self.videos]

    @property
    def retained_before_llm(self) -> float:
        """Share of the videos' tokens that reached the LLM; 1 where there was none."""
        before = sum(self.tokens_before)
        return sum(self.tokens_after_outer) / before if before else 1.0

    def tokens_per_layer(self, layers: int, video: int = 0) -> list[int]:
        """Tokens of one video that each of ``layers`` decoder layers computes in the prefill; newlines do not count."""
        counts = [self.tokens_after_outer[video]] * layers
        for stage in self.inner.stages if self.inner is not None else ():
            counts[stage.layer :] = [int(self._rows_among(stage.kept, video).sum())] * (layers - stage.layer)
        return counts

    def frames_per_tower_layer(self, layers: int, video: int = 0) -> list[int]:
        """Frames of one video that each of ``layers`` tower layers computed; fewer where frames were merged there."""
        details = self.videos[video].details
        merges: FrameMerges | None = getattr(details, "merges", None)
        return [details.frames] * layers if merges is None else merges.frames_per_layer(layers)

    def rows_kept_inside(self, video: int = 0) -> Tensor | None:
        """Which tokens of one video that reached the LLM its inner stage kept, (kept,) bool on the CPU.

        Newline tokens are not among them, though they may be kept or merged like others. None without an inner stage.
        """
        return None if self.inner is None else self._rows_among(self.inner.cpu_kept, video)

    def _rows_among(self, positions: Tensor, video: int) -> Tensor:
        """Which tokens of one video stand at ``positions`` of the prompt, (batch, short_seq) with -1 for padding."""
        assert self.inner is not None
        row, places = self.places(video)
        kept = torch.zeros(self.inner.cpu_source.shape[1] + 1, dtype=torch.bool)
        kept[positions[row].cpu()] = True  # padding is -1: the extra entry
        return kept[places]

    def places(self, video: int) -> tuple[int, Tensor]:
        """Row of the batch, and position in it of every token of one video that reached the LLM, (kept,) on the CPU."""
        assert self.inner is not None
        tokens = self.videos[video]
        if tokens.index.shape[0] == 0:
            return 0, torch.zeros(0, dtype=torch.long)
        # a video of which nothing is left, not even a newline, has no span
        spanless = [v.index.shape[0] == 0 and not v.every_row for v in self.videos[:video]]
        empty = sum(spanless) if self.newline_mode != "one_token" else 0
        row, span = [(row, span) for row, spans in enumerate(self.inner.spans) for span in spans][video - empty]
        places = (places_in_span(tokens, self.newline_mode) + span[0]).cpu()
        return row, places if self.inner.order is None else self.inner.order[row].cpu()[places]

    def kept_inside(self, video: int = 0) -> Tensor | None:
        """Original tokens of one video whose output token the inner stage kept, (frames, tokens) bool on the CPU.

        None without an inner stage.
        """
        rows = self.rows_kept_inside(video)
        if rows is None:
            return None
        survives = torch.cat([rows, torch.tensor([False])])  # dropped tokens are -1: the extra entry
        return survives[self.videos[video].details.source_map().cpu()]
