"""Naive float64 restatement of the merging of still frames inside the tower: loops over frames and patches."""

import itertools

from tests.references.outer import cosine


def still(states, threshold, first, last):
    """Patches above the threshold in every pair of neighbouring frames from ``first`` to ``last``."""
    pairs = range(first, last)
    return [p for p in range(len(states[0])) if all(cosine(states[t][p], states[t + 1][p]) > threshold for t in pairs)]


def allowed(states, config, first, last):
    """Whether these frames may become one."""
    if first == last:
        return True
    enough = len(still(states, config.similarity_threshold, first, last)) >= config.static_share * len(states[0])
    return enough and last - first < config.max_frames


def fewest(states, config):
    """Fewest groups that any cut of the video has, by trying all cuts."""
    frames = len(states)
    best = frames
    for count in range(frames):
        for cuts in itertools.combinations(range(1, frames), count):
            edges = [0, *cuts, frames]
            if all(allowed(states, config, a, b - 1) for a, b in itertools.pairwise(edges)):
                best = min(best, count + 1)
    return best


def groups(states, config):
    """The longest group from the start on, and so on."""
    found, first = [], 0
    while first < len(states):
        last = first
        while last + 1 < len(states) and allowed(states, config, first, last + 1):
            last += 1
        found.append((first, last))
        first = last + 1
    return found


def merged(states, config):
    """One frame for every group."""
    frames = []
    for first, last in groups(states, config):
        mean = sum(states[first : last + 1]) / (last - first + 1)
        if config.moving_rule == "first":
            keep = set(range(len(mean))) - set(still(states, config.similarity_threshold, first, last))
            for patch in keep:
                mean[patch] = states[first][patch]
        frames.append(mean)
    return frames
