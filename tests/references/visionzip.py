"""Naive float64 VisionZip of one frame: one token at a time, no code in common with the implementation."""

import numpy as np


def cosine(first, second):
    """Cosine of two vectors, 0 if one is zero."""
    length = np.linalg.norm(first) * np.linalg.norm(second)
    return float(first @ second) / length if length else 0.0


def compress_frame(features, attention, keys, dominant_count, contextual_count, mean=False):
    """Output tokens, their positions in the frame, and for each original token its output slot (-1: dropped)."""
    tokens = len(features)
    ranked = sorted(range(tokens), key=lambda token: (-attention[token], token))
    dominant = sorted(ranked[:dominant_count])
    rest = [token for token in range(tokens) if token not in dominant]
    slots = {token: slot for slot, token in enumerate(dominant)}
    outputs, positions = [features[token] for token in dominant], list(dominant)
    if contextual_count:
        step = max(1, len(rest) // contextual_count)
        targets = [rest[number * step] for number in range(contextual_count)]
        members = {target: [] for target in targets}
        for token in rest:
            if token not in targets:
                similarity = [cosine(keys[token], keys[target]) for target in targets]
                members[targets[similarity.index(max(similarity))]].append(token)
        for number, target in enumerate(targets):
            joined = [features[token] for token in members[target]]
            if mean:
                outputs.append(np.mean([features[target], *joined], axis=0))
            else:
                outputs.append(features[target] + (np.mean(joined, axis=0) if joined else 0))
            positions.append(target)
            for token in [target, *members[target]]:
                slots[token] = dominant_count + number
    return np.stack(outputs), positions, [slots.get(token, -1) for token in range(tokens)]
