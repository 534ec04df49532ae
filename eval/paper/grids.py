"""A grid of runs in one YAML file: one line per configuration, or one configuration and lists of values.

    title: similarity threshold of the segmentation
    table: ablation                       # main, backbone or ablation
    tasks: [mvbench, videomme]
    points:
      - configs/llava_onevision_7b/vanilla.yaml
      - configs/llava_onevision_7b/holitom_r15.yaml outer.retain_ratio=0.3
      - {config: configs/llava_onevision_7b/holitom_r15.yaml, grid: {outer.similarity_threshold: [0.5, 0.8]}}

A point's name says its configuration and what was changed, so that grids that share a point share its result.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from eval.paper.config_names import config_stem
from eval.paper.rows import PaperRow, rows_of
from holitom.settings import RunConfig, load_config
from holitom.shipped import CONFIGS
from holitom.strict_yaml import parse_yaml, read_yaml, written
from llava.errors import InputError, shown

TableKind = Literal["main", "backbone", "ablation"]
SWEEPS = CONFIGS / "sweeps"
_MOST_POINTS = 1000
POINT_FILE = "point.json"  # what a sweep writes beside a result: which point of a grid it is, and how it was rehearsed


@dataclass(frozen=True)
class Point:
    """One run of a grid: a configuration of ``configs/`` with changes.

    Attributes:
        config: the file.
        overrides: assignments in the order of the grid, such as ``outer.retain_ratio=0.2``.
    """

    config: Path
    overrides: tuple[str, ...] = ()

    @property
    def model(self) -> str:
        """Folder of the configuration, which stands for the model."""
        return self.config.parent.name

    @property
    def name(self) -> str:
        """Model, configuration and changes: ``llava_onevision_7b/holitom_r15,outer.retain_ratio=0.2``, a path."""
        return point_name(self.config, self.overrides)

    def settings(self) -> RunConfig:
        """The configuration with its changes."""
        return load_config(self.config, self.overrides)


@dataclass(frozen=True)
class Grid:
    """The runs behind one table."""

    name: str
    title: str
    table: TableKind
    tasks: tuple[str, ...]
    points: tuple[Point, ...]


def point_name(config: str | Path, overrides: Sequence[str]) -> str:
    """The name of a point, the same for the same changes in any order and notation (0.2, 0.20 and 2e-1 are one)."""
    path = Path(config)
    changes = sorted(_canonical(change) for change in overrides)
    name = re.sub(r"[^-\w.=,]+", "_", ",".join([path.stem, *changes]))
    return f"{path.parent.name}/{name}"


def _canonical(change: str) -> str:
    """An assignment in the one notation that names use; texts that are none keep theirs, since they name no point."""
    key, sign, text = change.partition("=")
    try:
        value = written(parse_yaml(text)) if sign else text
    except InputError:
        value = text
    return re.sub(r"\s+", "", f"{key.strip().removeprefix('compressor.')}{sign}{value}")


def load_grid(path: str | Path) -> Grid:
    """Read a grid; relative paths of configurations count from the folder that holds ``configs``.

    Raises:
        InputError: the file is absent, no grid, names the same point twice, or names a configuration that is not valid.
    """
    file = Path(path)
    try:
        raw = read_yaml(file)
    except FileNotFoundError:
        raise InputError(
            f"{path} cannot be read (there is no such file): see {SWEEPS} for those of the paper"
        ) from None
    keys = ("title", "table", "tasks", "points")
    if not isinstance(raw, dict) or set(raw) != set(keys):
        raise InputError(f"{path} is no grid: it needs the keys {', '.join(keys)} and no other")
    if raw["table"] not in get_args(TableKind):
        raise InputError(f"{path}: table is {shown(raw['table'])}; it must be one of {', '.join(get_args(TableKind))}")
    for key in ("tasks", "points"):
        if not isinstance(raw[key], list) or not raw[key]:
            raise InputError(f"{path}: {key} is {shown(raw[key])}; it must be a list with at least one entry")
    for number, task in enumerate(raw["tasks"]):
        if not isinstance(task, str):
            raise InputError(f"{path}: task {number} is {shown(task)}; it must be the name of a task")
    points = [point for entry in raw["points"] for point in _points(entry, f"{path}")]
    # results are filed under 0 and 0.0 apart, but they are one number
    names = [re.sub(r"=(-?\d+)\.0(?=,|$)", r"=\1", point.name) for point in points]
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise InputError(f"{path}: {twice} stands twice; write each point once")
    for point in points:
        point.settings()
    return Grid(file.stem, str(raw["title"]), raw["table"], tuple(map(str, raw["tasks"])), tuple(points))


def paper_grids() -> list[Grid]:
    """The grids of the paper's tables: first the main table, then the other backbones, then the ablations."""
    order = get_args(TableKind)
    return sorted(
        (load_grid(path) for path in SWEEPS.glob("*.yaml")), key=lambda grid: (order.index(grid.table), grid.name)
    )


def _points(entry: Any, where: str) -> list[Point]:
    if isinstance(entry, str) and entry.strip():
        config, *overrides = entry.split()
        keys = [_canonical(change).partition("=")[0] for change in overrides]
        if len(set(keys)) != len(keys):
            raise InputError(f"{where}: {shown(entry)} sets a key twice; write each once")
        return [Point(_config(config), tuple(overrides))]
    if not isinstance(entry, dict) or set(entry) != {"config", "grid"} or not isinstance(entry["grid"], dict):
        raise InputError(
            f"{where}: {shown(entry)} is no point; write `FILE key=value ...` or {{config: FILE, grid: ...}}"
        )
    axes = entry["grid"]
    if not isinstance(entry["config"], str):
        raise InputError(f"{where}: config is {shown(entry['config'])}; it must be the name of a file")
    for key, values in axes.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"{where}: {key} is {shown(values)}; it must be a list of values")
    if math.prod(map(len, axes.values())) > _MOST_POINTS:
        raise InputError(
            f"{where}: the grid of {entry['config']} has more than {_MOST_POINTS} points: write fewer values"
        )
    return [
        Point(
            _config(entry["config"]), tuple(f"{key}={json.dumps(value)}" for key, value in zip(axes, row, strict=True))
        )
        for row in itertools.product(*axes.values())
    ]


def _config(name: str) -> Path:
    """A configuration as written, or below the folder that holds ``configs``."""
    if len(name) > 1000:
        raise InputError(f"{shown(name)} is no name of a configuration: it must have at most 1000 characters")
    path = Path(name)
    return path if path.is_absolute() else CONFIGS.parent / path


@cache
def _settings(model: str) -> list[tuple[PaperRow, dict[str, object]]]:
    found = []
    for row in rows_of(model):
        path = CONFIGS / model / f"{config_stem(*row.key)}.yaml"
        if path.is_file():  # DyCoke at 25 % is a row of the main table alone
            found.append((row, load_config(path).as_dict()))
    return found


def row_of(model: str, settings: dict[str, object]) -> PaperRow | None:
    """The paper's row that a configuration reproduces: all its settings are equal to those of the row's file.

    Args:
        model: folder of ``configs/``.
        settings: ``RunConfig.as_dict()``.
    """
    return next((row for row, known in _settings(model) if known == settings), None)
