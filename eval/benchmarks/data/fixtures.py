"""Miniature data sets of the benchmarks, so that the real task code runs without a download.

    python -m eval.benchmarks.data.fixtures outputs/fixtures
    python -m eval.benchmarks.data verify --data outputs/fixtures

Folders and columns are those the packaged task definitions read (:mod:`eval.paper.benchmarks`): MVBench with its 20
sub-tasks, EgoSchema (subset, and the full set with hidden labels), LongVideoBench, VideoMME, MLVU, LVBench. Clips are
rendered, every question is about what its clip shows. The same arguments give the same bytes. Scores on them are
rehearsals and say nothing about the paper; the folder says so in ``fixture.json``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.benchmarks.data.fixture_tasks import WRITERS, Writer
from eval.instruments.cli import Parser, user_errors
from holitom.files import part_of, place_folder
from llava.errors import InputError

MARKER = "fixture.json"


def make_fixtures(folder: str | Path, clips_per_task: int = 2, seed: int = 0) -> Path:
    """Write the miniature data sets; a folder that already holds those of the same arguments is left as it is.

    Args:
        folder: a new or empty folder, or one this function made.
        clips_per_task: clips of each MVBench sub-task and other benchmark (EgoSchema's full set: twice), 1 to 30.
        seed: of the clips and questions.

    Returns:
        The folder.

    Raises:
        InputError: the folder holds something else, or the number of clips is out of range.
    """
    target = Path(folder)
    if isinstance(clips_per_task, bool) or not 1 <= clips_per_task <= 30:
        raise InputError(f"clips_per_task is {clips_per_task!r}; it must be a whole number from 1 to 30")
    wanted = {"fixture": True, "version": 2, "clips_per_task": clips_per_task, "seed": seed}
    if target.is_dir() and any(target.iterdir()):
        found = fixture_marker(target)
        if found is None:
            raise InputError(f"{target} holds other files: name a new folder for the fixtures")
        if {key: found.get(key) for key in wanted} == wanted:
            return target
        shutil.rmtree(target)
    part = part_of(target)
    try:
        part.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{part} cannot be made ({error.strerror}): name another folder") from None
    writer = Writer(part, clips_per_task, seed)
    for write in WRITERS:
        write(writer)
    (part / MARKER).write_text(json.dumps({**wanted, "tasks": writer.counts}, indent=1) + "\n", encoding="utf-8")
    place_folder(part, target)
    return target


def fixture_marker(folder: str | Path) -> dict[str, Any] | None:
    """What ``fixture.json`` says about a folder of fixtures; None for real data.

    Raises:
        InputError: the file is damaged.
    """
    path = Path(folder) / MARKER
    if not path.is_file():
        return None
    try:
        marker = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        marker = None
    if not isinstance(marker, dict) or marker.get("fixture") is not True:
        raise InputError(f"{path} is damaged: delete the folder and make the fixtures again")
    return marker


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips-per-task", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    folder = make_fixtures(options.folder, options.clips_per_task, options.seed)
    print(json.dumps({"folder": str(folder), **(fixture_marker(folder) or {})}))


if __name__ == "__main__":
    main()
