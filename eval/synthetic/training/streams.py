"""Endless batches of worlds with questions, made by worker processes."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset

from eval.synthetic.questions import FAMILIES, Facts, Question, candidates, with_options
from eval.synthetic.raster import render
from eval.synthetic.training.codes import GRID, POOLED, seen_shares, target_codes
from eval.synthetic.training.prompts import Prompts, padded
from eval.synthetic.training.side_labels import SIDES, token_labels
from eval.synthetic.training.vision import VisionBatch
from eval.synthetic.world import (
    COLORS,
    SCENES,
    SHAPES,
    Shot,
    Thing,
    World,
    place_thing,
    sample_world,
    sampled_times,
)

_RARELY = 0.25
_OBJECTS_FIRST = 0.9  # share of videos
_HALVES = 0.6  # share of questions for a place, without options, that ask for one axis only
NEED_OPTIONS = ("existence",)  # families with several right answers


@dataclass(frozen=True)
class StreamConfig:
    """What a batch holds.

    Attributes:
        videos: per batch.
        questions: per video.
        frames: sampled per video; one of them is drawn for each batch.
        tokens_per_frame: kept visual tokens; one of them is drawn for each batch, 64 keeps all.
        prefer: head start of tokens that show objects; 1 takes them all before any other.
        letters: share of batches asked with options, the others want the words.
        families: that are asked.
        rare: families that are asked a quarter as often.
        firsts: how often a question for the first is kept; below 1 the last comes first to be learned.
        told: share of questions with options that carry their answer.
        stills: share of videos in which nothing happens: one scene, objects at rest.
        pixels: render frames instead of giving exact codes.
    """

    videos: int = 16
    questions: int = 12
    frames: tuple[int, ...] = (8,)
    tokens_per_frame: tuple[int, ...] = (12,)
    prefer: float = 1.0
    letters: float = 0.5
    families: tuple[str, ...] = FAMILIES
    rare: tuple[str, ...] = ()
    firsts: float = 1.0
    told: float = 0.1
    stills: float = 0.0
    pixels: bool = False


@dataclass
class Batch:
    """Videos with questions.

    Attributes:
        features: exact codes with noise, ``(videos, frames * kept, 128)``, or None with pixels.
        pixels: ``(videos, frames, 128, 128, 3)`` uint8, or None.
        kept: flat indices of the kept tokens among all, ``(videos, frames * kept)``.
        sides: labels of the kept tokens by name, ``(videos, frames * kept)``, see ``side_labels``.
        tokens, labels: ``(videos, questions, length)``; labels are -100 but for the answers.
        early: the answer's words from the question mark on, for questions that need no options, else -100.
        family: index into ``FAMILIES`` or -1, ``(videos, questions)``.
        with_letters: questions with options.
    """

    features: Tensor | None
    pixels: Tensor | None
    kept: Tensor
    sides: dict[str, Tensor]
    tokens: Tensor
    labels: Tensor
    early: Tensor
    family: Tensor
    with_letters: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
        present = {name: value for name, value in vars(self).items() if value is not None}
        moved: dict[str, Any] = {name: value.to(device) for name, value in present.items() if name != "sides"}
        moved["sides"] = {name: value.to(device) for name, value in self.sides.items()}
        return replace(self, **moved)


def draw_sound(rng: np.random.Generator) -> tuple[World, Facts]:
    """A world in which everything can be seen."""
    while True:
        world = sample_world(rng)
        facts = Facts(world)
        if facts.sound():
            return world, facts


def draw_still(rng: np.random.Generator) -> tuple[World, Facts]:
    """A world of one scene with objects at rest: every frame says everything."""
    while True:
        world = still_world(rng, int(rng.integers(1, 5)), True)
        facts = Facts(world, samplings=(1,))
        if facts.sound():
            return world, facts


def draw_questions(
    facts: Facts, count: int, families: Collection[str], config: StreamConfig, rng: np.random.Generator
) -> list[Question]:
    """Questions of as many of the families as apply, then more of the same, in random order."""
    found = candidates(facts, rng)
    groups = [group for family, group in found.items() if group and family in families]
    chosen: list[Question] = []
    while len(chosen) < count:
        for number in rng.permutation(len(groups)):
            candidate = groups[number][int(rng.integers(len(groups[number])))]
            skipped = rng.random() > _RARELY and candidate.family in config.rare
            if skipped or (rng.random() > config.firsts and " first" in candidate.text):
                continue
            chosen.append(with_options(candidate, rng))
    return chosen[:count]


def choose_tokens(
    shares: NDArray[np.float32], shots: int, kept: int, prefer: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Flat indices of ``kept`` tokens of every frame in order, for most videos those that show objects rather."""
    frames, _, cells = shares.shape
    score = rng.random((frames, cells))
    if rng.random() < _OBJECTS_FIRST:
        score += prefer * (shares[:, shots:].sum(axis=1) > 0.3)
    chosen = np.sort(np.argsort(-score, axis=1)[:, :kept], axis=1)
    return (chosen + cells * np.arange(frames)[:, None]).reshape(-1)


