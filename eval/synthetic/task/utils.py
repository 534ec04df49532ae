"""What the task definitions call: prompt, video, scoring. Data: ``SYNTHVID_DATA``, else ``outputs/synthvid``."""

import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# lmms-eval runs this file by its path, from whatever folder: see eval/__init__.py
runpy.run_path(str(Path(__file__).resolve().parents[2] / "__init__.py"))["claim"]()

from eval.synthetic.world.dataset import data_folder, verify  # noqa: E402
from eval.synthetic.world.items import item_of, letter_of  # noqa: E402
from eval.synthetic.world.questions import SCORED  # noqa: E402

_DATA = {"test_data": "test", "long_data": "long"}  # a split for each task
Doc = Mapping[str, Any]
Record = Mapping[str, Any]


def __getattr__(name: str) -> str:
    """The data folder, once its split has been found whole: asked for when a task is loaded, not when it is listed.

    Raises:
        InputError: telling the command that makes the split.
    """
    if name not in _DATA:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    folder = data_folder()
    verify(folder, _DATA[name])
    return str(folder.absolute())


def doc_to_visual(doc: Doc) -> list[str]:
    """The video file."""
    return [str(data_folder().absolute() / doc["clip"])]


def doc_to_text(doc: Doc, lmms_eval_specific_kwargs: Any = None) -> str:
    """The prompt; the same for every model."""
    return item_of(data_folder(), dict(doc)).question.prompt


def process_results(doc: Doc, results: Sequence[str]) -> dict[str, Record]:
    """Score one answer: the letter must be given; what gives none is wrong, and counted."""
    letter = letter_of(results[0])
    facts = {"id": doc["id"], "family": doc["family"], "clip": doc["clip"]}
    judged = {**facts, "answer": doc["answer"], "parsed": letter, "score": float(letter == doc["answer"])}
    unparsed = {**facts, "score": float(letter is None)}
    return {"synthvid_accuracy": judged, "synthvid_unparsed": unparsed, f"synthvid_{doc['family']}": judged}


def share(records: Sequence[Record]) -> float:
    """Mean score."""
    return sum(record["score"] for record in records) / len(records)


def mean_of_families(records: Sequence[Record]) -> float:
    """Mean of the scored families' shares, so that a family counts the same however many questions it has.

    Not a number where no question of a scored family was asked.
    """
    families = sorted({record["family"] for record in records} & set(SCORED))
    if not families:
        return float("nan")
    return sum(share([r for r in records if r["family"] == family]) for family in families) / len(families)
