"""Qwen2-VL's positions, tower scores and decoder, the naive way: loops over tokens, float64, no hooks."""

import math

import torch
from torch import Tensor, nn

from tests.references.decoder import Decisions, NaiveDecoder, _linear, merge_loops

Triple = tuple[int, int, int]


def visual_triples(start: int, steps: int, rows: int, cols: int, interval: float) -> list[Triple]:
    """(time, height, width) of the merged patches of one image or video that begins at ``start``."""
    return [
        (start + int(step * interval), start + row, start + col)
        for step in range(steps)
        for row in range(rows)
        for col in range(cols)
    ]


def prompt_triples(pieces: list) -> list[Triple]:
    """Positions of a whole prompt: a number stands for that many text tokens, a tuple for a visual input.

    A tuple holds steps, rows and columns of merged patches and the interval of its steps.
    """
    triples, now = [], 0
    for piece in pieces:
        if isinstance(piece, int):
            triples += [(now + token, now + token, now + token) for token in range(piece)]
            now += piece
        else:
            steps, rows, cols, interval = piece
            triples += visual_triples(now, steps, rows, cols, interval)
            now += max(rows, cols)
    return triples


def window_order(steps: int, rows: int, cols: int, window: int) -> list[int]:
    """Raster numbers of the merged patches in the order of their windows."""
    order = []
    for step in range(steps):
        for top in range(0, rows, window):
            for left in range(0, cols, window):
                for row in range(top, min(top + window, rows)):
                    order += [(step * rows + row) * cols + col for col in range(left, min(left + window, cols))]
    return order


def received(attention: nn.Module, states: Tensor, steps: int, rows: int, cols: int, theta: float) -> Tensor:
    """Attention every token receives in one block of the tower, (steps, rows * cols) float64.

    Args:
        attention: the block's attention.
        states: its input, (patches, dim), merged patches in raster order and their patches row by row.
        steps: temporal steps.
        rows: rows of merged patches of 2 x 2.
        cols: columns of them.
        theta: base of the tower's rotary embedding.
    """
    merged = [(row, col) for row in range(rows) for col in range(cols)]
    places = [(2 * row + down, 2 * col + right) for row, col in merged for down in (0, 1) for right in (0, 1)]
    heads, quarter = attention.num_heads, attention.head_dim // 4
    speeds = torch.tensor([theta ** (-2 * i / (attention.head_dim / 2)) for i in range(quarter)], dtype=torch.float64)
    angles = torch.stack([torch.cat([height * speeds, width * speeds]) for height, width in places])[:, None]
    turn = torch.polar(torch.ones_like(angles), angles)
    scores = []
    for frame in states.double().split(len(places)):
        query, key, _ = _linear(frame, attention.qkv).view(len(places), 3, heads, -1).unbind(1)
        turned = []
        for part in (query, key):
            half = part.shape[-1] // 2
            pairs = torch.complex(part[..., :half], part[..., half:]) * turn
            turned.append(torch.cat([pairs.real, pairs.imag], dim=-1))
        maps = [turned[0][:, h] @ turned[1][:, h].T / math.sqrt(attention.head_dim) for h in range(heads)]
        columns = sum(each.softmax(-1).mean(0) for each in maps) / heads
        scores.append([float(columns[4 * token : 4 * token + 4].mean()) for token in range(rows * cols)])
    return torch.tensor(scores, dtype=torch.float64)


class NaiveMRope(NaiveDecoder):
    """:class:`NaiveDecoder` of a prompt whose tokens have positions on three axes."""

    triples: list[Triple]

    def rotate(self, heads: Tensor, positions: list[int], theta: float) -> Tensor:
        """Each pair of channels is turned by the axis its section belongs to."""
        half = heads.shape[-1] // 2
        sections = self.model.config.rope_parameters["mrope_section"]
        axes = [axis for axis, width in enumerate(sections) for _ in range(width)]
        if self.model.config.rope_parameters.get("mrope_interleaved"):  # time, height, width in turns, then time alone
            axes = [pair % 3 if pair < 3 * sections[pair % 3] else 0 for pair in range(half)]
        angles = torch.tensor(
            [
                [self.triples[place][axes[pair]] * theta ** (-2 * pair / heads.shape[-1]) for pair in range(half)]
                for place in positions
            ],
            dtype=torch.float64,
        )[:, None]
        turned = torch.complex(heads[..., :half], heads[..., half:]) * torch.polar(torch.ones_like(angles), angles)
        return torch.cat([turned.real, turned.imag], dim=-1)


class NaiveDeepStack(NaiveMRope):
    """:class:`NaiveMRope` that adds features of the prompt's tokens behind its first layers.

    ``deep`` holds for each of these layers (prompt, dim), zero at text. What was merged before is merged in them too.
    """

    deep: list[Tensor]

    def behind(self, index: int, states: Tensor, decisions: Decisions | None) -> Tensor:
        """States with the features of a layer."""
        if index >= len(self.deep):
            return states
        features = self.deep[index].double()
        if decisions is not None:
            features = torch.stack(merge_loops(list(features), decisions, self.rule))
        added = torch.zeros_like(states)
        added[: len(features)] = features
        return states + added


def merged_values(entries: list, values: Tensor, center_weight: float | None) -> Tensor:
    """Other values (frames, tokens, dim) of the tokens in the entries of :func:`tests.references.outer.compress`."""
    rows = []
    for _, center, _, origin, _ in entries:
        means = {}
        for position in sorted({place for _, place in origin}):
            own = [values[frame, place].double() for frame, place in origin if place == position]
            means[position] = sum(own) / len(own)
        others = [mean for position, mean in means.items() if position != center]
        if center_weight is None:
            rows.append(sum(others, means[center]) / (len(others) + 1))
        elif others:
            rows.append(center_weight * means[center] + (1 - center_weight) * sum(others) / len(others))
        else:
            rows.append(means[center])
    return torch.stack(rows)
