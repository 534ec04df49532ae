"""A picture of what the outer and the inner stage did to every visual token of a video.

    details = OuterCompression(OuterConfig())(features, received_attention).details
    draw_token_map(frames, details.token_kinds(), details.source_map(), details.segments, "token_map.png")

Every sampled frame is shown with its token grid over the whole picture, for the image processor squashes a frame to a
square without borders. The kinds differ in shape and brightness as well as in colour (Okabe and Ito's palette), so that
the picture stays readable for the colour-blind and in a grey print.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from holitom.token_map_page import (
    DPI,
    WIDTH,
    LegendEntry,
    lay_out,
    paint_legend,
    paint_segments,
    texts,
    with_text,
)
from holitom.token_painting import paint_tokens
from holitom.tokens import TokenKind
from llava.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABELS = {
    TokenKind.DYNAMIC_KEPT: "dynamic, kept",
    TokenKind.DYNAMIC_DROPPED: "dynamic, dropped",
    TokenKind.STATIC_CENTER: "static, kept (cluster centre)",
    TokenKind.STATIC_MERGED: "static, merged into a centre",
    TokenKind.STATIC_DROPPED: "static, dropped",
    TokenKind.CONTEXTUAL_CENTER: "contextual, kept (cluster centre)",
    TokenKind.CONTEXTUAL_MERGED: "contextual, merged into a centre",
}
INNER_LABEL = "merged away inside the LLM"
DROPPED_KINDS = (TokenKind.DYNAMIC_DROPPED, TokenKind.STATIC_DROPPED)
KEPT_KINDS = (TokenKind.DYNAMIC_KEPT, TokenKind.STATIC_CENTER, TokenKind.CONTEXTUAL_CENTER)


def draw_token_map(
    frames: np.ndarray,
    kinds: np.ndarray,
    source_map: np.ndarray,
    segments: Sequence[tuple[int, int]],
    path: str | os.PathLike[str],
    *,
    inner_kept: np.ndarray | None = None,
    title: str | None = None,
) -> None:
    """Draw the token map and save it as a PNG, 2200 pixels wide.

    Args:
        frames: the sampled frames, uint8, (frames, height, width, 3).
        kinds: what became of each token, values of :class:`~holitom.tokens.TokenKind`, (frames, tokens); the tokens
            of a frame form a square grid in reading order.
        source_map: output row that each token was kept as or merged into, -1 for dropped tokens, (frames, tokens).
        segments: first and last frame of every segment, both inclusive, in order.
        path: the PNG to write; its folder is made.
        inner_kept: True for tokens that are still there after the inner stage, (frames, tokens); None without one.
        title: a line above the picture.

    Raises:
        InputError: shapes, types or values do not fit together, the path is no PNG, or matplotlib is not installed.
    """
    target = Path(path)
    if target.suffix.lower() != ".png":
        raise InputError(f"the token map is a PNG, but its path is {str(target)!r}; end it with .png")
    figure = token_map_figure(frames, kinds, source_map, segments, inner_kept=inner_kept, title=title)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=DPI)


def token_map_figure(
    frames: np.ndarray,
    kinds: np.ndarray,
    source_map: np.ndarray,
    segments: Sequence[tuple[int, int]],
    *,
    inner_kept: np.ndarray | None = None,
    title: str | None = None,
) -> Figure:
    """The figure that :func:`draw_token_map` saves; arguments and errors as there."""
    frames, kinds, source_map = np.asarray(frames), np.asarray(kinds), np.asarray(source_map)
    inner_kept = None if inner_kept is None else np.asarray(inner_kept)
    _check_tokens(frames, kinds, source_map, inner_kept)
    _check_segments(segments, len(frames))
    merged_inside = _merged_inside(kinds, inner_kept)
    entries = _legend_entries(kinds, merged_inside)
    headings = _headings(kinds, source_map, inner_kept, title)
    layout = lay_out(frames, kinds, len(entries), len(headings))
    canvas = np.full((layout.height, WIDTH, 3), 255, dtype=np.uint8)
    for index, frame in enumerate(frames):
        top, left = layout.corner(index)
        picture = Image.fromarray(frame).resize((layout.frame_width, layout.frame_height), Image.Resampling.LANCZOS)
        painted = paint_tokens(np.asarray(picture), kinds[index], merged_inside[index])
        canvas[top : top + layout.frame_height, left : left + layout.frame_width] = painted
    paint_segments(canvas, segments, layout)
    paint_legend(canvas, entries, layout)
    return with_text(canvas, texts(segments, headings, entries, layout))


def _merged_inside(kinds: np.ndarray, inner_kept: np.ndarray | None) -> np.ndarray:
    """Tokens that reached the LLM and are gone after its inner stage."""
    return np.zeros(kinds.shape, bool) if inner_kept is None else np.isin(kinds, KEPT_KINDS) & ~inner_kept


def _legend_entries(kinds: np.ndarray, merged_inside: np.ndarray) -> list[LegendEntry]:
    """Kind (None: merged away inside) and text of every legend entry, only for what the picture shows."""
    counts = {kind: int((kinds == kind).sum()) for kind in LABELS}
    entries: list[LegendEntry] = [(kind, f"{LABELS[kind]}: {n}") for kind, n in counts.items() if n]
    return [*entries, (None, f"{INNER_LABEL}: {int(merged_inside.sum())}")] if merged_inside.any() else entries


def _headings(kinds: np.ndarray, source_map: np.ndarray, inner_kept: np.ndarray | None, title: str | None) -> list[str]:
    """The title, if any, and a line of counts."""
    outer = len(np.unique(source_map[source_map >= 0]))
    counts = f"{kinds.shape[0]} frames x {kinds.shape[1]} tokens = {kinds.size}"
    counts += f"; {outer} reach the LLM ({outer / kinds.size:.1%})"
    if inner_kept is not None:
        left = outer - int(_merged_inside(kinds, inner_kept).sum())
        counts += f"; {left} remain after its inner stage ({left / kinds.size:.1%})"
    return [counts] if title is None else [title, counts]


def _check_tokens(frames: np.ndarray, kinds: np.ndarray, source_map: np.ndarray, inner_kept: np.ndarray | None) -> None:
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
        raise InputError(f"frames are {frames.dtype} {frames.shape}; give uint8 (frames, height, width, 3)")
    if (
        kinds.ndim != 2
        or len(kinds) != len(frames)
        or math.isqrt(kinds.shape[1]) ** 2 != kinds.shape[1]
        or kinds.size == 0
    ):
        raise InputError(f"kinds are {kinds.shape}; give ({len(frames)}, tokens) with a square number of tokens")
    if not np.isin(kinds, list(TokenKind)).all():
        raise InputError(f"kinds hold {sorted(set(np.unique(kinds)) - set(TokenKind))}; give values of TokenKind")
    if source_map.shape != kinds.shape:
        raise InputError(f"source_map is {source_map.shape}; give the shape of kinds, {kinds.shape}")
    if not np.array_equal(source_map < 0, np.isin(kinds, DROPPED_KINDS)):
        raise InputError("source_map and kinds disagree on the dropped tokens; take both from the same compression")
    if inner_kept is not None and (inner_kept.shape != kinds.shape or inner_kept.dtype != bool):
        raise InputError(f"inner_kept is {inner_kept.dtype} {inner_kept.shape}; give bool {kinds.shape}")


def _check_segments(segments: Sequence[tuple[int, int]], frames: int) -> None:
    covered = [frame for first, last in segments for frame in range(first, last + 1)]
    if covered != list(range(frames)) or any(last < first for first, last in segments):
        raise InputError(
            f"segments are {list(segments)}; together they must cover frames 0 to {frames - 1} once, in order"
        )
