"""Naive float64 restatement of HoliTom's outer stage: plain loops, one token at a time, no code in common with it."""

import itertools
import math
from dataclasses import dataclass, field

import numpy as np


def cosine(first, second):
    """Cosine of two vectors, 0 if one is zero."""
    length = math.sqrt(float(first @ first)) * math.sqrt(float(second @ second))
    return float(first @ second) / length if length else 0.0


def similarities(features):
    """Cosine of each token to the same position one frame later."""
    frames, tokens, _ = features.shape
    return np.array(
        [[cosine(features[t, p], features[t + 1, p]) for p in range(tokens)] for t in range(frames - 1)]
    ).reshape(frames - 1, tokens)


def static_positions(similarity, threshold, first, last):
    """Positions above the threshold in every pair of the window; none for one frame."""
    if first == last:
        return []
    return [p for p in range(similarity.shape[1]) if all(similarity[t, p] > threshold for t in range(first, last))]


def gain(similarity, threshold, first, last):
    """Tokens saved by the window."""
    return len(static_positions(similarity, threshold, first, last)) * (last - first)


def segment_by_prefixes(similarity, threshold, longest):
    """Dynamic programming over prefixes: last frame alone first, then longer windows if strictly better."""
    frames = similarity.shape[0] + 1
    best = [(0, [])]
    for last in range(frames):
        choice = None
        for length in range(1, min(last + 1, longest) + 1):
            first = last - length + 1
            value = best[first][0] + gain(similarity, threshold, first, last)
            if choice is None or value > choice[0]:
                choice = (value, [*best[first][1], (first, last)])
        best.append(choice)
    return best[frames]


def segment_by_enumeration(similarity, threshold, longest):
    """Every segmentation; of the best, the one whose lengths read from the end are lexicographically smallest."""
    frames = similarity.shape[0] + 1
    found = []
    for cuts in itertools.product((False, True), repeat=frames - 1):
        starts = [0, *(t + 1 for t, cut in enumerate(cuts) if cut)]
        segments = [(a, b - 1) for a, b in zip(starts, [*starts[1:], frames], strict=True)]
        if all(b - a < longest for a, b in segments):
            value = sum(gain(similarity, threshold, a, b) for a, b in segments)
            found.append((-value, [b - a for a, b in reversed(segments)], segments))
    value, _, segments = min(found)
    return -value, segments


def segment_greedily(similarity, threshold, longest):
    """From the first frame on: the window that saves most by itself, the shortest of equals; then on behind it."""
    frames, segments = similarity.shape[0] + 1, []
    while not segments or segments[-1][1] < frames - 1:
        first = segments[-1][1] + 1 if segments else 0
        best = first
        for last in range(first, min(first + longest, frames)):
            if gain(similarity, threshold, first, last) > gain(similarity, threshold, first, best):
                best = last
        segments.append((first, best))
    return sum(gain(similarity, threshold, *segment) for segment in segments), segments


def segment_by_length(similarity, threshold, longest):
    """A cut behind every ``longest`` frames."""
    frames = similarity.shape[0] + 1
    segments = []
    for frame in range(frames):
        if frame % longest == 0:
            segments.append((frame, frame))
        segments[-1] = (segments[-1][0], frame)
    return sum(gain(similarity, threshold, *segment) for segment in segments), segments


SEGMENTERS = {"global": segment_by_prefixes, "greedy": segment_greedily, "fixed": segment_by_length}


def density_scores(points, neighbors):
    """Density, separation and their product, one point at a time."""
    count, dim = points.shape
    distance = [[math.sqrt(float(((x - y) ** 2).sum()) / dim) for y in points] for x in points]
    density = [math.exp(-sum(sorted(d * d for d in row)[:neighbors]) / neighbors) for row in distance]
    separation = []
    for i in range(count):
        denser = [j for j in range(count) if density[j] > density[i] or (density[j] == density[i] and j < i)]
        separation.append(min(distance[i][j] for j in denser) if denser else max(map(max, distance)))
    return distance, density, separation, [r * d for r, d in zip(density, separation, strict=True)]


def cluster(points, clusters, neighbors, center_weight):
    """Cluster and merge one group; returns vectors, centres (ascending) and the cluster of each point."""
    if clusters == 0:
        return [], [], [None] * len(points)
    distance, _, _, score = density_scores(points, min(neighbors, clusters))
    centers = sorted(sorted(range(len(points)), key=lambda i: (-score[i], i))[:clusters])
    owner = []
    for i in range(len(points)):
        if i in centers:
            owner.append(centers.index(i))
        else:
            reach = [distance[i][c] for c in centers]
            owner.append(reach.index(min(reach)))
    merged = []
    for number, center in enumerate(centers):
        others = [points[i] for i in range(len(points)) if owner[i] == number and i != center]
        if center_weight is None:
            merged.append(sum(others, points[center]) / (len(others) + 1))
        elif others:
            merged.append(center_weight * points[center] + (1 - center_weight) * sum(others) / len(others))
        else:
            merged.append(points[center])
    return merged, centers, owner


