"""Which worlds and questions make up a split: drawn from a seed, balanced over families, answers and letters.

A question is taken only if it holds in every sampling of the split by itself, and only if its options alone do not tell
the answer.
"""

from collections import Counter
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from numpy.typing import NDArray

from eval.synthetic.world.events import COLORS, FILE_FRAMES, MOTIONS, SCENES, SHAPES, World, sample_world, sampled_times
from eval.synthetic.world.questions import FAMILIES, SAMPLINGS, Candidate, Facts, Question, candidates, with_options

LETTERS = "ABCD"
_SEED_BASE = 3_141_592_653  # training draws from [1, n], [2, n], ...: worlds of a split are none of these
_PER_CLIP = 4  # questions of different families asked about a clip
_PATIENCE = 60  # worlds refused in a row before clips with fewer questions are taken
_LONG_MARGIN = 8  # frames of 64 between two objects whose order is asked, as far apart as in the regular splits
_PAIRS = (("left", "right"), ("up", "down"))
_KINDS = {  # how many different answers a family has; None: names of objects
    "direction": len(MOTIONS),
    "existence": None,
    "attribute": len(COLORS),
    "shape": len(SHAPES),
    "color": len(COLORS),
    "count": 4,
    "shots": 4,
    "order": None,
    "scene": len(SCENES),
    "needle": None,
    "location": 4,
    "place": len(SCENES),
}


@dataclass(frozen=True)
class Split:
    """A part of the data set.

    Attributes:
        name: of its folder.
        number: tells its random numbers from those of the others.
        questions: how many it has by default.
        families: asked about in equal numbers.
        file_frames: frames of a clip.
        samplings: numbers of sampled frames for which every question holds; the first is the default.
    """

    name: str
    number: int
    questions: int
    families: tuple[str, ...] = FAMILIES
    file_frames: int = FILE_FRAMES
    samplings: tuple[int, ...] = SAMPLINGS


SPLITS = {
    split.name: split
    for split in (
        Split("test", 0, 1008),
        Split("long", 1, 240, ("count", "order", "scene", "needle"), 128, (64,)),
        Split("val", 2, 504),
        Split("guard", 3, 200),
    )
}


@dataclass(frozen=True)
class Clip:
    """A world with the questions asked about it; ``number`` draws it again (:func:`draw_world`)."""

    number: int
    world: World
    questions: tuple[Question, ...]


def _shortened(world: World, rng: np.random.Generator, split: Split) -> World:
    """Brief objects shown in one or two of a long clip's sampled frames, anywhere in it."""
    times = sampled_times(split.samplings[0], split.file_frames)
    shown = int(rng.integers(1, 3))
    first = int(rng.integers(len(times) - shown + 1))
    gap = 0.4 * float(np.diff(times).min())
    appears, leaves = float(times[first]) - gap, float(times[first + shown - 1]) + gap
    things = (replace(thing, appears=appears, leaves=leaves) if thing.brief else thing for thing in world.things)
    return replace(world, things=tuple(things))


def draw_world(split: Split, seed: int, number: int) -> tuple[World, np.random.Generator]:
    """World ``number`` of a split, and the generator from which its questions are drawn next."""
    rng = np.random.default_rng([_SEED_BASE + seed, split.number, number])
    world = sample_world(rng, split.file_frames)
    return (world if split.file_frames == FILE_FRAMES else _shortened(world, rng, split)), rng


def _apart(candidate: Candidate, starts: NDArray[np.int64]) -> bool:
    """Whether the object that appears first or last is well away from the next one; ``starts`` ascend."""
    gap = starts[1] - starts[0] if " first " in candidate.text else starts[-1] - starts[-2]
    return bool(gap >= _LONG_MARGIN)


def askable(world: World, split: Split, rng: np.random.Generator) -> dict[str, list[Candidate]]:
    """Questions of the split's families that hold in each sampling by itself; none if the world is not sound."""
    facts = Facts(world, split.file_frames, split.samplings)
    if not facts.sound():
        return {}
    found = candidates(facts, rng)
    same: list[set[tuple[str, str, str]]] = []
    for place in range(len(split.samplings)):
        alone = copy(facts)
        alone.seen, alone.shots = [facts.seen[place]], [facts.shots[place]]
        every = candidates(alone, np.random.default_rng(0))
        same.append({(c.family, c.text, c.answer) for group in every.values() for c in group})
    if split.file_frames != FILE_FRAMES:
        starts = np.sort(facts.starts())
        found["order"] = [candidate for candidate in found["order"] if _apart(candidate, starts)]
    return {
        family: [c for c in found[family] if all((c.family, c.text, c.answer) in holds for holds in same)]
        for family in split.families
    }


