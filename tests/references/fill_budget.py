"""Naive restatement of how a budget is filled: loops over single tokens, no code in common with it."""


def next_best(index, source, score, target, tokens, count):
    """The ``count`` tokens to add, as indices in the video, in reading order.

    Args:
        index: of the kept tokens.
        source: row that each token of the video is part of, -1 for none: source[frame][position].
        score: of the tokens that the stage was given: score[merged frame][position].
        target: merged frame that each frame is in, -1 for lost ones.
        tokens: of a frame.
        count: tokens to add.
    """
    candidates = []
    for merged in range(len(score)):
        frame = target.index(merged)
        for position in range(tokens):
            if frame * tokens + position in index:
                continue
            was_merged = source[frame][position] >= 0
            candidates.append((was_merged, -score[merged][position], frame * tokens + position))
    return sorted(place for _, _, place in sorted(candidates)[:count])


def in_order(index, static, added, tokens, raster):
    """Kept and added indices in the order that the LLM reads, each with whether it was added.

    Args:
        index: of the kept tokens, in the method's order.
        static: which of them are static tokens of a segment.
        added: from :func:`next_best`.
        tokens: of a frame.
        raster: static tokens are among the tokens of their frame.
    """
    behind = {row: [] for row in range(-1, len(index))}
    for place in added:
        last = -1
        for row, other in enumerate(index):
            before_its_frame = static[row] and not raster
            lower = other // tokens <= place // tokens if before_its_frame else other < place
            last = row if lower else last
        behind[last].append(place)
    found = [(place, True) for place in behind[-1]]
    for row, other in enumerate(index):
        found.append((other, False))
        found += [(place, True) for place in behind[row]]
    return found
