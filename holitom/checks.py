"""Checks of settings and of values, in the project's one form of message."""

import math
from collections.abc import Sequence

from holitom.errors import InputError


def require(condition: bool, name: str, value: object, bound: str, remedy: str) -> None:
    """Raise :class:`InputError` in the project's one form unless ``condition`` holds."""
    if not condition:
        raise InputError(f"{name} = {value!r} is out of range: it must be {bound}; {remedy}")


def is_integer(value: object) -> bool:
    """True for an int that is not a bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite_number(value: object) -> bool:
    """True for a finite int or float that is not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def require_retain_ratio(ratio: object) -> None:
    """Raise :class:`InputError` unless ``ratio`` is a share in (0, 1]."""
    fits = is_finite_number(ratio) and 0 < ratio <= 1  # type: ignore[operator]
    require(fits, "retain_ratio", ratio, "in (0, 1]", "the paper uses 0.25, 0.20, 0.15 and 0.10")


def require_finite(name: str, finite: Sequence[int]) -> None:
    """Raise :class:`InputError` with the frames whose values of ``name`` are not all finite, if there are any."""
    broken = [frame for frame, good in enumerate(finite) if not good]
    if broken:
        listed = ", ".join(map(str, broken[:5])) + (", ..." if len(broken) > 5 else "")
        raise InputError(
            f"{name} has NaN or infinite values in {len(broken)} of {len(finite)} frames (frame {listed}); every value "
            "must be finite: check the video and the precision of the vision tower"
        )