class VideoQuestions(IterableDataset[Batch]):
    """Endless batches; every batch depends on the seed and its number alone, whichever worker makes it."""

    def __init__(self, config: StreamConfig, tokenizer: str, seed: int, first: int = 0) -> None:
        self.config, self.tokenizer, self.seed, self.first = config, tokenizer, seed, first

    def __iter__(self) -> Iterator[Batch]:
        worker = torch.utils.data.get_worker_info()
        step, number = (1, 0) if worker is None else (worker.num_workers, worker.id)
        torch.set_num_threads(1)
        self.prompts = Prompts(self.tokenizer)
        number += self.first
        while True:
            yield self.batch(np.random.default_rng([self.seed, number]))
            number += step

    def _row(
        self, question: Question, letters: bool, helper: bool, rng: np.random.Generator
    ) -> tuple[list[int], list[int]]:
        if helper:
            return self.prompts.told(question) if letters else self.prompts.half(question, int(rng.integers(2)))
        return self.prompts.letters(question) if letters else self.prompts.words(question)

    def batch(self, rng: np.random.Generator) -> Batch:
        """One batch."""
        config = self.config
        frames, kept = int(rng.choice(config.frames)), int(rng.choice(config.tokens_per_frame))
        letters = rng.random() < config.letters  # for the whole batch: questions without options are half as long
        asked = [family for family in config.families if letters or family not in NEED_OPTIONS]
        times = sampled_times(frames)
        rows: list[tuple[list[int], list[int]]] = []
        family, with_letters = [], []
        early: list[tuple[int, list[int]]] = []
        parts: dict[str, list] = {"features": [], "pixels": [], "kept": [], "sides": []}
        for _ in range(config.videos):
            world, facts = draw_still(rng) if rng.random() < config.stills else draw_sound(rng)
            shares = seen_shares(world, times, 2 * POOLED, 1)
            pooled = shares.reshape(frames, -1, POOLED, 2, POOLED, 2).mean(axis=(3, 5)).reshape(frames, -1, POOLED**2)
            chosen = choose_tokens(pooled, len(world.shots), kept, config.prefer, rng)
            parts["kept"].append(torch.from_numpy(chosen))
            parts["sides"].append({name: row[chosen] for name, row in token_labels(world, pooled).items()})
            if config.pixels:
                parts["pixels"].append(torch.from_numpy(render(world, times)))
            else:
                codes = target_codes(world, pooled).flatten(0, 1)[chosen]
                noise = rng.standard_normal(codes.shape, dtype=np.float32)
                parts["features"].append(codes + 0.03 * torch.from_numpy(noise))
            for question in draw_questions(facts, config.questions, asked, config, rng):
                helper = rng.random() < (config.told if letters else _HALVES * (question.family == "location"))
                rows.append(self._row(question, letters, helper, rng))
                plain = not helper and question.family not in NEED_OPTIONS
                early.append(self.prompts.early(question) if plain else (0, []))
                family.append(-1 if helper else FAMILIES.index(question.family))
                with_letters.append(letters)
        tokens, labels = padded(rows, self.prompts.tokenizer.pad_token_id)
        marks = np.full_like(labels, -100)
        for row, (place, words) in enumerate(early):
            marks[row, place : place + len(words)] = words
        shape = (config.videos, config.questions)
        sides = {name: torch.from_numpy(np.stack([row[name] for row in parts["sides"]])) for name in SIDES}
        return Batch(
            torch.stack(parts["features"]) if parts["features"] else None,
            torch.stack(parts["pixels"]) if parts["pixels"] else None,
            torch.stack(parts["kept"]), sides,
            torch.from_numpy(tokens).view(*shape, -1), torch.from_numpy(labels).view(*shape, -1),
            torch.from_numpy(marks).view(*shape, -1),
            torch.tensor(family).view(shape), torch.tensor(with_letters).view(shape),
        )  # fmt: skip


