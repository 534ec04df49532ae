"""Made-up records whose tokens go through every kind, for the tests of records and pictures."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from holitom.record.saved import KEPT_KINDS, SavedRecord, SavedStage, SavedVideo, thumbnails
from holitom.tokens import TokenKind

JOINS = {
    TokenKind.STATIC_MERGED: TokenKind.STATIC_CENTER,
    TokenKind.CONTEXTUAL_MERGED: TokenKind.CONTEXTUAL_CENTER,
}


def made_stage(rng: np.random.Generator, layer: int, before: SavedStage | None, rows: int) -> SavedStage:
    """A stage that keeps about half of what is there, merges, drops, and gives some to newline tokens."""
    there = np.ones(rows, bool) if before is None else before.kept
    kept = there & (rng.random(rows) < 0.5)
    kept[np.flatnonzero(there)[0]] = True
    went = rng.choice([-2, -1, *np.flatnonzero(kept)], rows)
    source = np.where(kept, np.arange(rows), went if before is None else 0)
    if before is not None:  # what had gone already follows the row it had gone to
        now = np.where(kept, np.arange(rows), went)
        source = np.where(before.source >= 0, now[before.source], before.source)
    scores = np.where(there, rng.random(rows), np.nan).astype(np.float32)
    return SavedStage(layer, source == np.arange(rows), source.astype(np.int64), scores)


def made_video(
    seed: int = 0, frames: int = 6, side: int = 4, stages: int = 1, height: int = 60, width: int = 80, **changes: Any
) -> SavedVideo:
    """All kinds in every frame's row of tokens; a merged token joins a random centre of its sort."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, len(TokenKind), (frames, side**2)).astype(np.int8)
    kinds[0, : len(TokenKind)] = list(TokenKind)
    index = np.flatnonzero(np.isin(kinds, KEPT_KINDS))
    source = np.full(kinds.size, -1)
    source[index] = np.arange(len(index))
    for merged, center in JOINS.items():
        at = np.flatnonzero(kinds == merged)
        source[at] = source[rng.choice(np.flatnonzero(kinds == center), len(at))]
    cuts = sorted({0, frames, *rng.integers(0, frames, 2).tolist()})
    made: list[SavedStage] = []
    for number in range(stages):
        made.append(made_stage(rng, 2 + 3 * number, made[-1] if made else None, len(index)))
    pictures = np.repeat(rng.integers(60, 200, (frames, 1, 1, 3), dtype=np.uint8), height, 1).repeat(width, 2)
    facts: dict[str, Any] = {
        "kinds": kinds,
        "source_map": source.reshape(kinds.shape),
        "index": index,
        "segments": np.array([(first, last - 1) for first, last in pairwise(cuts)]),
        "stages": tuple(made),
        "received_attention": rng.random(kinds.shape, dtype=np.float32),
        "similarity": rng.uniform(-1, 1, (frames - 1, side**2)).astype(np.float32),
        "times": np.arange(frames) * 0.4,
        "thumbnails": thumbnails(pictures, quality=95),
    }
    return SavedVideo(**{**facts, **changes})


def made_record(seed: int = 0, *, meta: dict[str, Any] | None = None, **changes: Any) -> SavedRecord:
    """A record of one such video."""
    config = {"compressor": {"method": "holitom", "outer": {"similarity_threshold": 0.25}}}
    facts = {"name": "made_up", "method": "holitom", "config": config, "video": "clips/one.mp4", "question": "Why?"}
    return SavedRecord((made_video(seed, **changes),), {**facts, "answer": "B", "commit": "abc", **(meta or {})})