def tells_nothing(question: Question) -> bool:
    """Whether the options alone leave every one of them possible.

    A direction is always offered with its opposite, so an option without its opposite would be a known wrong one.
    """
    offered = set(question.options)
    return question.family != "direction" or all(len(offered & set(pair)) != 1 for pair in _PAIRS)


def answer_kinds(family: str, answer: str) -> dict[str, int]:
    """What is balanced of an answer, with the number of its values: the word, or the color and the shape of a name."""
    kinds = _KINDS[family]
    if kinds is not None:
        return {answer: kinds}
    color, shape = answer.split()
    return {color: len(COLORS), shape: len(SHAPES)}


def family_sizes(split: Split, questions: int) -> dict[str, int]:
    """Questions of each family: equal numbers, the first families one more if they do not add up."""
    share, rest = divmod(questions, len(split.families))
    return {family: share + (place < rest) for place, family in enumerate(split.families)}


class _Balance:
    """What is still wanted."""

    def __init__(self, sizes: dict[str, int]) -> None:
        self.sizes, self.left = sizes, dict(sizes)
        self.offered: Counter[str] = Counter()
        self.answers: Counter[tuple[str, str]] = Counter()
        self.letters: Counter[tuple[str, str, int]] = Counter()

    def wants(self, candidate: Candidate) -> bool:
        """Whether neither the family nor the answer has been asked about often enough."""
        family = candidate.family
        kinds = answer_kinds(family, candidate.answer)
        spare = len(kinds) > 1  # the last free color with the last free shape would be long to wait for
        even = all(self.answers[family, key] < ceil(self.sizes[family] / n) + spare for key, n in kinds.items())
        return self.left[family] > 0 and even

    def urgency(self, family: str) -> float:
        """Questions wanted for each world that offers one."""
        return self.left[family] / (self.offered[family] + 1)

    def letter(self, candidate: Candidate) -> int:
        """The letter that this answer had least, of these the one its family had least, then all families."""
        keys = ((candidate.family, candidate.answer), (candidate.family, ""), ("", ""))
        return min(range(len(LETTERS)), key=lambda n: tuple(self.letters[*key, n] for key in keys))

    def take(self, question: Question) -> None:
        """Count a question."""
        family, answer = question.family, question.options[question.answer]
        self.left[family] -= 1
        self.answers.update((family, key) for key in answer_kinds(family, answer))
        self.letters.update((*key, question.answer) for key in ((family, answer), (family, ""), ("", "")))


def _ask(candidate: Candidate, letter: int, rng: np.random.Generator) -> Question:
    while True:
        question = with_options(candidate, rng)
        if question.answer == letter and tells_nothing(question):
            return question


def choose_clips(split: Split, questions: int, seed: int) -> Iterator[Clip]:
    """Draw worlds until every family has its questions.

    Args:
        split: what to draw.
        questions: in all, at least one for each family.
        seed: decides everything.
    """
    balance = _Balance(family_sizes(split, questions))
    number, refused, least = 0, 0, min(_PER_CLIP, len(split.families))
    while any(balance.left.values()):
        world, rng = draw_world(split, seed, number)
        number += 1
        wanted = {}
        for family, group in askable(world, split, rng).items():
            balance.offered[family] += bool(group)
            wanted[family] = [candidate for candidate in group if balance.wants(candidate)]
        families = sorted((f for f in wanted if wanted[f]), key=balance.urgency, reverse=True)[:_PER_CLIP]
        if len(families) < least:
            refused += 1
            if refused > _PATIENCE and least > 1:
                refused, least = 0, least - 1
            continue
        refused = 0
        asked = []
        for family in families:
            candidate = wanted[family][int(rng.integers(len(wanted[family])))]
            asked.append(_ask(candidate, balance.letter(candidate), rng))
            balance.take(asked[-1])
        yield Clip(number - 1, world, tuple(asked))
