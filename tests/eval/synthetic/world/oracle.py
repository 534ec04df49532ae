"""What a viewer of the frames sees, from pixels alone: an oracle for the questions that knows nothing of their maker.

Frames must be without noise and camera shake. Objects are told by their paint, scenes by the hue of the ground.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from eval.synthetic.world.raster import PAINT

SIDE = 128
GROUND_HUE = {  # red, green, blue as shares of their sum
    "brick": (0.460, 0.294, 0.245), "grass": (0.327, 0.407, 0.265), "sand": (0.383, 0.348, 0.270),
    "water": (0.260, 0.340, 0.400), "wood": (0.427, 0.338, 0.236), "snow": (0.327, 0.333, 0.339),
}  # fmt: skip


@dataclass
class Seen:
    """An object: in which frames it is clearly there, its centre in each, and its mask where it is largest."""

    frames: list[int]
    centers: dict[int, tuple[float, float]]
    mask: np.ndarray
    unsure: bool


def paint_masks(frames: np.ndarray) -> dict[str, np.ndarray]:
    """Pixels of each color, (frames, 128, 128)."""
    pixels = frames.astype(np.int16)
    return {color: (np.abs(pixels - np.array(rgb, np.int16)).max(axis=3) < 8) for color, rgb in PAINT.items()}


def watch(frames: np.ndarray) -> dict[str, Seen]:
    """Every object by its color."""
    found = {}
    for color, masks in paint_masks(frames).items():
        sizes = masks.sum(axis=(1, 2))
        if sizes.max() < 60:  # a few pixels of texture or of a blended edge
            continue
        shares = sizes / sizes.max()
        there = [n for n, share in enumerate(shares) if share >= 0.6]
        centers = {}
        for n in there:
            rows, columns = np.nonzero(masks[n])
            middle = [(edge.min() + edge.max() + 1) / 2 / SIDE for edge in (columns, rows)]
            centers[n] = (middle[0], middle[1])
        unsure = bool(((shares > 0.03) & (shares < 0.9)).any())  # something hides a part of it
        found[color] = Seen(there, centers, masks[int(sizes.argmax())], unsure)
    return found


def scenes(frames: np.ndarray) -> list[str]:
    """The scene of each frame: the nearest hue of the median pixel that is no object."""
    painted = np.any(list(paint_masks(frames).values()), axis=0)
    names = []
    for frame, hidden in zip(frames, painted, strict=True):
        ground = np.median(frame[~hidden], axis=0)
        hue = ground / ground.sum()
        names.append(min(GROUND_HUE, key=lambda name: float(np.abs(hue - np.array(GROUND_HUE[name])).sum())))
    return names


def motion_of(seen: Seen) -> str:
    """The direction in which an object goes."""
    path = np.array([seen.centers[n] for n in seen.frames])
    extent = path.max(axis=0) - path.min(axis=0)
    if extent.max() < 0.05:
        return "still"
    if extent.min() > 0.08:
        return "around"
    dx, dy = path[-1] - path[0]
    if extent[0] > extent[1]:
        return "right" if dx > 0 else "left"
    return "down" if dy > 0 else "up"


def shape_of(mask: np.ndarray) -> str:
    """The shape of a whole, unhidden object by where its box is filled."""
    rows, columns = np.nonzero(mask)
    box = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    height, width = box.shape

    def filled(y: float, x: float) -> bool:
        return bool(box[min(height - 1, int(y * height)), min(width - 1, int(x * width))])

    corners = [filled(y, x) for y in (0.06, 0.94) for x in (0.06, 0.94)]
    if not filled(0.5, 0.5):
        return "ring"
    if all(corners):
        return "square"
    if corners[2] and corners[3]:
        return "triangle"
    if box.mean() > 0.7:
        return "circle"
    return "cross" if filled(0.5, 0.03) and filled(0.97, 0.5) else "star"


class Viewer:
    """Looks at frames, (frames, 128, 128, 3), once and answers questions."""

    def __init__(self, frames: np.ndarray) -> None:
        self.things, self.grounds = watch(frames), scenes(frames)

    @property
    def unsure(self) -> bool:
        """Whether objects hide one another: shapes and centres are then beyond this oracle."""
        return any(seen.unsure for seen in self.things.values())

    def answers(self, family: str, text: str) -> set[str]:
        """Right answers: usually one, several to "which object appears"."""
        things, grounds = self.things, self.grounds
        shots = 1 + sum(a != b for a, b in pairwise(grounds))
        names = {color: f"{color} {shape_of(seen.mask)}" for color, seen in things.items()}
        words = text.rstrip("?").split()
        asked = next((word for word in words if word in PAINT), "")
        if family == "direction":
            return {motion_of(things[asked])}
        if family == "existence":
            return set(names.values())
        if family == "attribute":
            motion = words[-1] if words[-2] == "moving" else "still"
            return {color for color, seen in things.items() if len(seen.frames) > 2 and motion_of(seen) == motion}
        if family == "shape":
            return {names[asked].split()[1]}
        if family == "color":
            return {color for color, name in names.items() if name.split()[1] == words[-1]}
        if family in ("count", "shots"):
            return {("one", "two", "three", "four")[(len(things) if family == "count" else shots) - 1]}
        if family == "order":
            start = {color: seen.frames[0] for color, seen in things.items()}
            edge = min(start.values()) if "first" in words else max(start.values())
            return {names[color] for color in things if start[color] == edge}
        if family == "scene":
            return {grounds[0 if "first" in words else -1]}
        if family == "needle":
            return {names[color] for color, seen in things.items() if len(seen.frames) <= 2}
        if family == "location":
            x, y = things[asked].centers[things[asked].frames[0]]
            return {f"{'bottom' if y > 0.5 else 'top'} {'right' if x > 0.5 else 'left'}"}
        return {grounds[n] for n in things[asked].frames}
