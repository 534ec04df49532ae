"""Which colour a merged token has: neighbours differ, and a token has one colour wherever it was merged from.

The colours are Okabe and Ito's, which the colour-blind can tell apart. They are few, so that a colour comes back at
another place; within one neighbourhood it means one merged token.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np

BLACK, WHITE, ORANGE = (0, 0, 0), (255, 255, 255), (230, 159, 0)
# sky blue, bluish green, yellow, reddish purple, blue, vermillion; orange is for tokens that nothing was merged into
PALETTE = ((86, 180, 233), (0, 158, 115), (240, 228, 66), (204, 121, 167), (0, 114, 178), (213, 94, 0))
DARK, PALE = (40, 40, 40), (225, 225, 225)


def colours_of(targets: np.ndarray, side: int) -> np.ndarray:
    """A place in :data:`PALETTE` for every merged token.

    Each token takes the colour that is rarest so far among those that none of its neighbours has; where all are taken,
    the one that the fewest of them have.

    Args:
        targets: number of the merged token that each original token belongs to, below 0 for none, (frames, tokens).
        side: tokens along one side of a frame.

    Returns:
        int64, one entry per number.
    """
    neighbours = _neighbours(targets.reshape(len(targets), side, side))
    chosen = np.zeros(int(targets.max(initial=-1)) + 1, dtype=np.int64)
    used: Counter[int] = Counter()
    done: set[int] = set()
    for number in np.unique(targets[targets >= 0]).tolist():
        beside = Counter(int(chosen[other]) for other in neighbours[number] if other in done)
        chosen[number] = min(range(len(PALETTE)), key=lambda colour: (beside[colour], used[colour]))
        used[int(chosen[number])] += 1
        done.add(number)
    return chosen


def _neighbours(grid: np.ndarray) -> dict[int, set[int]]:
    """Numbers beside, below and one frame after each other."""
    found: dict[int, set[int]] = defaultdict(set)
    for one, other in ((grid[:, :, 1:], grid[:, :, :-1]), (grid[:, 1:], grid[:, :-1]), (grid[1:], grid[:-1])):
        pairs = np.stack([one.ravel(), other.ravel()], axis=1)
        pairs = pairs[(pairs >= 0).all(axis=1) & (pairs[:, 0] != pairs[:, 1])]
        for first, second in np.unique(pairs, axis=0).tolist():
            found[first].add(second)
            found[second].add(first)
    return found


def heat_colours(values: np.ndarray) -> np.ndarray:
    """Cividis by rank: the lowest value is dark, the highest light, for every kind of sight and in print.

    Attention has so long a tail that by value all but a few tokens would be dark; methods rank by it as well.

    Args:
        values: finite, or NaN for none; equal ones get one colour.

    Returns:
        uint8, (..., 3); pale grey for NaN.
    """
    from matplotlib import colormaps  # noqa: PLC0415

    known = np.sort(values[~np.isnan(values)])
    below, up_to = np.searchsorted(known, values, "left"), np.searchsorted(known, values, "right")
    rank = (below + up_to - 1) / 2 / max(len(known) - 1, 1)
    painted = (colormaps["cividis"](rank)[..., :3] * 255).round().astype(np.uint8)
    return np.where(np.isnan(values)[..., None], np.uint8(PALE[0]), painted)
