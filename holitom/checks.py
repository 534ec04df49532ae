"""Checks of settings and of values, in the project's one form of message."""

import math
from collections.abc import Sequence
from typing import Any, get_args

from torch import Tensor

from holitom.errors import InputError, shown


def require(condition: bool, name: str, value: object, bound: str, remedy: str) -> None:
    """Raise :class:`InputError` in the project's one form unless ``condition`` holds."""
    if not condition:
        raise InputError(f"{name} = {shown(value)} is out of range: it must be {bound}; {remedy}")


def is_integer(value: object) -> bool:
    """True for an int that is not a bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite_number(value: object) -> bool:
    """True for a finite int or float that is not a bool."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float holds
        return False


def require_within(name: str, value: Any, interval: str, remedy: str) -> None:
    """Raise unless ``value`` is a number in an interval such as ``"(0, 1]"``."""
    low, high = map(float, interval[1:-1].split(","))
    inside = is_finite_number(value) and low <= value <= high
    open_ends = ([low] if interval[0] == "(" else []) + ([high] if interval[-1] == ")" else [])
    require(inside and value not in open_ends, name, value, f"in {interval}", remedy)


def require_retain_ratio(ratio: object) -> None:
    """Raise :class:`InputError` unless ``ratio`` is a share in (0, 1]."""
    require_within("retain_ratio", ratio, "(0, 1]", "the paper uses 0.25, 0.20, 0.15 and 0.10")


def require_integer(name: str, value: Any, least: int, remedy: str) -> None:
    """Raise unless ``value`` is an integer of at least ``least``."""
    require(is_integer(value) and value >= least, name, value, f"an integer of at least {least}", remedy)


def require_flag(name: str, value: object, remedy: str) -> None:
    """Raise unless ``value`` is a truth value."""
    require(isinstance(value, bool), name, value, "true or false", remedy)


def require_one_of(name: str, value: object, literal: Any, remedy: str) -> None:
    """Raise unless ``value`` is one of those that a ``Literal`` names."""
    known = get_args(literal)
    require(value in known, name, value, f"one of {', '.join(known)}", remedy)


def require_finite(name: str, finite: Sequence[int], values: Tensor | None = None) -> None:
    """Raise :class:`InputError` with the frames whose values of ``name`` cannot be used, if there are any.

    Args:
        name: what the message calls them.
        finite: per frame, 1 if every token's length is finite in float32.
        values: the values themselves, looked at only to tell NaN and infinity from what is too large.
    """
    broken = [frame for frame, good in enumerate(finite) if not good]
    if not broken:
        return
    listed = ", ".join(map(str, broken[:5])) + (", ..." if len(broken) > 5 else "")
    where = f"in {len(broken)} of {len(finite)} frames (frame {listed})"
    if values is not None and bool(values.isfinite().all()):
        raise InputError(
            f"{name} has values too large to compare {where}: they reach {float(values.abs().max()):.3g}, and the "
            "length of every token must fit float32; check the projector's weights"
        )
    raise InputError(
        f"{name} has NaN or infinite values {where}; every value must be finite: check the video and the precision of "
        "the vision tower"
    )
