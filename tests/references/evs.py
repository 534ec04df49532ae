"""Naive float64 EVS: one list of all tokens, sorted once, no code in common with the implementation."""

from tests.references.visionzip import cosine


def kept(features, ratio):
    """(frame, position) of the kept tokens, in order."""
    frames, tokens, _ = features.shape
    places = [(frame, position) for frame in range(frames) for position in range(tokens)]

    def change(place):
        frame, position = place
        return 1 - cosine(features[frame, position], features[frame - 1, position]) if frame else float("inf")

    count = max(tokens, int(frames * tokens * ratio))
    return sorted(sorted(places, key=change, reverse=True)[:count])
