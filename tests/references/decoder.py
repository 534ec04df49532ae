"""Qwen2 with inner merging, the naive way: one sample, no padding, no cache, no hooks, no mask helpers, in float64."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass
class Decisions:
    """What the prompt decided: scores, kept positions, and where each merged-away position goes."""

    scores: list[float]
    kept: list[int]
    target: dict[int, int]


def merge_loops(states: list[Tensor], decisions: Decisions, rule: str) -> list[Tensor]:
    """States at the kept positions after the merge, token by token."""
    merged = [state.clone() for state in states]
    for position in decisions.kept:
        group = sorted(other for other, target in decisions.target.items() if target == position)
        if rule == "sequential":
            for other in group:
                merged[position] = (merged[position] + states[other]) / 2
        else:
            merged[position] = sum((states[other] for other in group), states[position].clone()) / (1 + len(group))
    return [merged[position] for position in decisions.kept]


def places_of(span: tuple[int, int] | list[int]) -> list[int]:
    """Places of the tokens of a video, given as [start, stop) or one by one."""
    return list(range(*span)) if isinstance(span, tuple) else span


def decide(states: list[Tensor], scores: list[float], spans: list, ratio: float) -> Decisions:
    """Kept positions and targets by sorting and comparing one token at a time."""
    in_span = {position for span in spans for position in places_of(span)}
    kept = [position for position in range(len(states)) if position not in in_span]
    target: dict[int, int] = {}
    for span in map(places_of, spans):
        n_keep = max(1, round(len(span) * (1 - ratio)))
        best = sorted(span, key=lambda position: (-scores[position], position))[:n_keep]
        best.sort()
        kept += best
        for other in span:
            if other in best:
                continue
            largest, nearest = -math.inf, best[0]
            for candidate in best:
                norms = float(states[other].norm()) * float(states[candidate].norm())
                cosine = float(states[other] @ states[candidate]) / norms if norms > 0 else 0.0
                if cosine > largest:
                    largest, nearest = cosine, candidate
            target[other] = nearest
    return Decisions(scores, sorted(kept), target)


def merge_reference(hidden: Tensor, scores: Tensor, spans: list, ratio: float, rule: str) -> tuple[list[int], Tensor]:
    """Oracle of ``merge_into_nearest``: kept positions and states, (short_seq, dim) float64."""
    states = list(hidden.double())
    decisions = decide(states, scores.tolist(), [span for span in spans if span[0] < span[1]], ratio)
    return decisions.kept, torch.stack(merge_loops(states, decisions, rule))


def _rms(states: Tensor, norm: nn.Module) -> Tensor:
    scale = (states.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon).sqrt()
    return norm.weight.double() * states / scale


def _linear(states: Tensor, layer: nn.Linear) -> Tensor:
    result = states @ layer.weight.double().T
    return result if layer.bias is None else result + layer.bias.double()


def _rotate(heads: Tensor, positions: list[int], theta: float) -> Tensor:
    """Rotary embedding as complex rotations of the pairs (i, i + head_dim / 2); heads is (seq, n, head_dim)."""
    half = heads.shape[-1] // 2
    frequencies = torch.tensor([theta ** (-2 * index / heads.shape[-1]) for index in range(half)], dtype=torch.float64)
    angles = torch.tensor(positions, dtype=torch.float64)[:, None, None] * frequencies
    turned = torch.complex(heads[..., :half], heads[..., half:]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([turned.real, turned.imag], dim=-1)


class NaiveDecoder:
    """Recomputes whole sequences of a ``Qwen2ForCausalLM`` and merges before layer ``merge_layer``."""

    def __init__(self, model: nn.Module, merge_layer: int, ratio: float, rule: str = "sequential", causal: bool = True):
        self.model, self.merge_layer, self.ratio, self.rule, self.causal = model, merge_layer, ratio, rule, causal

    def rotate(self, heads: Tensor, positions: list[int], theta: float) -> Tensor:
        """Queries or keys (seq, n, head_dim) turned by the tokens' places in the prompt."""
        return _rotate(heads, positions, theta)

    def attention(
        self,
        module: nn.Module,
        states: Tensor,
        positions: list[int],
        both_ways: int = 0,
        unseen: Tensor | None = None,
    ) -> tuple:
        """Output and probabilities (heads, seq, seq).

        The first ``both_ways`` tokens see one another entirely; ``unseen`` (seq, seq) hides more columns of a row.
        """
        config, seq = self.model.config, states.shape[0]
        head_dim = module.head_dim
        query = _linear(states, module.q_proj).reshape(seq, -1, head_dim)
        key = _linear(states, module.k_proj).reshape(seq, -1, head_dim)
        value = _linear(states, module.v_proj).reshape(seq, -1, head_dim)
        if hasattr(module, "q_norm"):
            query, key = _rms(query, module.q_norm), _rms(key, module.k_norm)
        theta = config.rope_parameters["rope_theta"]
        query, key = self.rotate(query, positions, theta), self.rotate(key, positions, theta)
        hidden = torch.ones(seq, seq).triu(1).bool()
        hidden[:both_ways, :both_ways] = False
        hidden |= torch.zeros_like(hidden) if unseen is None else unseen
        outputs, maps = [], []
        for head in range(query.shape[1]):
            shared = head // (query.shape[1] // key.shape[1])
            logits = query[:, head] @ key[:, shared].T / math.sqrt(head_dim)
            maps.append(logits.masked_fill(hidden, -math.inf).softmax(-1))
            outputs.append(maps[-1] @ value[:, shared])
        return _linear(torch.cat(outputs, dim=-1), module.o_proj), torch.stack(maps)

    def mlp(self, layer: nn.Module, normed: Tensor) -> Tensor:
        """Output of a layer's feed-forward part; experts, which are the library's business, are asked in float32."""
        if not hasattr(layer.mlp, "gate_proj"):
            return layer.mlp(normed.float()[None])[0].double()
        gate = nn.functional.silu(_linear(normed, layer.mlp.gate_proj))
        return _linear(gate * _linear(normed, layer.mlp.up_proj), layer.mlp.down_proj)

    def behind(self, index: int, states: Tensor, decisions: Decisions | None) -> Tensor:
        """States behind a layer; ``decisions`` are those of the merge if it was before."""
        return states

    @torch.no_grad()
    def run(
        self, embeds: Tensor, spans: list, frozen: Decisions | None = None, prompt: int | None = None
    ) -> tuple[Tensor, Decisions]:
        """Logits (short_seq, vocab) and decisions of one sequence (seq, dim).

        ``spans`` are the places of the videos, each [start, stop) or a list. ``frozen`` reuses the decisions of the
        first ``prompt`` tokens; the tokens after them are kept.
        """
        prompt = embeds.shape[0] if prompt is None else prompt
        states, positions, decisions = embeds.double(), list(range(embeds.shape[0])), frozen
        spans = [span for span in spans if places_of(span)]
        merging = bool(spans) and self.ratio > 0
        scores: list[float] = []
        for index, layer in enumerate(self.model.model.layers):
            if index == self.merge_layer and merging:
                decisions = frozen or decide(list(states), scores, spans, self.ratio)
                after = list(range(prompt, embeds.shape[0]))
                merged = merge_loops(list(states[:prompt]), decisions, self.rule)
                states = torch.stack(merged + [states[position] for position in after])
                positions = decisions.kept + after
            scored = index == self.merge_layer - 1 and merging
            both_ways = prompt if scored and not self.causal else 0
            normed = _rms(states, layer.input_layernorm)
            output, maps = self.attention(layer.self_attn, normed, positions, both_ways)
            if scored:
                scores = maps[:, prompt - 1].mean(0).tolist()
            states = states + output
            normed = _rms(states, layer.post_attention_layernorm)
            states = states + self.mlp(layer, normed)
            states = self.behind(index, states, decisions if index >= self.merge_layer and merging else None)
        if decisions is None:
            decisions = Decisions(scores, positions[:prompt], {})
        return _linear(_rms(states, self.model.model.norm), self.model.lm_head), decisions
