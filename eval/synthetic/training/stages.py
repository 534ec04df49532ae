"""The recipe: what is trained in which order, on what, for how long, and what each stage must reach."""

from dataclasses import dataclass, field, replace
from typing import Literal

from eval.synthetic.training.model import FIRST_LAYERS, LAYERS
from eval.synthetic.training.streams import StreamConfig


@dataclass(frozen=True)
class Stage:
    """One stage of training.

    Attributes:
        name: of its folder and its lines in the log.
        kind: ``tower`` trains the vision tower and the projector, ``language`` the decoder behind a tower at rest.
        steps: optimizer steps.
        rate: highest learning rate of matrices.
        vectors: factor on it for embeddings, norms and biases.
        warmup: steps to reach it.
        decay: share of the steps at the end over which it falls.
        seed: of the stage's data.
        tower, language: stages whose weights it starts from; None keeps the start.
        stream: questions of a language stage.
        sides: labels of visual tokens that a language stage learns beside the answers.
        layers: of the decoder.
        matched: layers whose attention begins anew as a search for equal content.
        early: layer before which the answer must stand at the question mark, see ``language_outcome``.
        frames, crowded: of a tower stage: frames per batch and share of them that are full of objects.
        gates: least value of named validation numbers.
    """

    name: str
    kind: Literal["tower", "language"]
    steps: int
    rate: float
    seed: int
    vectors: float = 1.0
    warmup: int = 50
    decay: float = 0.3
    tower: str | None = None
    language: str | None = None
    stream: StreamConfig = field(default_factory=StreamConfig)
    sides: tuple[str, ...] = ("motion", "things", "shots")
    layers: int = FIRST_LAYERS
    matched: tuple[int, ...] = ()
    early: int | None = None
    frames: int = 16
    crowded: float = 0.8
    gates: dict[str, float] = field(default_factory=dict)


