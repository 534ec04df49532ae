"""Naive restatement of FlashVID's outer stage in float64: loops over frames and tokens, no code in common with it."""

import math
from dataclasses import dataclass, field

import numpy as np

from tests.references.outer import cosine, density_scores


@dataclass
class Result:
    """Entries (frame, position, is a cluster, vector) in output order, and what led to them."""

    segments: list
    picked: list = field(default_factory=list)
    kept: list = field(default_factory=list)
    threshold: list = field(default_factory=list)
    entries: list = field(default_factory=list)


def segments_of(features, rules):
    """Cuts below the threshold, and the lowest others up to the least number of segments."""
    frames = len(features)
    if not rules.segment:
        return [(0, frames - 1)]
    means = [frame.mean(0) for frame in features]
    similar = [cosine(means[t], means[t + 1]) for t in range(frames - 1)]
    cuts = [t for t in range(frames - 1) if similar[t] < rules.segment_threshold]
    if rules.complementary:
        others = sorted((t for t in range(frames - 1) if t not in cuts), key=lambda t: (similar[t], t))
        cuts += others[: max(0, rules.min_segments - 1 - len(cuts))]
    edges = [-1, *sorted(cuts), frames - 1]
    return [(edges[i] + 1, edges[i + 1]) for i in range(len(edges) - 1)]


def pick(frame, attention, mean, count):
    """Greedy farthest tokens, in the order of the picks."""
    tokens = len(frame)
    weight = [attention[j] * float(frame[j] @ mean) for j in range(tokens)]
    distance = [[(1 - cosine(frame[i], frame[j])) * weight[j] for j in range(tokens)] for i in range(tokens)]
    picks = []
    for _ in range(count):
        best, chosen = -math.inf, None
        for j in range(tokens):
            if j in picks:
                continue
            if picks:
                score = min(distance[i][j] for i in picks)
            else:
                score = sorted(distance[i][j] for i in range(tokens))[min(1, tokens - 1)]
            if score > best:
                best, chosen = score, j
        picks.append(chosen)
    return picks


def trees(features, picked, first, last, budget, rules):
    """Kept free tokens of a segment as {(frame, position): value}, and the threshold used."""
    tokens = features.shape[1]
    link, parent = {}, {}
    for t in range(first, last + 1):
        for p in range(tokens):
            link[t, p] = -1.0
            if t > first and p not in picked[t]:
                free = [q for q in range(tokens) if q not in picked[t - 1]]
                if free:
                    reach = [cosine(features[t, p], features[t - 1, q]) for q in free]
                    link[t, p] = max(reach)
                    parent[t, p] = (t - 1, free[reach.index(max(reach))])
    length = last - first + 1
    threshold = rules.link_threshold
    if length * tokens - sum(value > threshold for value in link.values()) < budget * length:
        ranked = sorted(link.values(), reverse=True)
        threshold = max(ranked[length * tokens - budget * length - 1], -1 + 1e-6)
    merged = {token for token, value in link.items() if value > threshold}

    def subtree(token):
        """Sum and size of the whole tree below a token."""
        below = [subtree(child) for child in merged if parent[child] == token]
        return features[token] + sum(part[0] for part in below), 1 + sum(part[1] for part in below)

    values = {}
    for t in range(first, last + 1):
        for p in range(tokens):
            if (t, p) in merged or p in picked[t]:
                continue
            total, size = subtree((t, p))
            children = sum(parent[child] == (t, p) for child in merged)
            values[t, p] = total / (size if rules.tree_mean else 1 + children)
    return values, threshold


def clusters_of(points, positions, count, neighbors):
    """Plain means of density-peak clusters, each at its centre's position."""
    if count == 0:
        return []
    score = density_scores(points, min(count, neighbors))[3]
    centers = sorted(sorted(range(len(points)), key=lambda i: (-score[i], i))[:count])
    members = {center: [center] for center in centers}
    for i in range(len(points)):
        if i not in centers:
            far = [float(((points[i] - points[c]) ** 2).sum()) for c in centers]
            members[centers[far.index(min(far))]].append(i)
    return [(positions[c], points[group].mean(0)) for c, group in members.items()]


def flashvid(features, attention, budget, picks, rules):
    """The outer stage; features (frames, tokens, dim) and attention (frames, tokens) in float64."""
    tokens = features.shape[1]
    result = Result(segments_of(features, rules))
    for first, last in result.segments:
        mean = features[first : last + 1].reshape(-1, features.shape[2]).mean(0)
        result.picked += [pick(features[t], attention[t], mean, picks) for t in range(first, last + 1)]
    for first, last in result.segments:
        length, picked = last - first + 1, result.picked
        if length == 1:
            everything = (
                range(tokens) if rules.single_frame_all else [p for p in range(tokens) if p not in picked[first]]
            )
            values = {(first, p): features[first, p] for p in everything}
        else:
            values, threshold = trees(features, picked, first, last, budget, rules)
            result.threshold.append(threshold)
        ratio = (budget - picks) * length / len(values) if values else 0
        for t in range(first, last + 1):
            own = [p for p in range(tokens) if (t, p) in values]
            result.kept.append(own)
            count = min(len(own), math.ceil(len(own) * ratio))
            result.entries += [(t, p, False, features[t, p]) for p in picked[t]]
            points = np.array([values[t, p] for p in own])
            result.entries += [(t, p, True, value) for p, value in clusters_of(points, own, count, rules.neighbors)]
    result.entries.sort(key=lambda entry: entry[:3])
    return result
