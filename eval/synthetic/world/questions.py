"""Questions about a world, with options and the right answer; every fact holds in the frames that a model sees.

The families follow question types of MVBench, VideoMME and LongVideoBench: moving direction, object existence, moving
attribute, moving count, action order, scene transition, needle.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.synthetic.world.events import COLORS, FILE_FRAMES, MOTIONS, SCENES, SHAPES, Thing, World, sampled_times
from eval.synthetic.world.raster import composition

OPTIONS = 4
SAMPLINGS = (8, 16)  # frames per clip for which every question is answerable
POST_PROMPT = "Answer with the option's letter from the given choices directly."
_NUMBERS = ("one", "two", "three", "four")
_QUADRANTS = ("top left", "top right", "bottom left", "bottom right")
_OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}
_MOVING = {
    "left": "moving left",
    "right": "moving right",
    "up": "moving up",
    "down": "moving down",
    "around": "moving around",
    "still": "standing still",
}
_LEAST_SEEN = 0.6  # share of an object's painted area that nothing may hide


@dataclass(frozen=True)
class Question:
    """A multiple-choice question.

    Attributes:
        family: the kind of question.
        text: without the options.
        options: four of them.
        answer: index of the right one.
    """

    family: str
    text: str
    options: tuple[str, ...]
    answer: int

    @property
    def prompt(self) -> str:
        """As the model reads it, after the video."""
        lines = [f"{letter}. {option}" for letter, option in zip("ABCD", self.options, strict=True)]
        return "\n".join((self.text, *lines, POST_PROMPT))


@dataclass(frozen=True)
class Candidate:
    """A question before its options are drawn: wrong answers in groups, the most tempting group first."""

    family: str
    text: str
    answer: str
    wrong: tuple[tuple[str, ...], ...]


class Facts:
    """What can be seen of a world.

    Attributes:
        world: the world.
        seen: for each sampling, whether each object is clearly seen in each frame, ``(things, frames)``.
        shots: for each sampling, the shot of each frame.
    """

    def __init__(self, world: World, file_frames: int = FILE_FRAMES, samplings: Sequence[int] = SAMPLINGS) -> None:
        self.world = world
        self.seen: list[NDArray[np.bool_]] = []
        self.shots: list[NDArray[np.int64]] = []
        for frames in samplings:
            times = sampled_times(frames, file_frames)
            self.seen.append(_clearly_seen(world, times))
            self.shots.append(world.shot_at(times))

    def sound(self) -> bool:
        """Whether every object and every shot shows in every sampling, and only brief objects are brief."""
        shots = all(len(set(shots.tolist())) == len(self.world.shots) for shots in self.shots)
        return shots and all(self._shown(number) for number in range(len(self.world.things)))

    def _shown(self, number: int) -> bool:
        brief = self.world.things[number].brief
        return all(seen[number].sum() >= (1 if brief else min(3, seen.shape[1])) for seen in self.seen)

    def frames(self, number: int) -> int:
        """In how many frames of the sparsest sampling an object is seen."""
        return int(self.seen[0][number].sum())

    def scenes_of(self, number: int) -> set[str]:
        """Scenes on which an object is seen."""
        pairs = zip(self.seen, self.shots, strict=True)
        return {self.world.shots[shot].scene for seen, shots in pairs for shot in shots[seen[number]]}

    def starts(self) -> NDArray[np.int64]:
        """Frame of the sparsest sampling in which each object is seen first."""
        return self.seen[0].argmax(axis=1)


def _clearly_seen(world: World, times: NDArray[np.float64]) -> NDArray[np.bool_]:
    shares = composition(world, times, 16, 1)[:, 1:].sum(axis=(2, 3)).T
    whole = np.zeros_like(shares)
    for number, thing in enumerate(world.things):
        alone = World(world.shots, (thing,), 0, 0, 0, 0)
        whole[number] = composition(alone, times, 16, 1)[:, 1].sum(axis=(1, 2))
    return (whole > 0) & (shares >= _LEAST_SEEN * whole)


def _names(things: Sequence[Thing], but: Thing) -> tuple[str, ...]:
    return tuple(thing.name for thing in things if thing is not but)


def _absent(world: World, rng: np.random.Generator) -> tuple[str, ...]:
    present = {thing.color for thing in world.things}
    return tuple(f"{color} {rng.choice(SHAPES)}" for color in COLORS if color not in present)


def _direction(facts: Facts, rng: np.random.Generator) -> Iterator[Candidate]:
    for number, thing in enumerate(facts.world.things):
        if thing.brief or facts.frames(number) < 4:
            continue
        tempting = tuple(_OPPOSITE[m] for m in (thing.motion,) if m in _OPPOSITE)
        text = f"In which direction does the {thing.color} object move?"
        yield Candidate("direction", text, thing.motion, (tempting, MOTIONS))


def _existence(facts: Facts, rng: np.random.Generator) -> Iterator[Candidate]:
    for thing in facts.world.things:
        yield Candidate("existence", "Which object appears in the video?", thing.name, (_absent(facts.world, rng),))


def _attribute(facts: Facts, rng: np.random.Generator) -> Iterator[Candidate]:
    things = facts.world.things
    for number, thing in enumerate(things):
        alone = sum(other.motion == thing.motion for other in things) == 1
        if len(things) > 1 and alone and not thing.brief and facts.frames(number) >= 4:
            text = f"What is the color of the object {_MOVING[thing.motion]}?"
            yield Candidate("attribute", text, thing.color, (tuple(other.color for other in things), COLORS))


def _shape(facts: Facts, rng: np.random.Generator) -> Iterator[Candidate]:
    shapes = tuple(thing.shape for thing in facts.world.things)
    for thing in facts.world.things:
        yield Candidate("shape", f"What is the shape of the {thing.color} object?", thing.shape, (shapes, SHAPES))


def _color(facts: Facts, rng: np.random.Generator) -> Iterator[Candidate]:
    things = facts.world.things
    for thing in things:
        if sum(other.shape == thing.shape for other in things) == 1:
            colors = tuple(other.color for other in things)
            yield Candidate("color", f"What is the color of the {thing.shape}?", thing.color, (colors, COLORS))


def _count(facts: Facts, rng: np.random.Generator) -> Iterator[Candidate]:
    answer = _NUMBERS[len(facts.world.things) - 1]
    yield Candidate("count", "How many different objects appear in the video?", answer, (_NUMBERS,))


def _shots(facts: Facts, rng: np.random.Generator) -> Iterator[Candidate]:
    answer = _NUMBERS[len(facts.world.shots) - 1]
    yield Candidate("shots", "How many different scenes does the video show?", answer, (_NUMBERS,))


def _order(facts: Facts, rng: np.random.Generator) -> Iterator[Candidate]:
    things, starts = facts.world.things, facts.starts()
    ranked = np.argsort(starts, kind="stable")
    for word, rank, neighbour in (("first", 0, 1), ("last", -1, -2)):
        if len(things) > 1 and abs(int(starts[ranked[rank]] - starts[ranked[neighbour]])) >= 1:
            thing = things[ranked[rank]]
            wrong = (_names(things, thing), _absent(facts.world, rng))
            yield Candidate("order", f"Which object appears {word} in the video?", thing.name, wrong)


def _scene(facts: Facts, rng: np.random.Generator) -> Iterator[Candidate]:
    scenes = tuple(shot.scene for shot in facts.world.shots)
    if len(scenes) > 1:
        for word, answer in (("first", scenes[0]), ("last", scenes[-1])):
            yield Candidate("scene", f"Which scene does the video show {word}?", answer, (scenes, SCENES))


def _needle(facts: Facts, rng: np.random.Generator) -> Iterator[Candidate]:
    things = facts.world.things
    for thing in things:
        if thing.brief:
            wrong = (_names(things, thing), _absent(facts.world, rng))
            yield Candidate("needle", "Which object is shown only briefly?", thing.name, wrong)


def _location(facts: Facts, rng: np.random.Generator) -> Iterator[Candidate]:
    for thing in facts.world.things:
        if thing.motion == "still":
            x, y = thing.start
            answer = _QUADRANTS[2 * (y > 0.5) + (x > 0.5)]
            yield Candidate("location", f"Where is the {thing.color} object?", answer, (_QUADRANTS,))


def _place(facts: Facts, rng: np.random.Generator) -> Iterator[Candidate]:
    scenes = tuple(shot.scene for shot in facts.world.shots)
    for number, thing in enumerate(facts.world.things):
        found = facts.scenes_of(number)
        whole = {facts.world.shots[i].scene for i in facts.world.shot_at(np.array((thing.appears, thing.leaves)))}
        if len(scenes) > 1 and len(found) == 1 and whole == found:
            text = f"In which scene does the {thing.color} object appear?"
            yield Candidate("place", text, found.pop(), (scenes, SCENES))


_MAKERS: dict[str, Callable[[Facts, np.random.Generator], Iterator[Candidate]]] = {
    "direction": _direction,
    "existence": _existence,
    "attribute": _attribute,
    "shape": _shape,
    "color": _color,
    "count": _count,
    "shots": _shots,
    "order": _order,
    "scene": _scene,
    "needle": _needle,
    "location": _location,
    "place": _place,
}
FAMILIES = tuple(_MAKERS)
# The tiny model did not learn the others: their numbers are shown beside the score, and its card says why.
SCORED = ("direction", "existence", "attribute", "shape", "color", "count", "shots", "order", "needle")


def candidates(facts: Facts, rng: np.random.Generator) -> dict[str, list[Candidate]]:
    """Every question that can be asked about a world, by family; empty lists for families that do not apply."""
    return {family: list(make(facts, rng)) for family, make in _MAKERS.items()}


def with_options(candidate: Candidate, rng: np.random.Generator) -> Question:
    """Draw three wrong answers, tempting ones first, and put the four in random order."""
    wrong: list[str] = []
    for group in candidate.wrong:
        fresh = sorted(set(group) - {candidate.answer, *wrong})
        wrong += [fresh[number] for number in rng.permutation(len(fresh))]
    options = [candidate.answer, *wrong[: OPTIONS - 1]]
    order = rng.permutation(OPTIONS)
    shuffled = tuple(options[number] for number in order)
    return Question(candidate.family, candidate.text, shuffled, int(np.flatnonzero(order == 0)[0]))
