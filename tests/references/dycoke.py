"""Naive float64 DyCoke: group by group, frame by frame, no code in common with the implementation."""

from tests.references.visionzip import cosine


def least_similar(frame, other, count):
    """Positions by ascending similarity, the first ``count``."""
    similarity = [cosine(frame[position], other[position]) for position in range(len(frame))]
    return sorted(range(len(frame)), key=lambda position: (similarity[position], position))[:count]


def kept(features, count, in_raster_order=True):
    """(frame, position) of every kept token; the complete rule, any number of frames."""
    result = []
    for first in range(0, len(features), 4):
        group = range(first, min(first + 4, len(features)))
        for frame in group:
            positions = list(range(features.shape[1]))
            if frame != first:
                other = first + 2 if frame == first + 3 else first
                positions = least_similar(features[frame], features[other], count)
            result += [(frame, position) for position in (sorted(positions) if in_raster_order else positions)]
    return result


def kept_by_the_release(features, count):
    """The same by three passes over pairs, in which the quirks come from where each pass stops."""
    frames = len(features)
    chosen = {}
    for first in range(0, frames - 1, 2):  # pairs (0, 1), (2, 3), ...: an odd last frame is in no pair
        chosen[first] = list(range(features.shape[1]))
        chosen[first + 1] = least_similar(features[first + 1], features[first], count)
    for first in range(0, frames - 4, 4):  # (0, 2), (4, 6), ...: stops one group early
        chosen[first + 2] = least_similar(features[first + 2], features[first], count)
    return [(frame, position) for frame in sorted(chosen) for position in chosen[frame]]
