"""Naive uniform selection: walk over a frame and take a token whenever another step is complete."""

import math
from fractions import Fraction


def positions(tokens, ratio):
    """Positions of one frame, ascending; exact fractions instead of floating-point steps."""
    count = math.ceil(tokens * ratio)
    step = Fraction(tokens, count)
    chosen = []
    for position in range(tokens):
        if len(chosen) < count and math.floor(len(chosen) * step) == position:
            chosen.append(position)
    return chosen
