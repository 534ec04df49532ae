"""The recipe: what is trained in which order, on what, for how long, and what each stage must reach."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

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
_PLACES = "direction attribute shots order scene needle location place"
_TIME = StreamConfig(8, 10, tokens_per_frame=(12, 24), prefer=0.6, told=0.05, families=tuple(_PLACES.split()))
_ORDER = replace(_TIME, letters=0.6)
_MIXED = StreamConfig(videos=8, frames=(8, 8, 16), tokens_per_frame=(12, 20), prefer=0.6, letters=0.7, stills=0.05)
_COMMON = ("shape", "color", "count", "existence", "shots", "attribute")
_LAST = replace(_MIXED, frames=(8,), letters=0.6, told=0.15, firsts=0.2, rare=_COMMON)
_EARLY, _MATCH = replace(_LAST, letters=0.7, told=0.1, firsts=0.4), replace(_LAST, letters=0.8, told=0.1, firsts=0.5)
_OPTIONS = replace(_LAST, letters=0.85, told=0.35, firsts=0.7)
_SETTLE = replace(_MIXED, letters=0.9, told=0.05, firsts=0.4, rare=("scene", "place", "location"))
_STILLS = StreamConfig(24, 8, frames=(1,), tokens_per_frame=(16,), told=0.5, stills=1.0)
_LOOKUPS = replace(_STILLS, videos=12, told=0.3, families=("existence", "shape", "color", "count", "location"))
_CODES = StreamConfig(videos=8, tokens_per_frame=(10, 16), letters=0.6, stills=0.2)
_EVENTS = StreamConfig(videos=8, tokens_per_frame=(12, 24), prefer=0.6, letters=0.6, stills=0.1)
_FULL = StreamConfig(
    8, frames=(8, 16), tokens_per_frame=(64,), letters=1.0, told=0.0, firsts=0.4, rare=_SETTLE.rare, pixels=True
)
_TOWER_GATES = {"color": 0.99, "shape": 0.95, "scene": 0.99, "recall": 0.85}
_TOLD_GATES = {"letters.color": 0.85, "letters.told": 0.8}
_ORDER_SIDES = ("motion", "things", "shots", "color", "shape", "ground")
_FULL_SETTINGS = {"rate": 1e-3, "decay": 0.8, "tower": "tower", "layers": LAYERS, "early": 5, "sides": _HISTORY}
_DEEP: dict[str, Any] = {"layers": LAYERS, "sides": _HISTORY_AND_SHOTS}


def _language(
    name: str, before: str | None, steps: int, seed: int, stream: StreamConfig, gates: dict[str, float], **rest: Any
) -> Stage:
    """A stage of the decoder that starts from the stage ``before``."""
    usual: dict[str, Any] = {"rate": 2e-3, "vectors": 0.3, "decay": 0.0}
    return Stage(name, "language", steps, seed=seed, language=before, stream=stream, gates=gates, **usual | rest)


STAGES = (
    Stage("tower", "tower", steps=4000, rate=3e-3, seed=2, warmup=100, decay=0.4, gates=_TOWER_GATES),
    _language(
        "stills", None, 1785, 1, _STILLS, {"words.shape": 0.85, "letters.existence": 0.85}, rate=3e-3, vectors=1.0
    ),
    _language("lookups", "stills", 741, 4, _LOOKUPS, _TOLD_GATES),
    _language("codes", "lookups", 875, 3, _CODES, {"letters.color": 0.9}),
    _language("events", "codes", 685, 7, _EVENTS, {"letters.count": 0.9}),
    _language("time", "events", 1568, 8, _TIME, {"letters.shots": 0.8}, rate=3e-3, vectors=0.5),
    _language("order", "time", 1328, 9, _ORDER, {"letters.attribute": 0.75}, sides=_ORDER_SIDES),
    _language("history", "order", 640, 10, _ORDER, {"letters.attribute": 0.75}, sides=_HISTORY),
    _language("together", "history", 622, 11, _MIXED, {"letters.existence": 0.9}, sides=_HISTORY),
    _language("deeper", "together", 554, 12, _MIXED, {"letters.color": 0.85}, layers=LAYERS, sides=_HISTORY),
    _language("last", "deeper", 404, 13, _LAST, {"letters.color": 0.85}, rate=2.5e-3, vectors=0.4, **_DEEP),
    _language("early", "last", 664, 14, _EARLY, {"letters.color": 0.85}, early=5, **_DEEP),
    _language("match", "early", 506, 15, _MATCH, {"letters.color": 0.85}, matched=(6,), early=5, **_DEEP),
    _language("options", "match", 378, 16, _OPTIONS, {"letters.color": 0.85}, vectors=0.5, early=5, **_DEEP),
    _language("settle", "options", 1100, 17, _SETTLE, {"letters.mean": 0.75}, decay=0.7, early=5, **_DEEP),
    _language("full", "settle", 180, 6, _FULL, {"letters.mean": 0.75}, **_FULL_SETTINGS),
)
