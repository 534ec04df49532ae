"""Questions about clips as the benchmark asks them, and the letter that an answer gives."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.synthetic.world.questions import Question
from eval.synthetic.world.selection import LETTERS


@dataclass(frozen=True)
class Item:
    """A question about a clip.

    Attributes:
        identity: unique in the data set.
        clip: the video file.
        family: the kind of question.
        question: its text, options and answer.
        frames: how many frames to sample where nothing else is asked for.
        world: number of the clip's world (:func:`eval.synthetic.world.selection.draw_world`).
    """

    identity: str
    clip: Path
    family: str
    question: Question
    frames: int
    world: int


def letter_of(text: str) -> str | None:
    """The letter an answer gives: "B", "B.", "(B)" or "B. red circle"; None for anything else, which is wrong."""
    found = re.fullmatch(r"\(?([A-D])(?:[.):].*)?", text.strip(), re.DOTALL)
    return found[1] if found else None


def item_of(folder: Path, row: dict[str, Any]) -> Item:
    """One line of a question file."""
    options, right = tuple(row["options"]), LETTERS.index(row["answer"])
    question = Question(row["family"], row["question"], options, right)
    return Item(row["id"], folder / row["clip"], row["family"], question, row["frames"], row["world"])
