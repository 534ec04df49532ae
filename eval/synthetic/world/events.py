"""What happens in a rendered video: scenes, cuts and objects that appear, move and leave. Pure description, no pixels.

Lengths and positions are shares of the frame's side, times are shares of the video's length. Everything is drawn from
one ``numpy.random.Generator``, so a seed fixes a video.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

COLORS = ("red", "green", "blue", "yellow", "purple", "cyan", "black")
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
SCENES = ("brick", "grass", "sand", "water", "wood", "snow")
MOTIONS = ("left", "right", "up", "down", "around", "still")
FILE_FRAMES = 32  # frames of a regular clip
_STEPS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
_MARGIN = 0.01
_CANDIDATES = 12  # paths tried for an object; the one that hides others least is taken


@dataclass(frozen=True)
class Shot:
    """A stretch of video between two cuts.

    Attributes:
        start: time of its first moment.
        scene: one of ``SCENES``.
        origin: where the texture's crop begins, in texture pixels.
        pan: how far the crop moves over the whole video, in texture pixels.
        light: factor on its brightness.
    """

    start: float
    scene: str
    origin: tuple[float, float]
    pan: tuple[float, float]
    light: float


@dataclass(frozen=True)
class Thing:
    """An object of the video.

    Attributes:
        color, shape, motion: words of the world.
        radius: half its extent.
        appears, leaves: it is visible in this closed interval of times.
        start: its centre when it appears; for ``around`` the centre of its circle.
        travel: how far it moves while visible; for ``around`` the radius of its circle.
        turns, phase: of ``around``; turns carry the sense of rotation.
        brief: shown in one of eight sampled frames only.
    """

    color: str
    shape: str
    motion: str
    radius: float
    appears: float
    leaves: float
    start: tuple[float, float]
    travel: float
    turns: float = 0.0
    phase: float = 0.0
    brief: bool = False

    @property
    def name(self) -> str:
        """As it is called in options."""
        return f"{self.color} {self.shape}"

    def visible(self, times: NDArray[np.float64]) -> NDArray[np.bool_]:
        """At which times it is shown."""
        return (times >= self.appears) & (times <= self.leaves)

    def centers(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """Centre at each time, ``(times, 2)`` as x, y; meaningful where visible."""
        share = np.clip((times - self.appears) / (self.leaves - self.appears), 0, 1)
        x, y = self.start
        if self.motion == "around":
            angle = 2 * np.pi * (self.phase + self.turns * share)
            return np.stack([x + self.travel * np.cos(angle), y + self.travel * np.sin(angle)], axis=1)
        step = _STEPS.get(self.motion, (0, 0))
        return np.stack([x + step[0] * self.travel * share, y + step[1] * self.travel * share], axis=1)


@dataclass(frozen=True)
class World:
    """A video's description.

    Attributes:
        shots: in order of time; the first starts at 0.
        things: in the order they are painted.
        shake: standard deviation of the camera's jitter in pixels of a 128-pixel frame.
        noise: standard deviation of the sensor's noise in grey levels.
        quality: JPEG quality of the compression noise, or 0 for none.
        seed: of the pixel noise.
    """

    shots: tuple[Shot, ...]
    things: tuple[Thing, ...]
    shake: float
    noise: float
    quality: int
    seed: int

    def shot_at(self, times: NDArray[np.float64]) -> NDArray[np.int64]:
        """Index of the shot at each time."""
        return np.searchsorted([shot.start for shot in self.shots], times, side="right") - 1


def sampled_times(frames: int, file_frames: int = FILE_FRAMES) -> NDArray[np.float64]:
    """Times of the frames that uniform sampling takes: ``linspace`` over the file's indices, rounded down."""
    return np.linspace(0, file_frames - 1, frames).astype(np.int64) / (file_frames - 1)


def _lifetime(rng: np.random.Generator) -> tuple[float, float]:
    kind = rng.random()
    if kind < 0.45:
        return 0.0, 1.0
    if kind < 0.75:
        return float(rng.uniform(0.2, 0.55)), 1.0
    return 0.0, float(rng.uniform(0.45, 0.8))


