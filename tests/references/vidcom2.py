"""Naive float64 VidCom2: token by token, no code in common with the implementation."""

import math

import numpy as np


def kernels(token, center):
    """Sum over k = -3 .. 1 of exp(-distance^2 / (2 * 2^k))."""
    distance = sum((a - b) ** 2 for a, b in zip(token, center, strict=True))
    return sum(math.exp(-distance / (2 * 2**k)) for k in range(-3, 2))


def unit(vector):
    """The vector at length 1, zero if it is zero."""
    length = math.sqrt(sum(value**2 for value in vector))
    return vector / length if length else vector


def scores_and_budgets(features, ratio):
    """Likeness of every token to both centres, and exact real budgets of every frame."""
    frames, tokens, dim = features.shape
    flat = features.reshape(frames * tokens, dim)
    variance = [np.mean((flat[:, channel] - flat[:, channel].mean()) ** 2) for channel in range(dim)]
    channels = sorted(range(dim), key=lambda channel: (variance[channel], channel))[: max(1, dim // 2)]
    reduced = np.array([[unit(features[t, p, channels]) for p in range(tokens)] for t in range(frames)])
    center = reduced.reshape(-1, len(channels)).mean(0)
    to_video = [[kernels(reduced[t, p], center) for p in range(tokens)] for t in range(frames)]
    scores = [
        [to_video[t][p] + kernels(reduced[t, p], reduced[t].mean(0)) for p in range(tokens)] for t in range(frames)
    ]
    uniqueness = [-sum(row) / tokens for row in to_video]
    weights = [math.exp((value - max(uniqueness)) / 0.01) for value in uniqueness]
    weights = [weight / sum(weights) for weight in weights]
    shares = [min(1.0, ratio * (1 + weight - 1 / frames)) for weight in weights]
    return scores, [tokens * share for share in shares]


def kept(scores, budgets):
    """(frame, position) of the kept tokens, in order."""
    result = []
    for frame, (row, budget) in enumerate(zip(scores, budgets, strict=True)):
        ranked = sorted(range(len(row)), key=lambda position: (row[position], position))
        result += [(frame, position) for position in sorted(ranked[: max(1, round(budget))])]
    return result
