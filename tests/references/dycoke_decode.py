"""DyCoke's selection while decoding, the naive way: one sample, all steps in one pass, a mask per token, float64."""

import math

import torch
from torch import Tensor, nn

from tests.references.decoder import NaiveDecoder, _linear, _rms


class NaiveDycoke(NaiveDecoder):
    """Recomputes prompt and answer of a ``Qwen2ForCausalLM``; answer tokens see a part of the prompt's videos."""

    def __init__(self, model: nn.Module, layer: int, keep: int, threshold: float):
        """``keep`` per cent of each video stay, given as whole numbers so that nothing is rounded by chance."""
        super().__init__(model, 0, 0.0)
        self.layer, self.keep, self.threshold = layer, keep, threshold

    def select(self, maps: Tensor, spans: list[tuple[int, int]], prompt: int) -> Tensor:
        """Columns that each answer token does not see, (seq, seq)."""
        rows = maps.mean(0).tolist()
        unseen = torch.zeros(len(rows), len(rows), dtype=torch.bool)
        for start, stop in spans:
            for token in range(prompt, len(rows)):
                now, before = rows[token][start:stop], rows[token - 1][start:stop]
                dot = sum(a * b for a, b in zip(now, before, strict=True))
                norms = math.sqrt(sum(a * a for a in now)) * math.sqrt(sum(b * b for b in before))
                if token > prompt and dot / norms >= self.threshold:
                    continue
                ranked = sorted(range(start, stop), key=lambda place: (-rows[token][place], place))
                for place in ranked[max(1, (stop - start) * self.keep // 100) :]:
                    unseen[token, place] = True
        return unseen

    @torch.no_grad()
    def run_answer(self, states: Tensor, spans: list[tuple[int, int]], answer: Tensor) -> tuple[Tensor, Tensor]:
        """Logits that predict each answer token, and what the answer's tokens do not see, (answer, seq)."""
        prompt, positions = len(states), list(range(len(states) + len(answer)))
        states, unseen, maps = torch.cat([states, answer]).double(), None, None
        for index, layer in enumerate(self.model.model.layers):
            if index == self.layer:
                unseen = self.select(maps, [span for span in spans if span[0] < span[1]], prompt)
            normed = _rms(states, layer.input_layernorm)
            output, maps = self.attention(layer.self_attn, normed, positions, unseen=unseen)
            states = states + output
            normed = _rms(states, layer.post_attention_layernorm)
            gate = nn.functional.silu(_linear(normed, layer.mlp.gate_proj))
            states = states + _linear(gate * _linear(normed, layer.mlp.up_proj), layer.mlp.down_proj)
        logits = _linear(_rms(states, self.model.model.norm), self.model.lm_head)
        return logits[prompt - 1 : -1], unseen[prompt:]
