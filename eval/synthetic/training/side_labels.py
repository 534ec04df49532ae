"""What can be known at every visual token from the frames so far: dense labels beside the answers."""

import numpy as np
from numpy.typing import NDArray

from eval.synthetic.world.events import COLORS, MOTIONS, SCENES, SHAPES, World

SIDES = {
    "motion": len(MOTIONS),
    "things": 5,
    "shots": 5,
    "color": len(COLORS),
    "shape": len(SHAPES),
    "ground": len(SCENES),
    "scene": len(SCENES),
    "opening": len(SCENES),
    "earliest": len(COLORS),
    "latest": len(COLORS),
}  # side labels of visual tokens with their number of classes
_LEAST_FRAMES_FOR_MOTION = 3
_NONE = -100


def token_labels(world: World, shares: NDArray[np.float32]) -> dict[str, NDArray[np.int64]]:
    """Labels of every token.

    Args:
        world: the video.
        shares: what each token shows, ``(frames, shots + things, cells)``, of :func:`codes.pooled_shares`.

    Returns:
        ``(frames * cells,)`` each, -100 where a label does not apply: ``motion`` of the object a token shows, once that
        was seen in three frames; its ``color`` and ``shape``; ``ground``: the scene a token shows; ``scene`` of the
        frame; ``opening``: scene of the first frame; ``things`` and ``shots`` seen in earlier frames; color of the
        object that appeared ``earliest`` and ``latest`` of those, if it is one.
    """
    frames, _, cells = shares.shape
    shots = len(world.shots)
    objects, grounds = shares[:, shots:], shares[:, :shots]
    labels = {name: np.full((frames, cells), _NONE, np.int64) for name in SIDES}
    _label_what_is_shown(labels, world, objects, grounds)
    now = grounds.sum(axis=2).argmax(axis=1)
    scenes = np.array([SCENES.index(shot.scene) for shot in world.shots])
    labels["scene"][:], labels["opening"][:] = scenes[now][:, None], scenes[now[0]]
    labels["shots"][:] = _before(np.array([len(set(now[: frame + 1].tolist())) for frame in range(frames)]))[:, None]
    _label_history(labels, world, np.asarray((objects > 0.5).any(axis=2)))
    return {name: values.reshape(-1) for name, values in labels.items()}


def _before(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts up to and including each frame, to counts before it."""
    return np.concatenate([[0], counts[:-1]])


def _label_what_is_shown(
    labels: dict[str, NDArray[np.int64]], world: World, objects: NDArray[np.float32], grounds: NDArray[np.float32]
) -> None:
    seen = np.cumsum(objects.sum(axis=2) > 0.5, axis=0)
    for number, thing in enumerate(world.things):
        shown = objects[:, number] > 0.5
        known = seen[:, number] >= _LEAST_FRAMES_FOR_MOTION
        labels["motion"][shown & known[:, None]] = MOTIONS.index(thing.motion)
        labels["color"][shown] = COLORS.index(thing.color)
        labels["shape"][shown] = SHAPES.index(thing.shape)
    for number, shot in enumerate(world.shots):
        labels["ground"][grounds[:, number] > 0.5] = SCENES.index(shot.scene)
    labels["things"][:] = _before((seen > 0).sum(axis=1))[:, None]


def _label_history(labels: dict[str, NDArray[np.int64]], world: World, present: NDArray[np.bool_]) -> None:
    """The earliest and latest arrival before each frame; nobody where two arrived together."""
    frames = len(present)
    arrivals = np.where(present.any(axis=0), present.argmax(axis=0), frames)
    for frame in range(frames):
        known = arrivals[arrivals < frame]
        if known.size == 0:
            continue
        for name, moment in (("earliest", known.min()), ("latest", known.max())):
            arrived = np.flatnonzero(arrivals == moment)
            if arrived.size == 1:
                labels[name][frame] = COLORS.index(world.things[int(arrived[0])].color)
