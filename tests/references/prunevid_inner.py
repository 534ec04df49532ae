"""PruneVid's inner stage, the naive way: one sample, no padding, cache, hooks or mask helpers, in float64."""

import math

import torch
from torch import Tensor, nn

from tests.references.decoder import NaiveDecoder, _linear, _rms


class NaivePruneVid(NaiveDecoder):
    """Recomputes whole sequences; after layer ``layer`` the best tokens of every group stay."""

    def __init__(self, model: nn.Module, layer: int, keep_per_cent: int):
        super().__init__(model, 0, 0.0)
        self.layer, self.keep = layer, keep_per_cent

    def scores(self, module: nn.Module, normed: Tensor, spans: list[tuple[int, int]]) -> list[float]:
        seq, head_dim = normed.shape[0], module.head_dim
        query = _linear(normed, module.q_proj).reshape(seq, -1, head_dim)
        key = _linear(normed, module.k_proj).reshape(seq, -1, head_dim)
        best = [0.0] * seq
        for start, stop in spans:
            later = range(stop, seq)
            text = [place for place in later if not any(begin <= place < end for begin, end in spans)] or [seq - 1]
            for asking in text:
                for head in range(query.shape[1]):
                    shared = key[:, head // (query.shape[1] // key.shape[1])]
                    shares = (shared @ query[asking, head] / math.sqrt(head_dim)).softmax(-1).tolist()
                    for place in range(start, stop):
                        best[place] = max(best[place], shares[place])
        return best

    def pick(self, scores: list[float], spans: list[tuple[int, int]], groups: list[list[int]]) -> list[int]:
        """Kept places; ``groups`` names the group of every token of every span, -1 for newline tokens."""
        kept = {place for place in range(len(scores)) if not any(start <= place < stop for start, stop in spans)}
        for (start, _), names in zip(spans, groups, strict=True):
            chosen = set()
            for name in set(names) - {-1}:
                places = [start + offset for offset, other in enumerate(names) if other == name]
                ranked = sorted(places, key=lambda place: (-scores[place], place))
                chosen |= set(ranked[: len(places) * self.keep // 100])
            visual = [start + offset for offset, name in enumerate(names) if name != -1]
            if not chosen:
                n_keep = max(1, len(visual) * self.keep // 100)
                chosen = set(sorted(visual, key=lambda place: (-scores[place], place))[:n_keep])
            kept |= chosen | {start + offset for offset, name in enumerate(names) if name == -1}
        return sorted(kept)

    @torch.no_grad()
    def run_pruned(
        self, embeds: Tensor, spans: list, groups: list[list[int]], frozen: list[int] | None = None, prompt: int = 0
    ) -> tuple[Tensor, list[int], list[float]]:
        """Logits of the tokens left, kept places and scores; tokens from ``prompt`` on never see dropped ones."""
        seq, scores = embeds.shape[0], [0.0] * embeds.shape[0]
        states, tokens = embeds.double(), list(range(seq))
        unseen = torch.zeros(seq, seq, dtype=torch.bool)
        if frozen is not None:
            for place in set(range(prompt)) - set(frozen):
                unseen[prompt:, place] = True
        for index, layer in enumerate(self.model.model.layers):
            normed = _rms(states, layer.input_layernorm)
            if index == self.layer and frozen is None and spans:
                scores = self.scores(layer.self_attn, normed, spans)
            output, _ = self.attention(layer.self_attn, normed, tokens, unseen=unseen)
            states = states + output
            normed = _rms(states, layer.post_attention_layernorm)
            gate = nn.functional.silu(_linear(normed, layer.mlp.gate_proj))
            states = states + _linear(gate * _linear(normed, layer.mlp.up_proj), layer.mlp.down_proj)
            if index == self.layer and spans:
                kept = self.pick(scores, spans, groups) if frozen is None else [*frozen, *range(prompt, seq)]
                states, tokens, unseen = states[kept], kept, None
        return _linear(_rms(states, self.model.model.norm), self.model.lm_head), tokens, scores
