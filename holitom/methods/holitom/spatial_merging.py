"""Spatial merging of HoliTom: how many of the tokens that move are selected and clustered (HoliTom, Sec. 3.2)."""

import numpy as np


def dynamic_budget(tokens: np.ndarray, ratio: float, contextual_ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """Number of selected and of clustered tokens that stand for each frame's dynamic tokens.

    Args:
        tokens: dynamic tokens per frame.
        ratio: share of them to keep, rounded up.
        contextual_ratio: share of the kept ones that are cluster centres; the rest is rounded half to even.

    Returns:
        Selected tokens and clusters per frame, int64.
    """
    kept = np.ceil(tokens * ratio).astype(np.int64)
    selected = np.rint(kept * (1 - contextual_ratio)).astype(np.int64)
    return selected, kept - selected
