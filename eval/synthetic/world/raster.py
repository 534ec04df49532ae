"""Pixels of a world: textured scenes, antialiased shapes, camera jitter, sensor and compression noise."""

import io
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eval.synthetic.world.events import SCENES, Thing, World

SIDE = 128  # pixels of a frame
_TEXTURE = 256  # pixels of a scene's texture, which wraps around
PAINT = {
    "red": (225, 30, 35),
    "green": (25, 190, 50),
    "blue": (35, 60, 230),
    "yellow": (245, 225, 30),
    "purple": (165, 40, 205),
    "cyan": (40, 225, 225),
    "black": (12, 12, 14),
}
_GROUND = {
    "brick": (150, 96, 80),
    "grass": (106, 132, 86),
    "sand": (196, 178, 138),
    "water": (104, 136, 160),
    "wood": (134, 106, 74),
    "snow": (216, 220, 224),
}


def _smooth(noise: NDArray[np.float64], rows: float, columns: float) -> NDArray[np.float64]:
    """Noise blurred with wrap-around by a Gaussian of this many pixels, at unit standard deviation."""
    frequency = np.fft.fftfreq(_TEXTURE)
    kernel = np.exp(-2 * np.pi**2 * ((rows * frequency[:, None]) ** 2 + (columns * frequency[None, :]) ** 2))
    blurred = np.fft.ifft2(np.fft.fft2(noise) * kernel).real
    return blurred / blurred.std()


