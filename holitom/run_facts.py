"""What a saved record says about the run it comes from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holitom.cli import commit
from holitom.settings import RunConfig
from holitom.shipped import TINY

if TYPE_CHECKING:
    from llava.video import VideoClip

TINY_NOTE = (
    "The tiny model learned rendered clips alone. Other clips are outside its world: there the picture shows how the "
    "method works on whatever features it is given, not how well."
)


def facts_of(run: RunConfig, checkpoint: str | os.PathLike[str]) -> dict[str, Any]:
    """What every record says about its run: method, configuration, checkpoint and commit; no folder of one machine."""
    note = {"note": TINY_NOTE} if Path(checkpoint).resolve() == TINY else {}
    facts = {"method": run.method or "vanilla", "config": run.as_dict(), "checkpoint": Path(checkpoint).name}
    return {**facts, "commit": commit(), **note}


def frame_times(clip: VideoClip) -> list[list[float]] | None:
    """Seconds of the sampled frames by the average rate; None without a rate."""
    return [[index / clip.fps for index in clip.indices]] if clip.fps > 0 else None
