"""Naive restatement of FastVID in float64: loops over frames, tokens and anchors."""

from dataclasses import dataclass, field

import numpy as np

from tests.references.outer import cosine, density_scores


@dataclass
class Result:
    """Entries (frame, position, vector) by place, and the anchor frames of each segment."""

    segments: list
    anchor_frames: list = field(default_factory=list)
    entries: list = field(default_factory=list)


def segments_of(vectors, least, threshold):
    """Cut after the least similar neighbours and after every pair below the threshold."""
    frames = len(vectors)
    similarity = [cosine(vectors[t], vectors[t + 1]) for t in range(frames - 1)]
    ranked = sorted(range(frames - 1), key=lambda t: (similarity[t], t))
    cuts = {t for t in range(frames - 1) if similarity[t] < threshold or ranked.index(t) < least - 1}
    segments, first = [], 0
    for t in range(frames):
        if t in cuts or t == frames - 1:
            segments.append((first, t))
            first = t + 1
    return segments


def merged_anchor(anchor, rest, anchors, features, floor):
    """One anchor (frame, position) of a frame, mixed with the tokens that are most similar to it."""
    members = []
    for token in rest:
        if token in anchors:
            owner = token
        else:
            reach = [cosine(features[token], features[other]) for other in anchors]
            owner = anchors[reach.index(max(reach))]
        if owner == anchor:
            members.append(features[token])
    weight = max(1 / (len(members) + 1), floor)
    return weight * features[anchor] + (1 - weight) * sum(members) / len(members)


def fastvid(features, vectors, saliency, config):
    """The outer stage; features (frames, tokens, dim), vectors (frames, width), saliency (frames, tokens)."""
    frames, tokens, _ = features.shape
    kept = int(tokens * config.retain_ratio)
    context = int(kept * config.context_ratio)
    salient = [
        sorted(sorted(range(tokens), key=lambda p: (-saliency[t, p], p))[: kept - context]) for t in range(frames)
    ]
    result = Result(segments_of(vectors, config.min_segments, config.similarity_threshold))
    result.entries += [(t, p, features[t, p]) for t in range(frames) for p in salient[t]]
    for first, last in result.segments:
        at = [t for t in range(first, last + 1) if (last - t) % config.anchor_stride == 0]
        result.anchor_frames.append(at)
        count = context * (last - first + 1) // len(at)
        rest = [(t, p) for t in range(first, last + 1) for p in range(tokens) if p not in salient[t]]
        for t in at:
            own = [p for p in range(tokens) if p not in salient[t]]
            if not own or not count:
                continue
            points = np.array([features[t, p] for p in own])
            score = density_scores(points, min(config.neighbors, len(own)))[3]
            best = sorted(range(len(own)), key=lambda i: (-score[i], i))[:count]
            anchors = sorted((t, own[i]) for i in best)
            result.entries += [
                (*anchor, merged_anchor(anchor, rest, anchors, features, config.anchor_weight)) for anchor in anchors
            ]
    result.entries.sort(key=lambda entry: entry[:2])
    return result