def _pattern(scene: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """Grey relief of a scene, ``(256, 256)``."""
    noise = rng.standard_normal((_TEXTURE, _TEXTURE))
    y, x = np.mgrid[0:_TEXTURE, 0:_TEXTURE]
    if scene == "brick":
        row = y // 16
        joint = (y % 16 < 2) | ((x + 16 * (row % 2)) % 32 < 2)
        return 34 * joint + 5 * _smooth(noise, 2, 2)
    if scene == "grass":
        return 13 * _smooth(noise, 5, 0.8)
    if scene == "sand":
        return 7 * _smooth(noise, 0.6, 0.6)
    if scene == "water":
        phase = 2 * np.pi * 16 * y / _TEXTURE + 1.6 * _smooth(noise, 14, 22)
        return 15 * np.sin(phase)
    if scene == "wood":
        return 14 * _smooth(noise, 1.2, 40)
    return 8 * (_smooth(noise, 1, 1) < -1.6) * -2.5 + 3 * _smooth(noise, 8, 8)


@cache
def texture(scene: str) -> NDArray[np.float32]:
    """A scene's texture, ``(512, 512, 3)``: the wrap-around 256 pixels twice, so that every crop is one slice."""
    rng = np.random.default_rng(SCENES.index(scene))
    relief = _pattern(scene, rng)
    tint = _smooth(rng.standard_normal((_TEXTURE, _TEXTURE)), 25, 25)[..., None] * np.array((3.0, 2.0, 3.0))
    pixels = np.array(_GROUND[scene]) + relief[..., None] + tint
    return np.tile(pixels, (2, 2, 1)).astype(np.float32)


def _inside(shape: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Signed depth inside a shape of half extent 1; positive inside. ``y`` points down."""
    if shape == "circle":
        return 1 - np.hypot(x, y)
    if shape == "square":
        return 0.88 - np.maximum(np.abs(x), np.abs(y))
    if shape == "ring":
        return 0.3 - np.abs(np.hypot(x, y) - 0.7)
    if shape == "cross":
        wide, tall = np.maximum(np.abs(x) - 1, np.abs(y) - 0.32), np.maximum(np.abs(x) - 0.32, np.abs(y) - 1)
        return -np.minimum(wide, tall)
    if shape == "triangle":
        return np.minimum(0.85 - y, (0.95 + y - 1.9 * np.abs(x)) / 2.15)
    angle = np.arctan2(x, -y)
    sector = np.abs((angle / (2 * np.pi / 5) + 0.5) % 1 - 0.5) * 2  # 0 on a tip, 1 between two tips
    return (1.05 - 0.62 * sector - np.hypot(x, y)) * 0.75


def coverage(thing: Thing, center: NDArray[np.float64], cells: int, steps: int) -> NDArray[np.float32]:
    """How much of each cell of a frame an object covers.

    Args:
        thing: the object.
        center: its centre, x and y.
        cells: cells per side of the frame.
        steps: samples per side of a cell.

    Returns:
        ``(cells, cells)`` in [0, 1].
    """
    fine = cells * steps
    first = np.clip(np.floor((center - 1.1 * thing.radius) * fine) // steps, 0, cells).astype(int)
    last = np.clip(np.ceil((center + 1.1 * thing.radius) * fine / steps), first, cells).astype(int)
    result = np.zeros((cells, cells), np.float32)  # only the cells around the object are looked at
    x, y = (
        ((np.arange(low * steps, high * steps) + 0.5) / fine - middle) / thing.radius
        for low, high, middle in zip(first, last, center, strict=True)
    )
    alpha = np.clip(_inside(thing.shape, x[None, :], y[:, None]) * thing.radius * fine + 0.5, 0, 1)
    blocks = alpha.reshape(last[1] - first[1], steps, last[0] - first[0], steps)
    result[first[1] : last[1], first[0] : last[0]] = blocks.mean(axis=(1, 3))
    return result


@cache
def _sensor_noise() -> NDArray[np.float32]:
    """Unit noise from which every frame takes a crop."""
    rng = np.random.default_rng(len(SCENES))
    return rng.standard_normal((_TEXTURE, _TEXTURE, 3), dtype=np.float32)


def _ground(world: World, time: float, shift: NDArray[np.float64]) -> NDArray[np.float32]:
    shot = world.shots[int(world.shot_at(np.array([time]))[0])]
    column, row = (round(o + p * time + s) % _TEXTURE for o, p, s in zip(shot.origin, shot.pan, shift, strict=True))
    return texture(shot.scene)[row : row + SIDE, column : column + SIDE] * shot.light


def _compressed(frame: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def render(world: World, times: NDArray[np.float64], jpeg: bool = True) -> NDArray[np.uint8]:
    """Draw a world at some times.

    Args:
        world: what to draw.
        times: in [0, 1], ``(frames,)``.
        jpeg: add the world's compression noise; off for frames that a video codec will compress.

    Returns:
        ``(frames, 128, 128, 3)`` RGB.
    """
    rng = np.random.default_rng(world.seed)
    frames = np.empty((len(times), SIDE, SIDE, 3), np.uint8)
    for number, time in enumerate(times):
        shift = rng.normal(0, world.shake, 2) if world.shake else np.zeros(2)
        frame = _ground(world, float(time), shift).copy()
        for thing in world.things:
            if thing.appears <= time <= thing.leaves:
                center = thing.centers(np.array([time]))[0] + shift / SIDE
                alpha = coverage(thing, center, SIDE, 1)[..., None]
                frame += alpha * (np.array(PAINT[thing.color], np.float32) - frame)
        if world.noise:
            row, column = rng.integers(0, _TEXTURE - SIDE, 2)
            frame += world.noise * _sensor_noise()[row : row + SIDE, column : column + SIDE]
        pixels = np.clip(frame, 0, 255).astype(np.uint8)
        frames[number] = _compressed(pixels, world.quality) if jpeg and world.quality else pixels
    return frames


def composition(world: World, times: NDArray[np.float64], cells: int, steps: int = 2) -> NDArray[np.float32]:
    """What is seen in each cell, without pixels: the ground's share and each object's, later objects in front.

    Returns:
        ``(frames, 1 + things, cells, cells)``, summing to 1 over the second axis.
    """
    shares = np.zeros((len(times), 1 + len(world.things), cells, cells), np.float32)
    shares[:, 0] = 1
    for number, thing in enumerate(world.things, start=1):
        centers, shown = thing.centers(times), thing.visible(times)
        for frame in np.flatnonzero(shown):
            covered = coverage(thing, centers[frame], cells, steps)
            shares[frame] *= 1 - covered
            shares[frame, number] += covered
    return shares
