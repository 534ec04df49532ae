"""What differs between the paper's harness, lmms-eval 0.3.0, and the installed one, shown by running both.

    bash scripts/harness_030.sh
    python -m eval.benchmarks.versions                                   # a table, then one line of JSON
    python -m eval.instruments.record results/harness_versions.json -- python -m eval.benchmarks.versions

Each release runs in a process of its own, with its own code, on the same miniature data: every prompt, video path and
generation setting, the frames it reads of one clip, how it reads sixteen forms of an answer to every question, and the
score it gives the log of all of these, which no model made: its scores say nothing about a model.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.benchmarks.data.fixtures import make_fixtures
from eval.benchmarks.lmms import definitions
from eval.benchmarks.lmms.harness import HARNESS_FOLDER, definitions_of
from eval.instruments.cli import Parser, provenance, user_errors
from eval.instruments.kinds import stamped
from eval.paper.benchmarks import HARNESS, PAPER_HARNESS, PAPER_TASKS
from llava.errors import InputError

Facts = dict[str, Any]
_SETTINGS = ("dataset", "config", "split", "revision", "generation", "metrics")


def lay_out(work: Path) -> Path:
    """Miniature data where both releases look for them: 0.3.0 knows two data sets by another name."""
    data = make_fixtures(work / "fixtures")
    renamed = data / "data" / "lmms-lab"
    renamed.mkdir()
    for name in ("egoschema", "Video-MME"):
        (renamed / name).symlink_to(data / "data" / "lmms-eval" / name)
    (data / "hf" / "longvideobench").symlink_to(data / "hf" / "datasets" / "longvideobench")
    return data


def ask(data: Path, folder: Path | None, work: Path) -> Facts:
    """What one release makes of the data; ``folder`` None: the installed one.

    Raises:
        InputError: it broke down.
    """
    env = {**os.environ, "HF_HOME": str(data / "hf"), "HF_DATASETS_CACHE": str(work / f"cache-{folder is None}")}
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        env[name] = "1"
    # the folder in front of the installed packages; this project's own too, for the stock models import ``llava``
    root = Path(__file__).resolve().parents[2]
    env["PYTHONPATH"] = os.pathsep.join(str(path) for path in (folder, root) if path is not None)
    clip = sorted((data / "hf" / "videomme" / "data").iterdir())[0]
    command = [sys.executable, "-P", str(Path(definitions.__file__).resolve()), str(clip)]
    ended = subprocess.run(command, cwd=data / "data", env=env, capture_output=True, text=True)
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"lmms-eval of {folder or 'the environment'} broke down: {last}")
    found: Facts = json.loads(ended.stdout.splitlines()[-1])
    expected = str(folder / "lmms_eval") if folder is not None else "site-packages"
    if expected not in found["folder"]:
        raise InputError(f"lmms-eval was imported from {found['folder']}, not from {expected}: see PYTHONPATH")
    return found


def differences(paper: Facts, ours: Facts) -> list[dict[str, Any]]:
    """Every line in which they differ, sub-tasks of MVBench under their group when all say the same."""
    lines: dict[str, dict[str, Any]] = {}
    for name, old in paper["tasks"].items():
        new, task = ours["tasks"][name], "mvbench" if name.startswith("mvbench") else name
        for line in (*_settings(old, new, paper, ours), *_asked(old, new), *_read(old, new)):
            lines.setdefault(json.dumps([task, line["what"]]), {"task": task, **line})
    if paper["frames"] != ours["frames"]:
        shown = f"SHA-256 of {definitions.FRAMES} frames of a clip"
        lines["frames"] = {
            "task": "all",
            "what": "frames",
            "old": paper["frames"],
            "new": ours["frames"],
            "shown": shown,
        }
    return list(lines.values())


def _settings(old: Facts, new: Facts, paper: Facts, ours: Facts) -> list[dict[str, Any]]:
    found = [
        {"what": name, "old": old["settings"][name], "new": new["settings"][name], "shown": "the loaded task"}
        for name in _SETTINGS
        if old["settings"][name] != new["settings"][name]
    ]
    limits = [
        task["settings"]["generation"].get("max_new_tokens", facts["tokens"])
        for task, facts in ((old, paper), (new, ours))
    ]
    if limits[0] != limits[1]:
        shown = "the loaded task, and the stock model where it says nothing"
        found.append({"what": "most new tokens", "old": limits[0], "new": limits[1], "shown": shown})
    return found


def _asked(old: Facts, new: Facts) -> list[dict[str, Any]]:
    found = []
    for what, key in (("prompt", "prompts"), ("place of the video", "videos")):
        pairs = [pair for pair in zip(old[key], new[key], strict=True) if pair[0] != pair[1]]
        if pairs:
            shown = f"{len(pairs)} of {len(old[key])} questions"
            found.append({"what": what, "old": pairs[0][0], "new": pairs[0][1], "shown": shown})
    return found


def _read(old: Facts, new: Facts) -> list[dict[str, Any]]:
    """Each form of an answer that is read differently, once."""
    found = {}
    for number, answers in old["read"].items():
        for form, (text, letter) in zip(definitions.FORMS, answers.items(), strict=False):
            other = new["read"][number][text]
            if letter != other and form not in found:
                shown = f"{text!r}, where {old['right'][int(number)]} is right"
                found[form] = {"what": f"answer read: {form!r}", "old": letter, "new": other, "shown": shown}
    return list(found.values())


def scored(facts: Facts) -> dict[str, float]:
    """Scores of the one log in percent; MVBench the mean of its sub-tasks."""
    found = {}
    for task in PAPER_TASKS:
        parts = [one["score"] for name, one in facts["tasks"].items() if name.startswith(task)]
        unit = 100 if task in ("egoschema_subset", "longvideobench_val_v") else 1
        found[task] = round(unit * sum(parts) / len(parts), 4)
    return found


def compare(folder: Path, work: Path) -> Facts:
    """The differences, what is equal, and one log scored by both."""
    definitions_of(folder)
    data = lay_out(work)
    paper, ours = ask(data, folder.resolve(), work), ask(data, None, work)
    lines = differences(paper, ours)
    logs = {version: scored(facts) for version, facts in ((PAPER_HARNESS, paper), (HARNESS, ours))}
    counts = {
        task: sum(len(one["prompts"]) for name, one in ours["tasks"].items() if name.startswith(task))
        for task in PAPER_TASKS
    }
    # where the data lie and what they are called decides no answer
    harmless = ("dataset", "place of the video", "metrics")
    changed = {line["task"] for line in lines if line["what"] not in harmless}
    return stamped(
        "harness_versions",
        {
            "paper": PAPER_HARNESS,
            "ours": HARNESS,
            "questions": counts,
            "forms": len(definitions.FORMS),
            "frames_equal": paper["frames"] == ours["frames"],
            "differences": lines,
            "unchanged": [task for task in PAPER_TASKS if not changed & {task, "all"}],
            "log": logs,
        },
    )


def table(found: Facts) -> str:
    """The differences in Markdown."""
    lines = [f"| task | what | {found['paper']} | {found['ours']} | shown by |", "|---|---|---|---|---|"]
    for line in found["differences"]:
        cells = (line["task"], line["what"], json.dumps(line["old"]), json.dumps(line["new"]), line["shown"])
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    scores = (
        f"{task} {found['log'][found['paper']][task]} / {found['log'][found['ours']][task]}" for task in PAPER_TASKS
    )
    lines += ["", f"One log of answers in every form, {found['paper']} / {found['ours']}, percent: {', '.join(scores)}"]
    return "\n".join([*lines, f"Asked, read and scored alike: {', '.join(found['unchanged'])}"])


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--harness-folder", type=Path, default=HARNESS_FOLDER, help="where lmms-eval 0.3.0 is")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as work:
        found = compare(options.harness_folder, Path(work))
    print(table(found))
    print(json.dumps({**found, **provenance()}))


if __name__ == "__main__":
    main()