def still_world(rng: np.random.Generator, count: int, apart: bool) -> World:
    """One scene with objects that stand still.

    Args:
        rng: source of every choice.
        count: number of objects.
        apart: unequal colors and places that do not touch, as far as that is possible.
    """
    shot = Shot(
        0.0, str(rng.choice(SCENES)), (float(rng.uniform(0, 256)), float(rng.uniform(0, 256))), (0.0, 0.0),
        float(rng.uniform(0.85, 1.12)),
    )  # fmt: skip
    colors = rng.permutation(len(COLORS))[:count] if apart else rng.integers(len(COLORS), size=count)
    things: list[Thing] = []
    for color in colors:
        words = (COLORS[color], str(rng.choice(SHAPES)), "still")
        if apart:
            things.append(place_thing(rng, words, (0.0, 1.0), False, things))
            continue
        radius = float(rng.uniform(0.1, 0.14))
        x, y = (float(value) for value in rng.uniform(radius, 1 - radius, 2))
        things.append(Thing(*words, radius, 0.0, 1.0, (x, y), 0.0))
    quality = int(rng.integers(35, 80)) if rng.random() < 0.6 else 0
    return World((shot,), tuple(things), 0.0, float(rng.uniform(0, 6)), quality, int(rng.integers(2**31)))


class Frames(IterableDataset[VisionBatch]):
    """Endless batches of single frames with labels for every patch."""

    def __init__(self, frames: int, crowded: float, seed: int, first: int = 0) -> None:
        self.frames, self.crowded, self.seed, self.first = frames, crowded, seed, first

    def __iter__(self) -> Iterator[VisionBatch]:
        worker = torch.utils.data.get_worker_info()
        step, number = (1, 0) if worker is None else (worker.num_workers, worker.id)
        torch.set_num_threads(1)
        number += self.first
        while True:
            yield self.batch(np.random.default_rng([self.seed, number]))
            number += step

    def batch(self, rng: np.random.Generator) -> VisionBatch:
        """One batch."""
        rows: list[tuple[Tensor, ...]] = []
        while len(rows) < self.frames:
            world = (
                still_world(rng, int(rng.integers(3, 9)), False) if rng.random() < self.crowded else sample_world(rng)
            )
            rows.append(_labelled_frame(world, rng.random(1)))
        return VisionBatch(*(torch.stack(column) for column in zip(*rows, strict=True)))


def _labelled_frame(world: World, time: NDArray[np.float64]) -> tuple[Tensor, ...]:
    shares = seen_shares(world, time, GRID, 4)
    top, most = shares[0].argmax(axis=0), shares[0].max(axis=0)
    shots = len(world.shots)
    colors = [-100] * shots + [COLORS.index(thing.color) for thing in world.things]
    shapes = [-100] * shots + [SHAPES.index(thing.shape) for thing in world.things]
    scenes = [SCENES.index(shot.scene) for shot in world.shots] + [-100] * len(world.things)
    labels = (torch.from_numpy(np.where(most > 0.6, np.array(names)[top], -100)) for names in (colors, shapes, scenes))
    objects = torch.from_numpy(shares[0, shots:].sum(axis=0))
    return (torch.from_numpy(render(world, time))[0], target_codes(world, shares)[0], objects, *labels)
