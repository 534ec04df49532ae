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
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from eval.paper.scores import CONFIGS
from holitom.settings import RunConfig, load_config
from llava.errors import InputError

TableKind = Literal["main", "backbone", "ablation"]
SWEEPS = CONFIGS / "sweeps"
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
    """The name of a point, the same for the same changes in any order."""
    path = Path(config)
    changes = sorted(re.sub(r"\s+", "", change) for change in overrides)
    name = re.sub(r"[^-\w.=,]+", "_", ",".join([path.stem, *changes]))
    return f"{path.parent.name}/{name}"


def load_grid(path: str | Path) -> Grid:
    """Read a grid; relative paths of configurations count from the folder that holds ``configs``.

    Raises:
        InputError: the file is absent, no grid, names the same point twice, or names a configuration that is not valid.
    """
    file = Path(path)
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): see {SWEEPS} for those of the paper") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} is no readable YAML file: {' '.join(str(error).split())}") from None
    keys = ("title", "table", "tasks", "points")
    if not isinstance(raw, dict) or sorted(raw) != sorted(keys):
        raise InputError(f"{path} is no grid: it needs the keys {', '.join(keys)} and no other")
    if raw["table"] not in get_args(TableKind):
        raise InputError(f"{path}: table is {raw['table']!r}; it must be one of {', '.join(get_args(TableKind))}")
    for key in ("tasks", "points"):
        if not isinstance(raw[key], list) or not raw[key]:
            raise InputError(f"{path}: {key} is {raw[key]!r}; it must be a list with at least one entry")
    points = [point for entry in raw["points"] for point in _points(entry, f"{path}")]
    names = [point.name for point in points]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"{path}: {twice[0]} stands twice; write each point once")
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
    if isinstance(entry, str):
        config, *overrides = entry.split()
        return [Point(_config(config), tuple(overrides))]
    if not isinstance(entry, dict) or sorted(entry) != ["config", "grid"] or not isinstance(entry["grid"], dict):
        raise InputError(f"{where}: {entry!r} is no point; write `FILE key=value ...` or {{config: FILE, grid: ...}}")
    axes = entry["grid"]
    for key, values in axes.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"{where}: {key} is {values!r}; it must be a list of values")
    combinations = itertools.product(*axes.values())
    return [
        Point(
            _config(entry["config"]),
            tuple(f"{key}={json.dumps(value)}" for key, value in zip(axes, values, strict=True)),
        )
        for values in combinations
    ]


def _config(name: str) -> Path:
    """A configuration as written, or below the folder that holds ``configs``."""
    path = Path(name)
    return path if path.is_absolute() else CONFIGS.parent / path