def _path(rng: np.random.Generator, motion: str, radius: float) -> tuple[tuple[float, float], float]:
    low, high = radius + _MARGIN, 1 - radius - _MARGIN
    if motion == "around":
        travel = float(rng.uniform(0.13, 0.2))
        x, y = rng.uniform(low + travel, high - travel, 2)
        return (float(x), float(y)), travel
    if motion == "still":  # off the mid lines, so that its quadrant is clear
        x, y = (float(rng.uniform(low, 0.38) if rng.random() < 0.5 else rng.uniform(0.62, high)) for _ in range(2))
        return (x, y), 0.0
    travel = float(rng.uniform(0.36, 0.6))
    along = rng.uniform(low, high - travel)
    across = float(rng.uniform(low, high))
    if motion in ("left", "up"):
        along += travel
    return ((float(along), across) if motion in ("left", "right") else (across, float(along))), travel


def _overlap(thing: Thing, others: Sequence[Thing], times: NDArray[np.float64]) -> float:
    """How much of the time an object touches others, weighted by depth."""
    total = 0.0
    centers, shown = thing.centers(times), thing.visible(times)
    for other in others:
        both = shown & other.visible(times)
        reach = 0.85 * (thing.radius + other.radius)
        distance = np.abs(centers - other.centers(times)).max(axis=1)
        total += float((np.maximum(reach - distance, 0) * both).sum())
    return total


def place_thing(
    rng: np.random.Generator, words: tuple[str, str, str], life: tuple[float, float], brief: bool, others: list[Thing]
) -> Thing:
    """An object on the path, of some tried, on which it touches others least.

    Args:
        rng: source of every choice.
        words: color, shape and motion.
        life: when it appears and leaves.
        brief: as in :class:`Thing`.
        others: objects that are there already.
    """
    color, shape, motion = words
    times = np.linspace(0, 1, 16)
    best, least = None, np.inf
    for _ in range(_CANDIDATES):
        radius = float(rng.uniform(0.1, 0.14))
        start, travel = _path(rng, motion, radius)
        turns = float(rng.uniform(0.9, 1.4) * rng.choice((-1, 1)))
        thing = Thing(
            color, shape, motion, radius, *life, start, travel, turns=turns, phase=float(rng.random()), brief=brief
        )
        overlap = _overlap(thing, others, times)
        if overlap < least:
            best, least = thing, overlap
        if overlap == 0:
            break
    assert best is not None
    return best


def _shots(rng: np.random.Generator) -> tuple[Shot, ...]:
    count = int(rng.choice((1, 2, 3, 4), p=(0.3, 0.3, 0.25, 0.15)))
    shortest = 0.2 if count == 4 else 0.25
    lengths = shortest + rng.dirichlet(np.ones(count)) * (1 - count * shortest)
    starts = np.concatenate([[0.0], np.cumsum(lengths)[:-1]])
    scenes = rng.permutation(len(SCENES))[:count]
    shots = []
    for start, scene in zip(starts, scenes, strict=True):
        pan = rng.uniform(-60, 60, 2) if rng.random() < 0.4 else np.zeros(2)
        x, y = rng.uniform(0, 256, 2)
        light = float(rng.uniform(0.85, 1.12))
        shots.append(Shot(float(start), SCENES[scene], (float(x), float(y)), (float(pan[0]), float(pan[1])), light))
    return tuple(shots)


def _brief_life(rng: np.random.Generator, file_frames: int) -> tuple[float, float]:
    """Around one of eight uniformly sampled frames, so that it is seen in exactly that one of them."""
    middle = rng.choice(sampled_times(8, file_frames))
    half = 1.6 / (FILE_FRAMES - 1)
    return float(middle - half), float(middle + half)


def sample_world(rng: np.random.Generator, file_frames: int = FILE_FRAMES) -> World:
    """Draw a video.

    Args:
        rng: source of every choice.
        file_frames: frames the clip will have; brief objects are placed on frames that sampling meets.
    """
    shots = _shots(rng)
    count = int(rng.integers(1, 5))
    colors = rng.permutation(len(COLORS))[:count]
    brief = int(rng.integers(count)) if count > 1 and rng.random() < 0.5 else -1
    things: list[Thing] = []
    for number, color in enumerate(colors):
        life = _brief_life(rng, file_frames) if number == brief else _lifetime(rng)
        motion = "still" if number == brief else str(rng.choice(MOTIONS, p=(0.15, 0.15, 0.15, 0.15, 0.15, 0.25)))
        words = (COLORS[color], str(rng.choice(SHAPES)), motion)
        things.append(place_thing(rng, words, life, number == brief, things))
    return World(
        shots=shots,
        things=tuple(things),
        shake=float(rng.uniform(0.5, 1.5)) if rng.random() < 0.25 else 0.0,
        noise=float(rng.uniform(0, 6)),
        quality=int(rng.integers(35, 80)) if rng.random() < 0.6 else 0,
        seed=int(rng.integers(2**31)),
    )
