"""What a rehearsal runs on: a tiny checkpoint, and the paper's settings scaled to its depth and to few frames."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from eval import HOME, PACKAGE
from eval.paper.formula import ONEVISION_05B, ONEVISION_7B, ONEVISION_72B, VIDEO_7B
from eval.paper.grids import Point
from eval.synthetic.world.dataset import data_folder, make_split, verify
from holitom.files import part_of, place_folder
from holitom.shipped import CONFIGS
from llava.errors import InputError

CHECKPOINT = CONFIGS.parent / "checkpoints" / "tiny"
LAYERS = {
    "llava_onevision_0.5b": ONEVISION_05B.layers,
    "llava_onevision_7b": ONEVISION_7B.layers,
    "llava_onevision_72b": ONEVISION_72B.layers,
    "llava_video_7b": VIDEO_7B.layers,
}
FRAMES_DIVISOR = 4
OWN_SPLITS = {"synthvid": "test", "synthvid_long": "long"}  # task -> split of its data
LAYER_KEYS = frozenset({"merge_layer", "prune_layer", "drop_layers"})  # settings that name layers of the decoder
TOWER_KEY, TOWER_LAYERS = "tower_layers", 26  # a setting that names layers of the tower, and how many run at 7B


def rehearsal_checkpoint(model: str, folder: Path) -> Path:
    """The learned tiny checkpoint, or a random one made once below ``folder``; LLaVA-Video has a layout of its own."""
    layout = "llava-video" if model.startswith("llava_video") else "llava-onevision"
    if layout == "llava-onevision" and (CHECKPOINT / "config.json").is_file():
        return CHECKPOINT
    target = folder / f"random-{layout}"
    if not (target / "config.json").is_file():
        from eval.instruments.models.random_checkpoint import make_random_checkpoint  # noqa: PLC0415

        shutil.rmtree(target, ignore_errors=True)  # a folder that was put there whole and then damaged
        part = part_of(target)
        make_random_checkpoint(part, layout=layout, width=32)
        place_folder(part, target)
    return target


def own_tasks(tasks: Sequence[str]) -> Path | None:
    """Folder of this project's own definition of one of the tasks, if it has any (``<task>.yaml`` below ``eval``)."""
    names = [task for task in tasks if re.fullmatch(r"\w+", task)]  # else it is a path or a pattern
    found = [path for task in names for path in sorted(Path(HOME, PACKAGE).rglob(f"{task}.yaml"))]
    return found[0].parent if found else None


def prepare_own_data(tasks: Sequence[str]) -> None:
    """Make the splits that tasks of this project ask about where there are none, and look at every file of them.

    Raises:
        InputError: a split is damaged, or the folder cannot be written.
    """
    folder = data_folder()
    for split in [OWN_SPLITS[task] for task in tasks if task in OWN_SPLITS]:
        if not (folder / split).exists():
            print(f"making the split {split!r} of synthvid in {folder}, once: minutes", file=sys.stderr, flush=True)
            make_split(folder, split)
        verify(folder, split)


def rehearsal_overrides(point: Point, checkpoint: Path) -> tuple[str, ...]:
    """Assignments that bring a point's layers and frames down to a tiny checkpoint.

    A layer keeps its relative depth, rounded up, so that layers of the paper's ablation stay apart in six layers.

    Raises:
        InputError: the checkpoint's ``config.json`` cannot be read, or the configuration is in no folder of a model.
    """
    try:
        raw = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
        depth = int((raw.get("text_config") or raw)["num_hidden_layers"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{checkpoint}/config.json cannot be read ({error!r}): name a checkpoint's folder") from None
    vision = raw.get("vision_config") or {}
    tower = int(vision.get("num_hidden_layers", TOWER_LAYERS + 1)) - 1  # the last layer does not run
    if point.model not in LAYERS:
        raise InputError(f"{point.config} is in no folder of a model ({', '.join(LAYERS)}): its depth is not known")
    settings = point.settings()
    changes = [f"model.num_frames={max(1, settings.model.num_frames // FRAMES_DIVISOR)}"]
    for path, value in _layers(settings.as_dict()["compressor"] or {}):
        scaled = _scaled(value, depth, LAYERS[point.model])
        if path.endswith(TOWER_KEY):  # a merge needs a layer behind it
            scaled = sorted({min(tower - 2, layer * tower // TOWER_LAYERS) for layer in value})
        changes.append(f"{path}={json.dumps(scaled)}")
    return tuple(changes)


def _layers(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _layers(value, f"{prefix}{key}.")
        elif key in {*LAYER_KEYS, TOWER_KEY} and value is not None:
            yield f"{prefix}{key}", value


def _scaled(value: Any, depth: int, full: int) -> Any:
    if isinstance(value, int):
        return min(depth - 1, max(1, math.ceil(value * depth / full)))
    return [_scaled(layer, depth, full) for layer in value]
