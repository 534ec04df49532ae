"""Errors a user can cause and mend; command lines turn them into one line and exit status 2."""

import reprlib
from typing import Any

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 100
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 6
_SHORT.maxlevel = 3


def shown(value: Any) -> str:
    """A value as a message shows it: its ``repr``, on one line and cut where it is long."""
    try:
        return " ".join(_SHORT.repr(value).split())
    except ValueError:  # integers beyond 4,300 digits have no repr
        return f"a {type(value).__name__} too long to print"


class InputError(ValueError):
    """A user's mistake: the message names the value, the bound it breaks and the remedy."""


class VideoError(InputError):
    """A video file that cannot be read as a whole video."""


class CheckpointError(InputError):
    """A checkpoint folder that is missing, incomplete or of another architecture."""
