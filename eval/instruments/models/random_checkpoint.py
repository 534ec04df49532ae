"""A tiny random checkpoint with the true geometry: 384/14 tower, 196 tokens per frame (LLaVA-Video: 169).

    python -m eval.instruments.models.random_checkpoint outputs/random-tiny
    python -m eval.instruments.models.random_checkpoint outputs/random-video --layout llava-video

It answers nonsense. It is there so that the whole pipeline runs without a download: loading, video, compression,
generation. Weights depend on the seed alone.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor

from eval.instruments.cli import Parser, user_errors
from holitom.files import make_folder
from llava.errors import InputError
from llava.model.language_model.llava_qwen import LlavaQwenConfig, LlavaQwenForCausalLM

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# What tells the published configurations of the two families apart.
LAYOUTS: dict[str, dict[str, Any]] = {
    "llava-onevision": {"mm_newline_position": "one_token", "mm_spatial_pool_mode": "bilinear"},
    "llava-video": {
        "mm_newline_position": "grid",
        "mm_spatial_pool_mode": "average",
        "add_time_instruction": True,
        "force_sample": True,
    },
}
_TILE_SIDES = range(1, 7)  # any-resolution images of 1 x 1 to 6 x 6 tiles, as in the published configurations


def tiny_config(
    width: int = 64, layers: int = 6, tower_layers: int = 3, layout: str = "llava-onevision"
) -> dict[str, Any]:
    """``config.json`` in the published layout, with small widths and the tower's sizes spelled out.

    Raises:
        InputError: for a layout that is none of :data:`LAYOUTS`.
    """
    if layout not in LAYOUTS:
        raise InputError(f"layout = {layout!r} is unknown: it must be one of {', '.join(LAYOUTS)}")
    heads = width // 16
    return {
        "architectures": ["LlavaQwenForCausalLM"],
        "model_type": "llava_qwen",
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": max(1, heads // 2),
        "vocab_size": 256 + len(SPECIAL_TOKENS),
        "bos_token_id": 256,
        "eos_token_id": 258,
        "hidden_act": "silu",
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"},
        "tie_word_embeddings": False,
        "use_cache": True,
        "dtype": "float32",
        "image_aspect_ratio": "anyres_max_9",
        "image_grid_pinpoints": [[384 * row, 384 * col] for row in _TILE_SIDES for col in _TILE_SIDES],
        "mm_hidden_size": width,
        "mm_patch_merge_type": "spatial_unpad",
        "mm_projector_type": "mlp2x_gelu",
        **LAYOUTS[layout],
        "mm_spatial_pool_stride": 2,
        "mm_vision_select_layer": -2,
        "mm_vision_tower": "random-siglip-patch14-384",
        "tokenizer_model_max_length": 32768,
        "vision_config": {
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_hidden_layers": tower_layers,
            "num_attention_heads": heads,
            "num_channels": 3,
            "image_size": 384,
            "patch_size": 14,
            "hidden_act": "gelu_pytorch_tanh",
            "layer_norm_eps": 1e-6,
        },
    }


@torch.no_grad()
def randomize(model: torch.nn.Module, seed: int) -> None:
    """Fill every parameter from the seed, at a scale where activations keep their size and errors show in logits."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        if "norm" in name and name.endswith("weight"):
            parameter.copy_(1 + 0.1 * noise)
        elif parameter.dim() == 1:
            parameter.copy_(0.1 * noise)
        elif "embed" in name:
            parameter.copy_(0.3 * noise if "patch" not in name else noise * 2 * parameter[0].numel() ** -0.5)
        else:
            parameter.copy_(noise * 1.4 * parameter.shape[1] ** -0.5)


def published_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Parameter names as in the checkpoints of lmms-lab."""
    nested = "model.vision_tower.vision_tower."
    return {name.replace(nested, nested + "vision_model."): tensor for name, tensor in state.items()}


def write_checkpoint(folder: Path, state: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write weights and configuration into a checkpoint's folder; the tokenizer's files are not among them.

    Args:
        folder: that exists.
        state: of the model; the output layer is left out where it is the embedding.
        config: what ``config.json`` shall hold.
    """
    tied = {"lm_head.weight"} if config["tie_word_embeddings"] else set()
    weights = {name: tensor.contiguous() for name, tensor in state.items() if name not in tied}
    save_file(published_names(weights), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    ids = {"eos_token_id": config["eos_token_id"], "pad_token_id": config["bos_token_id"]}
    (folder / "generation_config.json").write_text(json.dumps(ids))


def write_tokenizer_files(path: Path, vocabulary: int, phrases: Sequence[str] = ()) -> None:
    """The special tokens and settings of a byte-level tokenizer in Qwen2's file format.

    Args:
        path: folder that holds ``vocab.json`` and ``merges.txt``.
        vocabulary: entries of ``vocab.json``; the special tokens are numbered from here.
        phrases: texts that are one token each, after the special tokens.
    """
    flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    added = {
        str(vocabulary + number): {"content": token, **flags, "special": token in SPECIAL_TOKENS}
        for number, token in enumerate((*SPECIAL_TOKENS, *phrases))
    }
    settings = {
        "tokenizer_class": "Qwen2Tokenizer",
        "added_tokens_decoder": added,
        "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "bos_token": None,
        "unk_token": None,
        "errors": "replace",
        "model_max_length": 32768,
        "padding_side": "right",
    }
    (path / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))


def write_tokenizer(path: Path) -> None:
    """A byte-level tokenizer without merges, in Qwen2's file format."""
    symbols = {symbol: number for number, symbol in enumerate(sorted(ByteLevel.alphabet()))}
    (path / "vocab.json").write_text(json.dumps(symbols))
    (path / "merges.txt").write_text("#version: 0.2\n")
    write_tokenizer_files(path, len(symbols))


def make_random_checkpoint(path: str | Path, seed: int = 0, layout: str = "llava-onevision", **sizes: int) -> Path:
    """Write a checkpoint in the published layout.

    Args:
        path: folder to make; existing files of the same names are replaced.
        seed: of the weights.
        layout: the family, a key of :data:`LAYOUTS`.
        **sizes: the other arguments of :func:`tiny_config`.

    Raises:
        InputError: for an unknown layout, or if the folder cannot be made.
    """
    return write_random_model(path, tiny_config(**sizes, layout=layout), seed)


def write_random_model(path: str | Path, raw: Mapping[str, Any], seed: int = 0) -> Path:
    """Write a checkpoint of random weights, with a byte-level tokenizer, in the layout of lmms-lab.

    Args:
        path: folder to make; existing files of the same names are replaced.
        raw: its ``config.json``.
        seed: of the weights.

    Raises:
        InputError: if the folder cannot be made.
    """
    config = LlavaQwenConfig(**{key: value for key, value in raw.items() if key != "model_type"})
    config._attn_implementation = "sdpa"
    folder = make_folder(Path(path))
    with torch.device("meta"):  # every weight is drawn below, once
        model = LlavaQwenForCausalLM(config)
    model = model.to_empty(device="cpu")
    model.tie_weights()
    randomize(model, seed)
    write_checkpoint(folder, model.state_dict(), raw)
    write_tokenizer(folder)
    return folder


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("path", help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layout", choices=LAYOUTS, default="llava-onevision", help="family of the checkpoint")
    options = parser.parse_args(arguments)
    print(make_random_checkpoint(options.path, options.seed, options.layout))


if __name__ == "__main__":
    main()
