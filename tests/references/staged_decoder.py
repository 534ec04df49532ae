"""Qwen2 with pruning in stages, the naive way: one sample, no padding, no cache, no hooks, no mask helpers, float64."""

from dataclasses import dataclass, field
from fractions import Fraction

import torch
from torch import Tensor, nn

from tests.references.decoder import NaiveDecoder, _linear, _rms


@dataclass(frozen=True)
class NaiveStage:
    """``ahead``: scored by the stage's own layer before it runs, and positions renumbered; else FastV's way."""

    layer: int
    keep: Fraction  # share of the original span
    ahead: bool

    def count(self, original: int) -> int:
        exact = self.keep * original
        whole, rest = exact.numerator // exact.denominator, exact - exact.numerator // exact.denominator
        if not self.ahead and (rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole % 2)):
            whole += 1
        return max(1, whole)


@dataclass
class Trace:
    """Per stage: kept prompt positions, and the scores of all tokens that entered it."""

    kept: list[list[int]] = field(default_factory=list)
    scores: list[list[float]] = field(default_factory=list)


class NaiveStages(NaiveDecoder):
    """Recomputes whole sequences of a ``Qwen2ForCausalLM`` and prunes before the layers of ``stages``."""

    def __init__(self, model: nn.Module, stages: list[NaiveStage]):
        super().__init__(model, 0, 0.0)
        self.stages = {stage.layer: stage for stage in stages}

    def pick(self, stage: NaiveStage, tokens: list[int], scores: list[float], spans: list) -> list[int]:
        """Prompt positions that stay, one token at a time."""
        chosen = [token for token in tokens if not any(start <= token < stop for start, stop in spans)]
        for start, stop in spans:
            inside = [(-scores[place], token) for place, token in enumerate(tokens) if start <= token < stop]
            chosen += [token for _, token in sorted(inside)[: stage.count(stop - start)]]
        return sorted(chosen)

    @torch.no_grad()
    def run_stages(
        self, embeds: Tensor, spans: list[tuple[int, int]], frozen: Trace | None = None, prompt: int | None = None
    ) -> tuple[Tensor, Trace]:
        """Logits of the tokens left, (short_seq, vocab), and what was decided; see ``NaiveDecoder.run``."""
        prompt = embeds.shape[0] if prompt is None else prompt
        states, tokens = embeds.double(), list(range(embeds.shape[0]))
        positions, trace, maps = list(tokens), Trace(), None
        for index, layer in enumerate(self.model.model.layers):
            stage = self.stages.get(index)
            if stage is not None and spans:
                if stage.ahead:
                    _, maps = self.attention(layer.self_attn, _rms(states, layer.input_layernorm), positions)
                inside = [token for token in tokens if token < prompt]
                scores = maps[:, len(inside) - 1].mean(0).tolist()[: len(inside)]
                kept = frozen.kept[len(trace.kept)] if frozen else self.pick(stage, inside, scores, spans)
                trace.kept.append(kept)
                trace.scores.append(scores)
                staying = [place for place, token in enumerate(tokens) if token >= prompt or token in kept]
                states, tokens = states[staying], [tokens[place] for place in staying]
                positions = list(range(len(tokens))) if stage.ahead else list(tokens)
            output, maps = self.attention(layer.self_attn, _rms(states, layer.input_layernorm), positions)
            states = states + output
            normed = _rms(states, layer.post_attention_layernorm)
            gate = nn.functional.silu(_linear(normed, layer.mlp.gate_proj))
            states = states + _linear(gate * _linear(normed, layer.mlp.up_proj), layer.mlp.down_proj)
        return _linear(_rms(states, self.model.model.norm), self.model.lm_head), trace
