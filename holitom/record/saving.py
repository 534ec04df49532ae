"""From what a prompt went through to a copy in host memory, and to a file that is read without a model."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from holitom.encoded_video import FrameMerges
from holitom.errors import InputError
from holitom.record.file import write_saved
from holitom.record.prompt import Record
from holitom.record.saved import DROPPED, NEWLINE, SavedRecord, SavedStage, SavedVideo, as_segments, thumbnails


def saved_copy(
    record: Record,
    frames: Sequence[np.ndarray] | None = None,
    times: Sequence[Sequence[float]] | None = None,
    size: int = 320,
    **meta: Any,
) -> SavedRecord:
    """A copy of a compressor's record in host memory, from which pictures are drawn; see :mod:`holitom.views`.

    Args:
        record: what a prompt went through.
        frames: per video, its sampled frames, uint8 RGB (frames, height, width, 3); kept as small JPEGs.
        times: per video, seconds of those frames.
        size: pixels of the longer side of the JPEGs.
        **meta: what else to keep: ``method``, ``config``, ``video``, ``question``, ``answer``, ``commit``.

    Raises:
        InputError: if frames or times are not those of the videos.
    """
    count = len(record.videos)
    for name, given in (("frames", frames), ("times", times)):
        if given is not None and len(given) != count:
            raise InputError(f"{name} are given for {len(given)} videos, the record has {count}")
    videos = [
        _saved_video(
            record,
            number,
            () if frames is None else thumbnails(frames[number], size),
            None if times is None else np.asarray(times[number], dtype=np.float64),
        )
        for number in range(count)
    ]
    return SavedRecord(tuple(videos), meta)


def _saved_video(record: Record, number: int, pictures: tuple[bytes, ...], times: np.ndarray | None) -> SavedVideo:
    tokens = record.videos[number]
    details, seen = tokens.details, tokens.observed
    similarity = seen.similarity if seen is not None else getattr(details, "similarity", None)
    merges: FrameMerges | None = getattr(details, "merges", None)
    return SavedVideo(
        kinds=details.token_kinds().cpu().numpy().astype(np.int8),
        source_map=details.source_map().cpu().numpy(),
        index=tokens.index.cpu().numpy(),
        segments=as_segments(details.segments),
        stages=tuple(_saved_stages(record, number)),
        received_attention=None if seen is None else seen.received_attention.float().cpu().numpy(),
        similarity=None if similarity is None else similarity.float().cpu().numpy(),
        times=times,
        thumbnails=pictures,
        tower_layers=None if merges is None else np.asarray(merges.layers),
        frame_targets=None if merges is None else np.asarray(merges.targets),
    )


def _saved_stages(record: Record, video: int) -> Iterator[SavedStage]:
    """What each stage inside the LLM did with the tokens of one video, by rows instead of positions."""
    stages = record.inner.stages if record.inner is not None else ()
    if not stages:
        return
    assert record.inner is not None
    row, places = record.places(video)
    seq = record.inner.source.shape[1]
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
    """Write what a prompt went through as one ``.npz`` file, which ``holitom.record.file`` reads without a model.

    Args:
        record: a compressor's record, or a copy of it (:func:`saved_copy`) with pictures and times.
        path: ending in ``.npz``; its folder is made. The file is there as a whole or not at all.
        **meta: added to the record's meta.

    Raises:
        InputError: for another ending, a meta that is no JSON, or a path that cannot be written.
    """
    copy = saved_copy(record) if isinstance(record, Record) else record
    write_saved(SavedRecord(copy.videos, {**copy.meta, **meta}), path)