_HISTORY = ("motion", "things", "color", "shape", "scene", "opening", "earliest", "latest")
_HISTORY_AND_SHOTS = (*_HISTORY, "shots")
# what stages ask, where several ask alike
_TIME = StreamConfig(
    videos=8, questions=10, tokens_per_frame=(12, 24), prefer=0.6, told=0.05,
    families=("direction", "attribute", "shots", "order", "scene", "needle", "location", "place"),
)  # fmt: skip
_ORDER = replace(_TIME, letters=0.6)
_MIXED = StreamConfig(videos=8, frames=(8, 8, 16), tokens_per_frame=(12, 20), prefer=0.6, letters=0.7, stills=0.05)
_LAST = replace(
    _MIXED, frames=(8,), letters=0.6, told=0.15, firsts=0.2,
    rare=("shape", "color", "count", "existence", "shots", "attribute"),
)  # fmt: skip
_SETTLE = replace(_MIXED, letters=0.9, told=0.05, firsts=0.4, rare=("scene", "place", "location"))
STAGES = (
    Stage(
        "tower", "tower", steps=4000, rate=3e-3, seed=2, warmup=100, decay=0.4,
        gates={"color": 0.99, "shape": 0.95, "scene": 0.99, "recall": 0.85},
    ),
    Stage(
        "stills", "language", steps=1785, rate=3e-3, seed=1, decay=0.0,
        stream=StreamConfig(videos=24, questions=8, frames=(1,), tokens_per_frame=(16,), told=0.5, stills=1.0),
        gates={"words.shape": 0.85, "letters.existence": 0.85},
    ),
    Stage(
        "lookups", "language", steps=741, rate=2e-3, seed=4, vectors=0.3, decay=0.0, language="stills",
        stream=StreamConfig(
            videos=12, questions=8, frames=(1,), tokens_per_frame=(16,), told=0.3, stills=1.0,
            families=("existence", "shape", "color", "count", "location"),
        ),
        gates={"letters.color": 0.85, "letters.told": 0.8},
    ),
    Stage(
        "codes", "language", steps=875, rate=2e-3, seed=3, vectors=0.3, decay=0.0, language="lookups",
        stream=StreamConfig(videos=8, tokens_per_frame=(10, 16), letters=0.6, stills=0.2),
        gates={"letters.color": 0.9},
    ),
    Stage(
        "events", "language", steps=685, rate=2e-3, seed=7, vectors=0.3, decay=0.0, language="codes",
        stream=StreamConfig(videos=8, tokens_per_frame=(12, 24), prefer=0.6, letters=0.6, stills=0.1),
        gates={"letters.count": 0.9},
    ),
    Stage(
        "time", "language", steps=1568, rate=3e-3, seed=8, vectors=0.5, decay=0.0, language="events",
        stream=_TIME,
        gates={"letters.shots": 0.8},
    ),
    Stage(
        "order", "language", steps=1328, rate=2e-3, seed=9, vectors=0.3, decay=0.0, language="time",
        sides=("motion", "things", "shots", "color", "shape", "ground"),
        stream=_ORDER,
        gates={"letters.attribute": 0.75},
    ),
    Stage(
        "history", "language", steps=640, rate=2e-3, seed=10, vectors=0.3, decay=0.0, language="order",
        sides=_HISTORY,
        stream=_ORDER,
        gates={"letters.attribute": 0.75},
    ),
    Stage(
        "together", "language", steps=622, rate=2e-3, seed=11, vectors=0.3, decay=0.0, language="history",
        sides=_HISTORY,
        stream=_MIXED,
        gates={"letters.existence": 0.9},
    ),
    Stage(
        "deeper", "language", steps=554, rate=2e-3, seed=12, vectors=0.3, decay=0.0, language="together",
        layers=LAYERS, sides=_HISTORY, stream=_MIXED,
        gates={"letters.color": 0.85},
    ),
    Stage(
        "last", "language", steps=404, rate=2.5e-3, seed=13, vectors=0.4, decay=0.0, language="deeper",
        layers=LAYERS, sides=_HISTORY_AND_SHOTS,
        stream=_LAST,
        gates={"letters.color": 0.85},
    ),
    Stage(
        "early", "language", steps=664, rate=2e-3, seed=14, vectors=0.3, decay=0.0, language="last",
        layers=LAYERS, early=5, sides=_HISTORY_AND_SHOTS,
        stream=replace(_LAST, letters=0.7, told=0.1, firsts=0.4),
        gates={"letters.color": 0.85},
    ),
    Stage(
        "match", "language", steps=506, rate=2e-3, seed=15, vectors=0.3, decay=0.0, language="early",
        layers=LAYERS, matched=(6,), early=5, sides=_HISTORY_AND_SHOTS,
        stream=replace(_LAST, letters=0.8, told=0.1, firsts=0.5),
        gates={"letters.color": 0.85},
    ),
    Stage(
        "options", "language", steps=378, rate=2e-3, seed=16, vectors=0.5, decay=0.0, language="match",
        layers=LAYERS, early=5, sides=_HISTORY_AND_SHOTS,
        stream=replace(_LAST, letters=0.85, told=0.35, firsts=0.7),
        gates={"letters.color": 0.85},
    ),
    Stage(
        "settle", "language", steps=1100, rate=2e-3, seed=17, vectors=0.3, decay=0.7, language="options",
        layers=LAYERS, early=5, sides=_HISTORY_AND_SHOTS,
        stream=_SETTLE,
        gates={"letters.mean": 0.75},
    ),
    Stage(
        "full", "language", steps=180, rate=1e-3, seed=6, vectors=0.3, decay=0.8, tower="tower", language="settle",
        layers=LAYERS, early=5, sides=_HISTORY,
        stream=StreamConfig(
            videos=8, frames=(8, 16), tokens_per_frame=(64,), letters=1.0, told=0.0, firsts=0.4,
            rare=_SETTLE.rare, pixels=True,
        ),
        gates={"letters.mean": 0.75},
    ),
)  # fmt: skip
