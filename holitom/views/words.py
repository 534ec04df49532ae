"""The words of the pictures; every number in them comes from ``SavedVideo.counts``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holitom.record.saved import SavedRecord, SavedVideo
from holitom.tokens import TokenKind

LABELS = {
    TokenKind.STATIC_CENTER: "static, centre of its cluster, kept",
    TokenKind.STATIC_MERGED: "static, merged: same colour, same merged token",
    TokenKind.STATIC_DROPPED: "static, dropped",
    TokenKind.DYNAMIC_KEPT: "dynamic, kept as it is",
    TokenKind.DYNAMIC_DROPPED: "dynamic, dropped",
    TokenKind.CONTEXTUAL_CENTER: "clustered, centre, kept",
    TokenKind.CONTEXTUAL_MERGED: "clustered: stripes of its cluster's colour",
}
# of methods that tell no static tokens from dynamic ones
PLAIN_LABELS = {TokenKind.DYNAMIC_KEPT: "kept as it is", TokenKind.DYNAMIC_DROPPED: "dropped"}
STATIC_KINDS = (TokenKind.STATIC_CENTER, TokenKind.STATIC_MERGED, TokenKind.STATIC_DROPPED)
GONE_LABEL = "gone inside the LLM"


def share(part: int, whole: int) -> str:
    """A count with its share of the video's tokens."""
    return f"{part} ({part / whole:.1%})"


def title(record: SavedRecord) -> str:
    """Method and video, as far as they are known."""
    name = str(record.meta.get("name") or record.meta.get("method") or "tokens of a video")
    clip = clip_name(record.meta)
    return name if clip is None or clip in name else f"{name}: {clip}"


def clip_name(meta: dict[str, Any]) -> str | None:
    """The video's file name, if it is known."""
    return None if meta.get("video") is None else str(meta["video"]).rsplit("/", 1)[-1]


def counts_line(video: SavedVideo) -> str:
    """How many tokens there are at each stage."""
    counts = video.counts()
    total = counts["tokens"]
    line = f"{counts['frames']} frames x {counts['tokens_per_frame']} tokens = {total}"
    line += f"; {counts['segments']} segment{'s' if counts['segments'] != 1 else ''}"
    line += f"; {share(counts['reach_llm'], total)} reach the LLM"
    return line + "".join(f"; {share(stage['kept'], total)} from layer {stage['layer']}" for stage in counts["stages"])


def stage_lines(video: SavedVideo) -> list[str]:
    """The same in short lines, to stand beside a strip."""
    counts = video.counts()
    total = counts["tokens"]
    lines = [f"LLM: {share(counts['reach_llm'], total)}"]
    return lines + [f"layer {stage['layer']}: {share(stage['kept'], total)}" for stage in counts["stages"]]


def labels(videos: Sequence[SavedVideo]) -> dict[TokenKind, str]:
    """The meaning of every kind that one of the videos has."""
    present = {kind for kind in LABELS if any((video.kinds == kind).any() for video in videos)}
    wording = LABELS if present & set(STATIC_KINDS) else {**LABELS, **PLAIN_LABELS}
    return {kind: wording[kind] for kind in LABELS if kind in present}


def captions(video: SavedVideo) -> list[str]:
    """Number and time of every frame."""
    numbers = [f"{number + 1}" for number in range(video.frames)]
    if video.times is None:
        return [f"frame {number}" for number in numbers]
    return [f"{number}: {time:.1f} s" for number, time in zip(numbers, video.times, strict=True)]


def question_line(meta: dict[str, Any]) -> list[str]:
    """Question and answer, if they are known."""
    if meta.get("question") is None:
        return []
    answer = "" if meta.get("answer") is None else f" Answer: {meta['answer']!r}"
    return [f"Question: {meta['question']}{answer}"]


def notes(meta: dict[str, Any]) -> list[str]:
    """What has to be said about a record, and where it comes from."""
    found = [str(meta["note"])] if meta.get("note") else []
    source = [f"{name} {meta[name]}" for name in ("checkpoint", "commit") if meta.get(name)]
    return [*found, "; ".join(source)] if source else found
