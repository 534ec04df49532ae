"""Naive restatement of EarlyTom in float64: loops over frames, positions and windows."""

import itertools
import math

from tests.references.outer import cosine


def similar(one, other):
    """Mean over the positions of the cosine of two frames."""
    return sum(cosine(x, y) for x, y in zip(one, other, strict=True)) / len(one)


def segments_of(frames, rule):
    """Streaming segmentation against the first frame of each segment."""
    segments, current, value = [], [0], 1.0
    for number in range(1, len(frames)):
        value = rule.smoothing * similar(frames[current[0]], frames[number]) + (1 - rule.smoothing) * value
        if value < rule.threshold or len(current) + 1 >= rule.max_frames:
            segments.append(current)
            current, value = [number], 1.0
        else:
            current.append(number)
    return [*segments, current]


def thinned(frames, segment, keep_last_middle):
    """(frame, partner or -1, weight) of the frames that go on."""
    if len(segment) <= 3:
        return [(frame, -1, 1.0) for frame in segment]
    middle = segment[1:-1]
    limit = similar(frames[segment[0]], frames[segment[-1]])
    pairs = [similar(frames[a], frames[b]) for a, b in itertools.pairwise(middle)]
    out, mixed, at = [(segment[0], -1, 1.0)], set(), 0
    for j, frame in enumerate(middle[:-1]):
        if j < at:
            continue
        if j + 1 < len(pairs) and pairs[j] > limit and pairs[j] > pairs[j + 1]:
            weight = pairs[j] / (pairs[j] + pairs[j + 1]) if pairs[j + 1] != 0 else 1.0
            out.append((frame, middle[j + 1], weight))
            mixed.add(middle[j + 1])
            at = j + 2
        else:
            out.append((frame, -1, 1.0))
            at = j + 1
    if keep_last_middle and middle[-1] not in mixed:
        out.append((middle[-1], -1, 1.0))
    if len(middle) == 1:
        out = [(segment[0], -1, 1.0), (middle[0], -1, 1.0)]
    return [*out, (segment[-1], -1, 1.0)]


def merge(frames, attention, rule):
    """Segments, sources, merged frames and merged attention of one layer."""
    segments = segments_of(frames, rule)
    sources = [entry for segment in segments for entry in thinned(frames, segment, rule.keep_last_middle)]

    def mixed(values):
        return [values[a] if b < 0 else weight * values[a] + (1 - weight) * values[b] for a, b, weight in sources]

    return [(segment[0], segment[-1]) for segment in segments], sources, mixed(frames), mixed(attention)


def select(attention, groups, frames, retain_ratio):
    """(frame, position) of the kept tokens."""
    tokens = len(attention[0])
    ratio = min(1.0, retain_ratio * (frames / len(attention)))
    kept = []
    for first, last in groups:
        for t in range(first, last + 1):
            scores = list(attention[t])
            if t in (first, last):
                best = sorted(range(tokens), key=lambda p: (-scores[p], p))[: math.ceil(tokens * ratio)]
                kept += [(t, p) for p in sorted(best)]
                continue
            count, start = max(1, round(tokens * ratio)), 0
            for window in range(count):
                stop = start + tokens // count + (1 if window < tokens % count else 0)
                inside = scores[start:stop]
                kept.append((t, start + inside.index(max(inside))))
                start = stop
    return kept
