"""A small copy of the data set, made once for the tests that read one."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from eval.synthetic.world.dataset import make_split

SIZES = {"test": 48, "val": 24, "guard": 12, "long": 8}
_kept: list[TemporaryDirectory] = []  # removed when the tests end


@cache
def small_data() -> Path:
    """The folder; nobody may change it."""
    _kept.append(TemporaryDirectory(prefix="synthvid-"))
    folder = Path(_kept[0].name) / "synthvid"
    for split, questions in SIZES.items():
        assert make_split(folder, split, questions)
    return folder
