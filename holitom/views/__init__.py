"""Pictures of what became of a video's tokens, drawn from a record alone.

    record = load_record("record.npz")             # or saved_copy(compressor.record, [clip.frames])
    save_picture(token_map(record), "tokens.png")

``token_map`` shows the frames with their segments and what became of every token before the LLM, ``inner_map`` what
survives inside it, ``attention_map`` the heat maps, ``similarity_chart`` similarity over time with threshold and
segmentation, ``side_by_side`` several methods on one clip, ``animation`` all of it frame by frame. Each returns a
matplotlib figure (``animation`` a list of PIL pictures).
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from holitom.errors import InputError
from holitom.files import whole_file
from holitom.views.animation import animation, save_animation
from holitom.views.heat import attention_map
from holitom.views.maps import inner_map, side_by_side, token_map
from holitom.views.page import DPI
from holitom.views.similarity import similarity_chart

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "animation",
    "attention_map",
    "inner_map",
    "save_animation",
    "save_picture",
    "side_by_side",
    "similarity_chart",
    "token_map",
]


def save_picture(figure: "Figure", path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG; the file is there as a whole or not at all.

    Args:
        figure: of this module.
        path: ending in ``.png``; its folder is made.

    Raises:
        InputError: for another ending, or a path that cannot be written.
    """
    target = Path(path)
    if target.suffix.lower() != ".png":
        raise InputError(f"a token map is a PNG, but its path is {str(target)!r}; end it with .png")
    with whole_file(target) as part:
        figure.savefig(part, dpi=DPI, format="png")
