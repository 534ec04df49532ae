"""What a prompt went through: the tokens of its videos, and what was done to them inside the LLM."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from holitom.errors import InputError
from holitom.hooks.decoder.inner_record import InnerRecord
from holitom.record.file import load_record, write_saved
from holitom.record.saved import DROPPED, NEWLINE, SavedRecord, SavedStage, SavedVideo, as_segments, thumbnails
from holitom.tokens import CompressedTokens, FrameMerges, newlines_before

__all__ = ["Record", "load_record", "save_record"]


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
        row, places = self._places(video)
        kept = torch.zeros(self.inner.cpu_source.shape[1] + 1, dtype=torch.bool)
        kept[positions[row].cpu()] = True  # padding is -1: the extra entry
        return kept[places]

    def _places(self, video: int) -> tuple[int, Tensor]:
        """Row of the batch, and position in it of every token of one video that reached the LLM, (kept,) on the CPU."""
        assert self.inner is not None
        tokens = self.videos[video]
        if tokens.index.shape[0] == 0:
            return 0, torch.zeros(0, dtype=torch.long)
        # a video of which nothing is left, not even a newline, has no span
        spanless = [v.index.shape[0] == 0 and not v.every_row for v in self.videos[:video]]
        empty = sum(spanless) if self.newline_mode != "one_token" else 0
        row, span = [(row, span) for row, spans in enumerate(self.inner.spans) for span in spans][video - empty]
        rows = torch.arange(tokens.index.shape[0], device=tokens.index.device)
        per_frame, every_row = tokens.details.tokens_per_frame, tokens.every_row
        before = newlines_before(tokens.index, self.newline_mode, per_frame, every_row)
        places = (rows + before + span[0]).cpu()
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

    def saved(
        self,
        frames: Sequence[np.ndarray] | None = None,
        times: Sequence[Sequence[float]] | None = None,
        size: int = 320,
        **meta: Any,
    ) -> SavedRecord:
        """A copy in host memory, from which pictures are drawn; see :mod:`holitom.views`.

        Args:
            frames: per video, its sampled frames, uint8 RGB (frames, height, width, 3); kept as small JPEGs.
            times: per video, seconds of those frames.
            size: pixels of the longer side of the JPEGs.
            **meta: what else to keep: ``method``, ``config``, ``video``, ``question``, ``answer``, ``commit``.

        Raises:
            InputError: if frames or times are not those of the videos.
        """
        count = len(self.videos)
        for name, given in (("frames", frames), ("times", times)):
            if given is not None and len(given) != count:
                raise InputError(f"{name} are given for {len(given)} videos, the record has {count}")
        videos = [
            self._saved_video(
                number,
                () if frames is None else thumbnails(frames[number], size),
                None if times is None else np.asarray(times[number], dtype=np.float64),
            )
            for number in range(count)
        ]
        return SavedRecord(tuple(videos), meta)

    def _saved_video(self, number: int, pictures: tuple[bytes, ...], times: np.ndarray | None) -> SavedVideo:
        tokens = self.videos[number]
        details, seen = tokens.details, tokens.observed
        similarity = seen.similarity if seen is not None else getattr(details, "similarity", None)
        merges: FrameMerges | None = getattr(details, "merges", None)
        return SavedVideo(
            kinds=details.token_kinds().cpu().numpy().astype(np.int8),
            source_map=details.source_map().cpu().numpy(),
            index=tokens.index.cpu().numpy(),
            segments=as_segments(details.segments),
            stages=tuple(self._saved_stages(number)),
            received_attention=None if seen is None else seen.received_attention.float().cpu().numpy(),
            similarity=None if similarity is None else similarity.float().cpu().numpy(),
            times=times,
            thumbnails=pictures,
            tower_layers=None if merges is None else np.asarray(merges.layers),
            frame_targets=None if merges is None else np.asarray(merges.targets),
        )

    def _saved_stages(self, video: int) -> Iterator[SavedStage]:
        """What each stage inside the LLM did with the tokens of one video, by rows instead of positions."""
        stages = self.inner.stages if self.inner is not None else ()
        if not stages:
            return
        assert self.inner is not None
        row, places = self._places(video)
        seq = self.inner.source.shape[1]
        row_at = np.full(seq + 1, NEWLINE)  # any other token of the span is a newline; -1 is the extra entry
        row_at[places.numpy()], row_at[-1] = np.arange(len(places)), DROPPED
        entering = np.arange(seq)
        for stage in stages:
            scores = np.full(seq + 1, np.nan, dtype=np.float32)
            scores[entering] = stage.scores[row].float().cpu().numpy()
            scores[-1] = np.nan
            source = row_at[stage.source[row].cpu().numpy()[places.numpy()]]
            entering = stage.kept[row].cpu().numpy()
            yield SavedStage(stage.layer, source == np.arange(len(places)), source, scores[places.numpy()])


def save_record(record: Record | SavedRecord, path: str | os.PathLike[str], **meta: Any) -> None:
    """Write what a prompt went through as one ``.npz`` file, readable without a model (:func:`load_record`).

    Args:
        record: a compressor's record, or a copy of it (:meth:`Record.saved`) with pictures and times.
        path: ending in ``.npz``; its folder is made. The file is there as a whole or not at all.
        **meta: added to the record's meta.

    Raises:
        InputError: for another ending, a meta that is no JSON, or a path that cannot be written.
    """
    copy = record.saved() if isinstance(record, Record) else record
    write_saved(SavedRecord(copy.videos, {**copy.meta, **meta}), path)
