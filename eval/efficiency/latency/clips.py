"""The clips a latency is measured on: files, or frames that are drawn with a known share of still picture.

Drawn frames need neither a file nor a decoder. A scene of 8 frames is a raster of cells filled with random colours; the
``redundancy`` share of them stands still (but for noise of a few grey levels) and the others are drawn anew in every
frame. With random weights this is what a method's threshold of similarity gets to see; a real clip through random
weights shows redundancy that means nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llava.errors import InputError
from llava.video import VideoClip

_SCENE = 8  # frames between cuts
_CELLS, _COLOURS, _PIXELS = 9, 12, 5  # cells per side, colours per side of a cell, pixels per side of a colour
_NOISE = 3  # grey levels


@dataclass(frozen=True)
class ClipSource:
    """One clip to measure on.

    Attributes:
        name: what the rows of a result call it.
        redundancy: share of the picture that stands still, for drawn frames; None for a file.
        file: the video, or None.
    """

    name: str
    redundancy: float | None
    file: Path | None

    def as_dict(self) -> dict[str, Any]:
        """Name and redundancy, as a result records them."""
        return {key: value for key, value in asdict(self).items() if key != "file"}


def clip_sources(files: list[Path] | None, redundancies: list[float] | None) -> list[ClipSource]:
    """Clips that a command line asks for; one drawn clip that half stands still if it asks for none.

    Raises:
        InputError: for a redundancy that is no share, or clips of the same name.
    """
    for share in redundancies or []:
        if not 0 <= share <= 1:
            raise InputError(f"--redundancy {share} is out of range: it must be in [0, 1]; use 0.5")
    drawn = [0.5] if not files and not redundancies else redundancies or []
    sources = [ClipSource(path.name, None, path) for path in files or []]
    sources += [ClipSource(f"drawn, {share:.0%} still", share, None) for share in drawn]
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{names.count(name)} clips are called {name!r}: give every clip once, under its own name")
    return sources


def draw_clip(frames: int, redundancy: float, seed: int = 0) -> VideoClip:
    """Frames with a known share of still picture.

    Args:
        frames: how many.
        redundancy: share of the cells that stand still within a scene, in [0, 1].
        seed: of colours and cells.

    Returns:
        A clip of (frames, 540, 540, 3) uint8 at 8 frames per second that no file holds.

    Raises:
        InputError: if they do not fit into memory.
    """
    random = np.random.default_rng(seed)
    moving = round(_CELLS**2 * (1 - redundancy))
    side = _CELLS * _COLOURS
    try:
        pictures = np.empty((frames, side * _PIXELS, side * _PIXELS, 3), np.uint8)
    except MemoryError:
        raise InputError(f"--frames {frames} is out of range: that does not fit into memory; use 32") from None
    for frame in range(frames):
        fresh = random.integers(0, 256, (side, side, 3))
        if frame % _SCENE == 0:
            colours = fresh
            cells = np.zeros(_CELLS**2, bool)
            cells[random.permutation(_CELLS**2)[:moving]] = True
            mask = cells.reshape(_CELLS, _CELLS).repeat(_COLOURS, 0).repeat(_COLOURS, 1)[..., None]
        noisy = np.where(mask, fresh, colours + random.integers(-_NOISE, _NOISE + 1, colours.shape))
        pictures[frame] = noisy.clip(0, 255).astype(np.uint8).repeat(_PIXELS, 0).repeat(_PIXELS, 1)
    return VideoClip(
        frames=pictures,
        indices=tuple(range(frames)),
        total_frames=frames,
        fps=float(_SCENE),
        duration=frames / _SCENE,
        reader="drawn",
        path=Path(f"drawn-{redundancy:g}"),
    )