@dataclass
class Result:
    """Output of the naive outer stage; every entry is (frame, position, vector, original tokens, kind)."""

    segments: list
    removable: int
    ratio: float
    static_counts: list
    entries: list = field(default_factory=list)
    static_dropped: list = field(default_factory=list)

    def features(self):
        return np.array([entry[2] for entry in self.entries])

    def index(self, tokens):
        return [entry[0] * tokens + entry[1] for entry in self.entries]

    def source_map(self, frames, tokens):
        rows = np.full((frames, tokens), -1)
        for row, entry in enumerate(self.entries):
            for frame, position in entry[3]:
                rows[frame, position] = row
        return rows


def compress(features, attention, config, order):
    """The whole outer stage for one video."""
    features = np.asarray(features, dtype=np.float64)
    frames, tokens, _ = features.shape
    similarity = similarities(features)
    segment = SEGMENTERS[config.segmentation]
    removable, segments = segment(similarity, config.similarity_threshold, config.max_segment_frames)
    ratio = min(1.0, config.retain_ratio / ((frames * tokens - removable) / (frames * tokens)))
    weight = None if config.plain_mean else config.center_weight
    result = Result(segments, removable, ratio, [])
    for first, last in segments:
        static = static_positions(similarity, config.similarity_threshold, first, last)
        result.static_counts.append(len(static))
        means = np.array([features[first : last + 1, p].mean(0) for p in static])
        count = round(len(static) * ratio)
        merged, centers, owner = cluster(means, count, config.neighbors, weight)
        if config.static_rule == "attention":
            received = [attention[first : last + 1, p].astype(np.float64).mean() for p in static]
            centers = sorted(sorted(range(len(static)), key=lambda i: (-received[i], i))[:count])
            merged = [means[i] for i in centers]
            owner = [centers.index(i) if i in centers else None for i in range(len(static))]
        gone = [p for p, own in zip(static, owner, strict=True) if own is None]
        result.static_dropped += [(t, p) for t in range(first, last + 1) for p in gone]
        for number, center in enumerate(centers):
            members = [p for p, own in zip(static, owner, strict=True) if own == number]
            origin = [(t, p) for t in range(first, last + 1) for p in members]
            result.entries.append((first, static[center], merged[number], origin, "static"))
        for t in range(first, last + 1):
            dynamic = [p for p in range(tokens) if p not in static]
            result.entries += compress_frame(features[t], attention[t], t, dynamic, ratio, config, weight)
    if order == "raster":
        result.entries.sort(key=lambda entry: entry[:2])
    return result


def compress_frame(features, attention, frame, dynamic, ratio, config, weight):
    """Entries of one frame's dynamic tokens: the selected ones, then the clusters of the others."""
    kept = math.ceil(len(dynamic) * ratio)
    count = round(kept * (1 - config.contextual_ratio))
    selected = sorted(sorted(dynamic, key=lambda p: (-attention[p], p))[:count])
    entries = [(frame, p, features[p], [(frame, p)], "selected") for p in selected]
    rest = [p for p in dynamic if p not in selected]
    merged, centers, owner = cluster(features[rest], kept - count, config.neighbors, weight)
    for number, center in enumerate(centers):
        origin = [(frame, p) for p, own in zip(rest, owner, strict=True) if own == number]
        entries.append((frame, rest[center], merged[number], origin, "contextual"))
    return entries


def structured_video(seed, frames, tokens, dim, noise=0.2, moving=0.4, cut_every=4, drift=0.1):
    """Features with a still background, moving positions, cuts and drift, and a received attention; float32."""
    random = np.random.default_rng(seed)
    scene, still = random.normal(size=(tokens, dim)), random.random(tokens) > moving
    video = np.empty((frames, tokens, dim), dtype=np.float32)
    for frame in range(frames):
        if frame and frame % cut_every == 0:
            scene, still = random.normal(size=(tokens, dim)), random.random(tokens) > moving
        scene = scene + drift * random.normal(size=scene.shape)
        fresh = random.normal(size=scene.shape)
        video[frame] = np.where(still[:, None], scene + noise * fresh, fresh)
    return video, random.random((frames, tokens), dtype=np.float32)
