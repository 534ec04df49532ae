"""Naive restatement of PruneVid's outer stage in float64: loops over frames, tokens and clusters."""

from dataclasses import dataclass, field

import numpy as np

from tests.references.outer import cosine, density_scores


def nearest_centers(points, clusters, neighbors):
    """Centres in descending score, and for every point the index of its nearest centre in that list."""
    distance, _, _, score = density_scores(points, min(neighbors, len(points)))
    centers = sorted(range(len(points)), key=lambda i: (-score[i], i))[:clusters]
    owner = []
    for i in range(len(points)):
        reach = [distance[i][center] for center in centers]
        # equally near centres: the one with the lower index
        best = min(range(len(centers)), key=lambda number: (reach[number], centers[number]))
        owner.append(centers.index(i) if i in centers else best)
    return centers, owner


def labels_of_frames(features, clusters, neighbors):
    """Number of the nearest centre for every frame."""
    return nearest_centers(features.mean(1), clusters, neighbors)[1]


def clean(labels):
    """Label clean-up, frame by frame."""
    count = len(labels)

    def run_length(at, row, step):
        """Frames from ``at`` on in one direction that share its label."""
        length = 0
        while 0 <= at < count and row[at] == row[at - step * min(length, 1)] and row[at] is not None:
            length += 1
            at += step
        return length

    def whole_run(at):
        return run_length(at, labels, 1) + run_length(at, labels, -1) - 1

    longest = {label: max(whole_run(t) for t in range(count) if labels[t] == label) for label in set(labels)}
    known = [label if whole_run(t) == longest[label] and longest[label] > 1 else None for t, label in enumerate(labels)]
    for t in range(count):
        if known[t] is not None:
            continue
        end = t
        while end < count and known[end] is None:
            end += 1
        left = run_length(t - 1, known, -1) if t else 0
        right = run_length(end, known, 1) if end < count else 0
        label = known[end] if right > left else known[t - 1] if left else "only"
        for frame in range(t, end):
            known[frame] = label
    return known


def windows(labels):
    """First and last frame of every run."""
    starts = [t for t in range(len(labels)) if t == 0 or labels[t] != labels[t - 1]]
    return [(a, b - 1) for a, b in zip(starts, [*starts[1:], len(labels)], strict=True)]


def static_positions(features, window, threshold):
    """Positions whose mean cosine over all pairs of frames is above the threshold."""
    first, last = window
    frames = range(first, last + 1)
    if first == last:
        return []
    positions = []
    for p in range(features.shape[1]):
        pairs = [cosine(features[i, p], features[j, p]) for i in frames for j in frames if i != j]
        if sum(pairs) / len(pairs) > threshold:
            positions.append(p)
    return positions


@dataclass
class Result:
    """Entries (frame, position, vector, original tokens) in reading order, and what led to them."""

    windows: list
    ratio: float
    static: list
    entries: list = field(default_factory=list)
    groups: list = field(default_factory=list)


def prunevid(features, config):
    """The outer stage, (frames, tokens, dim) float64 in."""
    frames, tokens, _ = features.shape
    labels = labels_of_frames(features, max(1, int(frames * config.frame_cluster_ratio)), config.neighbors)
    cut = windows(clean(labels))
    static = [static_positions(features, window, config.similarity_threshold) for window in cut]
    left = sum(
        len(still) + (last - first + 1) * (tokens - len(still))
        for still, (first, last) in zip(static, cut, strict=True)
    )
    fixed = config.cluster_ratio
    ratio = fixed if fixed is not None else min(1.0, config.retain_ratio * frames * tokens / left)
    result = Result(cut, ratio, static)

    def emit(frame, positions, points, sources):
        number = len(result.groups)
        size = len(positions)
        kept = size <= config.exempt_tokens if fixed is not None else False
        clusters = size if kept else max(1, int(size * ratio) if fixed is not None else round(size * ratio))
        result.groups.append(min(size, clusters))
        if not size:
            return
        if kept:
            centers, owner = list(range(size)), list(range(size))
        else:
            centers, owner = nearest_centers(np.array(points), clusters, config.neighbors)
        listed = list(enumerate(centers))
        if config.cluster_order == "raster":
            listed.sort(key=lambda pair: pair[1])
        for slot, center in listed:
            members = [i for i in range(size) if owner[i] == slot]
            vector = sum(points[i] for i in members) / len(members)
            origin = [source for i in members for source in sources[i]]
            result.entries.append((frame, positions[center], vector, origin, number))

    for still, (first, last) in zip(static, cut, strict=True):
        span = range(first, last + 1)
        means = [features[first : last + 1, p].mean(0) for p in still]
        emit(first, still, means, [[(t, p) for t in span] for p in still])
        moving = [p for p in range(tokens) if p not in still]
        for t in span:
            emit(t, moving, [features[t, p] for p in moving], [[(t, p)] for p in moving])
    return result
