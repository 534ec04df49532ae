"""A world as a video file."""

from pathlib import Path

import numpy as np

from eval.instruments.clips import encode
from eval.synthetic.world.events import World
from eval.synthetic.world.raster import render

RATE = 4  # frames a second
# noise about as strong as that of JPEG 35 to 80; the tags keep every reader at the matrix the pixels were made with
_X264 = {"crf": "23", "x264-params": "colorprim=smpte170m:transfer=smpte170m:colormatrix=smpte170m:range=tv"}


def write_video(path: Path, world: World, file_frames: int) -> None:
    """Render and encode a world: H.264, 128 x 128, 4 frames a second; the same world gives the same bytes.

    Args:
        path: of the mp4 file.
        world: what it shows.
        file_frames: how many frames, evenly spread over the world's time, first and last moment included.
    """
    frames = render(world, np.arange(file_frames) / (file_frames - 1), jpeg=False)
    encode(path, frames, RATE, "libx264", _X264, file_frames)
