"""A tiny random decoder, prompts for it, and the checks that inner merging equals the naive reference."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from transformers import DynamicCache, Qwen2Config, Qwen2ForCausalLM

from holitom.methods.holitom.config import InnerConfig
from holitom.methods.holitom.inner import merging_stage
from tests.references import flash_stub
from tests.references.decoder import Decisions, NaiveDecoder

TOLERANCE = 5e-4  # of logits with a standard deviation of about 2.4
LAYERS, DIM, VOCAB = 6, 64, 97

# Lengths of text, video, text, video, text ... of every row; an image between two videos counts as text.
PROMPTS = {
    "single": [(5, 20, 7)],
    "equal": [(5, 20, 7), (3, 20, 9)],
    "ragged": [(5, 20, 7), (4, 9, 3)],
    "ragged3": [(2, 3, 3), (4, 31, 3), (7, 12, 1)],
    "one_text_only": [(5, 20, 7), (11, 0, 3)],
    "two_videos": [(3, 14, 6, 9, 5), (2, 8, 2)],
    "video_first": [(0, 17, 1, 2, 1)],
    "uneven_after": [(5, 20, 7), (12, 10, 10)],
}


class SpanQwen2(Qwen2ForCausalLM):
    """``generate`` rejects names that ``forward`` lacks; calls on an empty cache or without one get the spans."""

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        inputs_embeds=None,
        use_cache=None,
        logits_to_keep=0,
        video_spans=None,
        cache=None,
        **kwargs,
    ):
        past_key_values = past_key_values if cache is None else cache
        if past_key_values is not None and past_key_values.get_seq_length() > 0:
            video_spans = None
        arguments = (input_ids, attention_mask, position_ids, past_key_values, inputs_embeds, None, use_cache)
        return super().forward(*arguments, logits_to_keep=logits_to_keep, video_spans=video_spans, **kwargs)


@lru_cache
def tiny_model(attention: str = "sdpa", dtype: torch.dtype = torch.float32) -> SpanQwen2:
    """6 layers, 4 query and 2 key/value heads, random biases, weights large enough for errors to show."""
    if attention == "stub":
        attention = flash_stub.register()
    config = Qwen2Config(
        vocab_size=VOCAB,
        hidden_size=DIM,
        intermediate_size=96,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        attn_implementation=attention,
        dtype=dtype,
    )
    torch.manual_seed(0)
    model = SpanQwen2._from_config(config).eval()
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data = torch.randn(parameter.shape, generator=generator).to(parameter.dtype) * 0.3
    model.requires_grad_(False)
    return model


@dataclass
class Prompt:
    """A left-padded batch and its rows without padding."""

    embeds: Tensor  # (batch, seq, dim)
    mask: Tensor  # (batch, seq)
    spans: Tensor  # (batch, max_spans, 2)
    rows: list[tuple[Tensor, list[tuple[int, int]]]]

    @property
    def padding(self) -> list[int]:
        return (self.mask == 0).sum(1).tolist()

    def arguments(self, masked: bool = True, dtype: torch.dtype = torch.float32) -> dict:
        mask = {"attention_mask": self.mask} if masked else {}
        return {"inputs_embeds": self.embeds.to(dtype), "video_spans": self.spans, **mask}


def make_prompt(name: str, seed: int = 0) -> Prompt:
    """Random embeddings of ``PROMPTS[name]``; neighbours in a video are similar, padding is loud noise."""
    generator = torch.Generator().manual_seed(seed)
    lengths = PROMPTS[name]
    seq = max(map(sum, lengths))
    embeds = 20 * torch.randn(len(lengths), seq, DIM, generator=generator)
    mask = torch.zeros(len(lengths), seq, dtype=torch.long)
    spans = torch.zeros(len(lengths), max(len(row) // 2 for row in lengths), 2, dtype=torch.long)
    rows = []
    for index, row in enumerate(lengths):
        states = 0.5 * torch.randn(sum(row), DIM, generator=generator)
        states = states + 0.3 * states.roll(1, 0)
        padding, bounds = seq - sum(row), [sum(row[:end]) for end in range(len(row) + 1)]
        row_spans = [(bounds[part], bounds[part + 1]) for part in range(1, len(row), 2) if row[part]]
        for slot, (start, stop) in enumerate(row_spans):
            spans[index, slot] = torch.tensor([start + padding, stop + padding])
        embeds[index, padding:], mask[index, padding:] = states, 1
        rows.append((states, row_spans))
    return Prompt(embeds, mask, spans, rows)


def settings(layer: int = 3, ratio: float = 0.5, **others) -> InnerConfig:
    return InnerConfig(merge_layer=layer, merge_ratio=ratio, **others)


def naive(config: InnerConfig, attention: str = "sdpa") -> NaiveDecoder:
    model = tiny_model(attention)
    return NaiveDecoder(model, config.merge_layer, config.merge_ratio, config.merge_rule, config.causal)


@lru_cache(maxsize=256)
def expected(name: str, config: InnerConfig) -> list[tuple[Tensor, Decisions]]:
    """Logits and decisions of every row by the reference."""
    return [naive(config).run(states, spans) for states, spans in make_prompt(name).rows]


def assert_close(actual: Tensor, wanted: Tensor, what: str) -> None:
    assert actual.shape == wanted.shape, f"{what}: shape {tuple(actual.shape)} instead of {tuple(wanted.shape)}"
    assert torch.isfinite(actual).all(), f"{what}: not finite"
    difference = (actual.double() - wanted).abs().max().item()
    assert difference < TOLERANCE, f"{what}: largest difference {difference:.2g}"


def check_prefill(name: str, config: InnerConfig, attention: str = "sdpa", masked: bool = True, **call) -> None:
    """Logits of all kept tokens and the record of one prefill."""
    model, prompt, merging = tiny_model(attention), make_prompt(name), merging_stage(config)
    with merging.applied(model.model):
        logits = model(**prompt.arguments(masked), **call).logits
    record = merging.last
    for row, (wanted, decisions) in enumerate(expected(name, config)):
        kept = record.cpu_kept[row]
        real, padding = kept[kept >= 0], prompt.padding[row]
        assert (real - padding).tolist() == decisions.kept, "kept positions"
        assert (kept[: len(kept) - len(real)] == -1).all(), "rows are compacted to the right"
        assert_close(logits[row, len(kept) - len(real) :], wanted, f"row {row}")
        targets = [decisions.target.get(position, position) for position in range(len(prompt.rows[row][0]))]
        if record.scores is not None:
            assert (record.cpu_source[row, padding:] - padding).tolist() == targets, "source map"


def check_scores(name: str, config: InnerConfig) -> None:
    """The scores are the reference's attention row, and padding has none."""
    model, prompt, merging = tiny_model(), make_prompt(name), merging_stage(config)
    with merging.applied(model.model):
        model(**prompt.arguments())
    for row, (_, decisions) in enumerate(expected(name, config)):
        if decisions.scores:
            wanted = torch.tensor([0.0] * prompt.padding[row] + decisions.scores, dtype=torch.float64)
            assert (merging.last.cpu_scores[row].double() - wanted).abs().max() < 1e-5


