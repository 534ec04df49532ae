"""The tiny model: sizes, and a start from which lookups are learned quickly."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eval.instruments.models.random_checkpoint import SPECIAL_TOKENS, tiny_config
from eval.synthetic.training.codes import DIM, GRID, directions
from eval.synthetic.training.prompts import Prompts
from eval.synthetic.world.events import COLORS, SCENES, SHAPES
from eval.synthetic.world.raster import SIDE
from eval.synthetic.world.tokenizer import PHRASES, write_tokenizer
from llava.model.language_model.llava_qwen import LlavaQwenConfig, LlavaQwenForCausalLM

FIRST_LAYERS, LAYERS = 6, 8  # of the decoder at the start and in the end
_GROWTH = (0, 1, 2, 3, None, 4, None, 5)  # which layer of the start each of the end continues; None is new
_TOWER_LAYERS = 5  # the last one is dropped at load, as every LLaVA-OneVision does
_MATCHED_LAYERS = 4  # layers that start with queries alike to keys
_EMBEDDING = 0.09


def learned_config(vocabulary: int, layers: int = LAYERS) -> dict[str, Any]:
    """``config.json`` of the tiny model: 128-pixel frames, 256 patches, 64 tokens per frame."""
    config = tiny_config(DIM, layers, _TOWER_LAYERS)
    first = vocabulary - len(PHRASES) - len(SPECIAL_TOKENS)  # the phrases come last
    numbers = {token: first + place for place, token in enumerate(SPECIAL_TOKENS)}
    config.update(
        intermediate_size=384,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=vocabulary,
        bos_token_id=numbers["<|endoftext|>"],
        eos_token_id=numbers["<|im_end|>"],
        tie_word_embeddings=True,
        image_aspect_ratio="pad",
        mm_vision_tower="tiny-siglip-patch8-128",
        image_grid_pinpoints=[[SIDE, SIDE]],
    )
    config["vision_config"].update(
        num_attention_heads=2, intermediate_size=512, image_size=SIDE, patch_size=SIDE // GRID
    )
    return config


def _word_rows(prompts: Prompts) -> dict[int, Tensor]:
    """Tokens of the world's words with the direction their code has."""
    named, rows = directions(), {}
    for kind, words in (("color", COLORS), ("shape", SHAPES), ("scene", SCENES)):
        for word, direction in zip(words, named[kind], strict=True):
            for text in (word, f" {word}"):
                ids = prompts.tokenizer.encode(text)
                assert len(ids) == 1, f"{text!r} must be one token"
                rows[ids[0]] = direction
    return rows


@torch.no_grad()
def start(model: LlavaQwenForCausalLM, prompts: Prompts, seed: int) -> None:
    """Fill every parameter from the seed.

    Words start near the codes they name, and in the lower layers queries start alike to keys, so attention begins as
    a search for equal content.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() == 1:
            one = "norm" in name and name.endswith("weight")
            parameter.copy_(torch.ones_like(noise) if one else 0.02 * noise if "newline" in name else 0 * noise)
        elif "embed" in name:
            parameter.copy_((_EMBEDDING if "embed_tokens" in name else 0.02) * noise)
        else:
            parameter.copy_(noise * parameter[0].numel() ** -0.5)
    decoder = model.get_model()
    for layer in decoder.layers:
        layer.self_attn.o_proj.weight.mul_(0.5)
        layer.mlp.down_proj.weight.mul_(0.5)
    for layer in decoder.layers[:_MATCHED_LAYERS]:
        _match(layer.self_attn)
    for token, direction in _word_rows(prompts).items():
        decoder.embed_tokens.weight[token] = direction + 0.3 * decoder.embed_tokens.weight[token]


def new_model(folder: Path, seed: int, layers: int = LAYERS) -> tuple[LlavaQwenForCausalLM, dict[str, Any], Prompts]:
    """Write the tokenizer into a folder and make the model that fits it; returns model, configuration and prompts."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = learned_config(write_tokenizer(folder), layers)
    config = LlavaQwenConfig(**{key: value for key, value in raw.items() if key != "model_type"})
    config._attn_implementation = "sdpa"
    model, prompts = LlavaQwenForCausalLM(config), Prompts(folder)
    start(model, prompts, seed)
    return model, raw, prompts


def _match(attention: Any) -> None:
    """Make queries alike to keys, but for some noise."""
    key, query, size = attention.k_proj.weight, attention.q_proj.weight, attention.head_dim
    alike = key.view(-1, 1, size, DIM).expand(-1, query.shape[0] // key.shape[0], -1, -1).reshape(query.shape)
    query.copy_(alike + 0.3 * query)


@torch.no_grad()
def match_anew(model: LlavaQwenForCausalLM, layers: Collection[int], seed: int) -> None:
    """Let some layers begin again as a search for equal content: queries and keys from the seed, the rest stays."""
    generator = torch.Generator().manual_seed(seed)
    for number in layers:
        attention = model.get_model().layers[number].self_attn
        for projection in (attention.q_proj, attention.k_proj):
            projection.weight.copy_(torch.randn(projection.weight.shape, generator=generator) * DIM**-0.5)
            projection.bias.zero_()
        _match(attention)


@torch.no_grad()
def grow(model: LlavaQwenForCausalLM, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a shallow decoder for a deeper one that computes the same: new layers add nothing at first.

    Args:
        model: the deeper one, as :func:`start` filled it.
        state: of the shallow one.

    Returns:
        A state for the deeper one.
    """
    grown = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name in grown:
        if ".layers." not in name or "vision_tower" in name:
            grown[name] = state[name]
            continue
        before, rest = name.split(".layers.")
        number, part = rest.split(".", 1)
        origin = _GROWTH[int(number)]
        if origin is not None:
            grown[name] = state[f"{before}.layers.{origin}.{part}"]
        elif "o_proj" in part or "down_proj" in part:
            grown[name].zero_()
    return grown


def matrices(module: nn.Module) -> list[nn.Parameter]:
    """Weights of linear layers: what the Muon optimizer is made for."""
    return [
        weight
        for layer in module.modules()
        if isinstance(layer, nn.Linear)
        for weight in (layer.weight,)
        if isinstance(weight, nn.Parameter)
    ]
