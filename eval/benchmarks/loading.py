"""Reads the results of benchmark runs: ``result.json``, the answers, and ``point.json`` where a sweep left one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from eval.benchmarks.lmms.results import load_result
from eval.benchmarks.runs import Run
from eval.paper.benchmarks import BY_TASK
from eval.paper.grids import POINT_FILE, point_name
from eval.paper.rows import MODELS
from holitom.settings import load_config
from holitom.shipped import CONFIGS
from llava.errors import InputError


def load_runs(root: Path) -> list[Run]:
    """Every finished run below a folder.

    Raises:
        InputError: no folder, no result in it, or one that is damaged, partial or not from a benchmark run.
    """
    if not root.is_dir():
        raise InputError(
            f"{root} is no folder: name the one that holds results of eval.benchmarks.run or eval.benchmarks.sweep"
        )
    folders = sorted({path.parent for name in ("result.json", "samples.jsonl") for path in root.rglob(name)})
    if not folders:
        raise InputError(f"{root} holds no result.json: run a benchmark first, for instance scripts/eval_ov-7b.sh")
    return [load_run(folder) for folder in folders]


def load_run(folder: Path) -> Run:
    """One finished run.

    Raises:
        InputError: it is damaged, partial or not from a benchmark run.
    """
    result, samples = load_result(folder)
    point = None
    if (folder / POINT_FILE).is_file():
        try:
            point = json.loads((folder / POINT_FILE).read_text(encoding="utf-8"))
            named = point["name"].partition("/")[2].partition(",")[0]
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
            raise InputError(f"{folder / POINT_FILE} is damaged: delete it, or run the point again") from None
        if named != result["config"]["name"]:
            raise InputError(f"{folder}: {POINT_FILE} names {named}, the result is {result['config']['name']}'s")
    try:
        name = _name(result["config"]) if point is None else str(point["name"])
        run = Run(folder, result, samples, name)
        run = replace(run, rehearsal=_rehearsal(run, point))
        _ = run.campaign, [run.score(task) for task in run.tasks]
    except (KeyError, TypeError) as error:
        raise InputError(f"{folder} lacks {error}: it was not written by this version, run it again") from None
    return run


def _name(config: Mapping[str, Any]) -> str:
    changes = [text for text in config["overrides"] if not text.startswith("model.pretrained=")]
    return point_name(config["file"], changes)


def _rehearsal(run: Run, point: Mapping[str, Any] | None) -> str | None:
    """Why a run says nothing about the paper, or None."""
    checkpoint, limit = run.result["checkpoint"], run.result["setup"]["limit"]
    if point is not None and point.get("rehearsal"):
        return str(point["rehearsal"])
    if run.result["fixture"]:
        return "miniature data"
    if checkpoint["random"]:
        return "random weights"
    _, wanted = MODELS.get(run.model, (run.model, None))
    if wanted is None or not re.search(rf"(^|[/-]){re.escape(wanted)}($|/)", str(checkpoint["name"])):
        return f"checkpoint {checkpoint['name']} is not named like the paper's ({wanted or 'none for this folder'})"
    if not _as_configured(run.model, run.result["config"]):
        return f"the settings are not those of configs/{run.model}/{run.result['config']['name']}.yaml"
    if limit is not None:
        return f"limited to {limit} questions per task"
    for task in run.tasks:
        found = len(run.answers(task))
        if task not in BY_TASK or found != BY_TASK[task].questions:
            whole = BY_TASK[task].questions if task in BY_TASK else "none"
            return f"{found} questions of {task} (the paper's benchmark has {whole})"
    return None


def _as_configured(model: str, config: Mapping[str, Any]) -> bool:
    """Whether the settings are those that the name promises: a file may have been changed before the run."""
    try:
        known = load_config(CONFIGS / model / f"{config['name']}.yaml", config["overrides"])
    except InputError:
        return False
    settings = json.loads(json.dumps(known.as_dict()))  # lists, as in the result
    return bool(settings == {key: config[key] for key in settings})
