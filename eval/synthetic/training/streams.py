"""Endless batches of worlds with questions, made by worker processes."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eval.synthetic.training.codes import pooled_shares, target_codes
from eval.synthetic.training.drawn_worlds import draw_sound, draw_still
from eval.synthetic.training.numbered import Numbered
from eval.synthetic.training.prompts import Prompts, padded
from eval.synthetic.training.side_labels import SIDES, token_labels
from eval.synthetic.world.events import World, sampled_times
from eval.synthetic.world.questions import FAMILIES, Facts, Question, candidates, with_options
from eval.synthetic.world.raster import render

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


class VideoQuestions(Numbered[Batch]):
    """Endless batches of videos with questions.

    Args:
        config: what a batch holds.
        tokenizer: folder of the tokenizer's files.
        seed, first: see :class:`Numbered`.
    """

    def __init__(self, config: StreamConfig, tokenizer: str, seed: int, first: int = 0) -> None:
        super().__init__(seed, first)
        self.config, self.tokenizer = config, tokenizer

    @cached_property
    def prompts(self) -> Prompts:
        """Made where it is first asked for: in the worker."""
        return Prompts(self.tokenizer)

    def _row(
        self, question: Question, letters: bool, helper: bool, rng: np.random.Generator
    ) -> tuple[list[int], list[int]]:
        if helper:
            return self.prompts.told(question) if letters else self.prompts.half(question, int(rng.integers(2)))
        return self.prompts.letters(question) if letters else self.prompts.words(question)

    def _video(
        self, world: World, times: NDArray[np.float64], kept: int, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """One video's share of a batch: kept tokens, their side labels by name, and pixels or features."""
        pooled = pooled_shares(world, times, 1)
        chosen = choose_tokens(pooled, len(world.shots), kept, self.config.prefer, rng)
        part = {name: torch.from_numpy(row[chosen]) for name, row in token_labels(world, pooled).items()}
        part["kept"] = torch.from_numpy(chosen)
        if self.config.pixels:
            return {**part, "pixels": torch.from_numpy(render(world, times))}
        codes = target_codes(world, pooled).flatten(0, 1)[chosen]
        noise = rng.standard_normal(codes.shape, dtype=np.float32)
        return {**part, "features": codes + 0.03 * torch.from_numpy(noise)}

    def batch(self, rng: np.random.Generator) -> Batch:
        """One batch."""
        config = self.config
        frames, kept = int(rng.choice(config.frames)), int(rng.choice(config.tokens_per_frame))
        letters = rng.random() < config.letters  # for the whole batch: questions without options are half as long
        asked = [family for family in config.families if letters or family not in NEED_OPTIONS]
        times = sampled_times(frames)
        videos: list[dict[str, Tensor]] = []
        rows: list[tuple[list[int], list[int]]] = []
        early: list[tuple[int, list[int]]] = []
        family = []
        for _ in range(config.videos):
            world, facts = draw_still(rng) if rng.random() < config.stills else draw_sound(rng)
            videos.append(self._video(world, times, kept, rng))
            for question in draw_questions(facts, config.questions, asked, config, rng):
                helper = rng.random() < (config.told if letters else _HALVES * (question.family == "location"))
                rows.append(self._row(question, letters, helper, rng))
                plain = not helper and question.family not in NEED_OPTIONS
                early.append(self.prompts.early(question) if plain else (0, []))
                family.append(-1 if helper else FAMILIES.index(question.family))
        tokens, labels = padded(rows, self.prompts.tokenizer.pad_token_id)
        marks = np.full_like(labels, -100)
        for row, (place, words) in enumerate(early):
            marks[row, place : place + len(words)] = words
        shape = (config.videos, config.questions)
        stacked = {name: torch.stack([video[name] for video in videos]) for name in videos[0]}
        return Batch(
            stacked.get("features"),
            stacked.get("pixels"),
            stacked["kept"],
            {name: stacked[name] for name in SIDES},
            torch.from_numpy(tokens).view(*shape, -1),
            torch.from_numpy(labels).view(*shape, -1),
            torch.from_numpy(marks).view(*shape, -1),
            torch.tensor(family).view(shape),
            torch.full(shape, letters),
        )