def forced_logits(config: InnerConfig, row: tuple, decisions: Decisions, tokens: Tensor) -> Tensor:
    """Logits that predict each of ``tokens`` after the row's prompt, by one recomputation of everything."""
    states, spans = row
    added = tiny_model().model.embed_tokens(tokens)
    logits, _ = naive(config).run(torch.cat([states, added]), spans, decisions, prompt=len(states))
    return logits[len(decisions.kept) - 1 : -1]


def check_generate(
    name: str, config: InnerConfig, attention: str = "sdpa", masked: bool = True, new_tokens: int = 8
) -> None:
    """Greedy generation equals teacher forcing with the prompt's decisions; cache lengths differ by the merge."""
    model, prompt = tiny_model(attention), make_prompt(name)
    with merging_stage(config).applied(model.model):
        out = model.generate(
            **prompt.arguments(masked),
            max_new_tokens=new_tokens,
            do_sample=False,
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
        )
    logits = torch.stack(out.logits, dim=1)
    short = 0
    for row, (_, decisions) in enumerate(expected(name, config)):
        wanted = forced_logits(config, prompt.rows[row], decisions, out.sequences[row])
        assert_close(logits[row], wanted, f"row {row}")
        assert out.sequences[row].tolist() == wanted.argmax(-1).tolist(), "greedy tokens"
        short = max(short, len(decisions.kept))
    lengths = [out.past_key_values.get_seq_length(layer) for layer in range(LAYERS)]
    long = prompt.embeds.shape[1]
    at = config.merge_layer
    assert lengths == [length + new_tokens - 1 for length in [long] * at + [short] * (LAYERS - at)]


def check_second_turn(name: str, config: InnerConfig, attention: str = "sdpa", ragged: bool = False) -> None:
    """A second turn of several tokens on a filled cache passes through; it may bring padding of its own."""
    model, prompt, cache = tiny_model(attention), make_prompt(name), DynamicCache(config=tiny_model().config)
    tokens = torch.arange(5 * len(prompt.rows)).reshape(-1, 5) % VOCAB
    turn_mask = torch.ones_like(tokens)
    if ragged:
        turn_mask[-1, :2] = 0
    mask = torch.cat([prompt.mask, turn_mask], dim=1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    long = prompt.mask.shape[1]
    with merging_stage(config).applied(model.model):
        model(**prompt.arguments(), past_key_values=cache, position_ids=positions[:, :long])
        options = {"past_key_values": cache, "position_ids": positions[:, long:]}
        logits = model(input_ids=tokens, attention_mask=mask, **options).logits
    for row, (_, decisions) in enumerate(expected(name, config)):
        real = turn_mask[row].bool()
        turn = torch.cat([tokens[row][real], tokens.new_zeros(1)])
        wanted = forced_logits(config, prompt.rows[row], decisions, turn)[1:]
        assert_close(logits[row][real], wanted, f"row {row}")
