"""Configurations, tensor names and shapes of the published checkpoints, written down from their sizes alone.

Nothing here asks the project's own model: names are spelled as the files spell them. Folders made from them hold an
index and files whose headers are true and whose data is a hole, so that 72B takes no space on a disk.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Sizes:
    """Sizes of a Qwen2 decoder; ``vocabulary`` is that of the lmms-lab file, Hugging Face pads it."""

    width: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    padded_vocabulary: int
    tied: bool


QWEN2_05B = Sizes(896, 4864, 24, 14, 2, 151936, 152000, True)
QWEN2_7B = Sizes(3584, 18944, 28, 28, 4, 152064, 152128, False)
QWEN2_72B = Sizes(8192, 29568, 80, 64, 8, 152064, 152128, False)
TOWER_WIDTH, TOWER_INNER, TOWER_LAYERS, PATCHES, PATCH = 1152, 4304, 26, 729, 14

# name: (sizes, layout, whether it is LLaVA-Video)
CHECKPOINTS = {
    "lmms-lab/llava-onevision-qwen2-0.5b-ov": (QWEN2_05B, "lmms-lab", False),
    "lmms-lab/llava-onevision-qwen2-7b-ov": (QWEN2_7B, "lmms-lab", False),
    "lmms-lab/llava-onevision-qwen2-72b-ov-sft": (QWEN2_72B, "lmms-lab", False),
    "lmms-lab/LLaVA-Video-7B-Qwen2": (QWEN2_7B, "lmms-lab", True),
    "llava-hf/llava-onevision-qwen2-0.5b-ov-hf": (QWEN2_05B, "hugging-face", False),
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": (QWEN2_7B, "hugging-face", False),
    "llava-hf/llava-onevision-qwen2-72b-ov-hf": (QWEN2_72B, "hugging-face", False),
}
# Prefixes of decoder, head, tower, first and second projector layer, newline: lmms-lab; Hugging Face as published; as
# transformers 4.52 writes it; as transformers 5 writes it.
PREFIXES = {
    "lmms-lab": (
        "model.", "lm_head.", "model.vision_tower.vision_tower.vision_model.", "model.mm_projector.0.",
        "model.mm_projector.2.", "model.image_newline",
    ),
    "hugging-face": (
        "language_model.model.", "language_model.lm_head.", "vision_tower.vision_model.",
        "multi_modal_projector.linear_1.", "multi_modal_projector.linear_2.", "image_newline",
    ),
    "hugging-face 4.52": (
        "model.language_model.", "lm_head.", "model.vision_tower.vision_model.",
        "model.multi_modal_projector.linear_1.", "model.multi_modal_projector.linear_2.", "model.image_newline",
    ),
    "hugging-face 5": (
        "model.language_model.", "lm_head.", "model.vision_tower.", "model.multi_modal_projector.linear_1.",
        "model.multi_modal_projector.linear_2.", "model.image_newline",
    ),
}  # fmt: skip


def _linear(name: str, out: int, into: int, bias: bool = True) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (out, into)
    if bias:
        yield f"{name}.bias", (out,)


def _norm(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _decoder(prefix: str, sizes: Sizes, vocabulary: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, head = sizes.width, sizes.width // sizes.heads
    yield f"{prefix}embed_tokens.weight", (vocabulary, width)
    yield f"{prefix}norm.weight", (width,)
    for number in range(sizes.layers):
        layer = f"{prefix}layers.{number}"
        yield f"{layer}.input_layernorm.weight", (width,)
        yield f"{layer}.post_attention_layernorm.weight", (width,)
        yield from _linear(f"{layer}.self_attn.q_proj", width, width)
        yield from _linear(f"{layer}.self_attn.k_proj", sizes.kv_heads * head, width)
        yield from _linear(f"{layer}.self_attn.v_proj", sizes.kv_heads * head, width)
        yield from _linear(f"{layer}.self_attn.o_proj", width, width, bias=False)
        yield from _linear(f"{layer}.mlp.gate_proj", sizes.inner, width, bias=False)
        yield from _linear(f"{layer}.mlp.up_proj", sizes.inner, width, bias=False)
        yield from _linear(f"{layer}.mlp.down_proj", width, sizes.inner, bias=False)


def _tower(prefix: str, layers: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{prefix}embeddings.patch_embedding.weight", (TOWER_WIDTH, 3, PATCH, PATCH)
    yield f"{prefix}embeddings.patch_embedding.bias", (TOWER_WIDTH,)
    yield f"{prefix}embeddings.position_embedding.weight", (PATCHES, TOWER_WIDTH)
    for number in range(layers):
        layer = f"{prefix}encoder.layers.{number}"
        for norm in ("layer_norm1", "layer_norm2"):
            yield from _norm(f"{layer}.{norm}", TOWER_WIDTH)
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _linear(f"{layer}.self_attn.{projection}", TOWER_WIDTH, TOWER_WIDTH)
        yield from _linear(f"{layer}.mlp.fc1", TOWER_INNER, TOWER_WIDTH)
        yield from _linear(f"{layer}.mlp.fc2", TOWER_WIDTH, TOWER_INNER)
    yield from _norm(f"{prefix}post_layernorm", TOWER_WIDTH)


def shapes(sizes: Sizes, spelling: str, tower_layers: int = TOWER_LAYERS) -> Shapes:
    """Every tensor of a file in one spelling (a key of :data:`PREFIXES`)."""
    decoder, head, tower, first, second, newline = PREFIXES[spelling]
    vocabulary = sizes.vocabulary if spelling == "lmms-lab" else sizes.padded_vocabulary
    found = dict(_decoder(decoder, sizes, vocabulary))
    found |= dict(_tower(tower, tower_layers))
    found |= dict(_linear(first.rstrip("."), sizes.width, TOWER_WIDTH))
    found |= dict(_linear(second.rstrip("."), sizes.width, sizes.width))
    found[newline] = (sizes.width,)
    if not sizes.tied:
        found[f"{head}weight"] = (vocabulary, sizes.width)
    return found


def head_shapes(spelling: str) -> Shapes:
    """SigLIP's attention-pooling head, which LLaVA does not run."""
    prefix = f"{PREFIXES[spelling][2]}head."
    found = dict(_linear(f"{prefix}mlp.fc1", TOWER_INNER, TOWER_WIDTH))
    found |= dict(_linear(f"{prefix}mlp.fc2", TOWER_WIDTH, TOWER_INNER)) | dict(
        _norm(f"{prefix}layernorm", TOWER_WIDTH)
    )
    found |= dict(_linear(f"{prefix}attention.out_proj", TOWER_WIDTH, TOWER_WIDTH))
    found[f"{prefix}attention.in_proj_weight"] = (3 * TOWER_WIDTH, TOWER_WIDTH)
    found[f"{prefix}attention.in_proj_bias"] = (3 * TOWER_WIDTH,)
    found[f"{prefix}probe"] = (1, 1, TOWER_WIDTH)
    return found


def _decoder_config(sizes: Sizes) -> dict[str, Any]:
    return {
        "hidden_size": sizes.width, "intermediate_size": sizes.inner, "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads, "num_key_value_heads": sizes.kv_heads, "hidden_act": "silu",
        "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "use_cache": True,
        "tie_word_embeddings": sizes.tied, "torch_dtype": "bfloat16",
    }  # fmt: skip


def config(name: str) -> dict[str, Any]:
    """What matters of a checkpoint's ``config.json``."""
    sizes, layout, is_video = CHECKPOINTS[name]
    pinpoints = [[384 * row, 384 * col] for row in range(1, 7) for col in range(1, 7)]
    if layout == "hugging-face":
        return {
            "architectures": ["LlavaOnevisionForConditionalGeneration"], "model_type": "llava_onevision",
            "image_token_index": 151646, "video_token_index": 151647, "projector_hidden_act": "gelu",
            "image_grid_pinpoints": pinpoints, "tie_word_embeddings": False, "use_image_newline_parameter": True,
            "vision_aspect_ratio": "anyres_max_9", "vision_feature_layer": -1, "vision_feature_select_strategy": "full",
            "text_config": {**_decoder_config(sizes), "model_type": "qwen2", "vocab_size": sizes.padded_vocabulary},
            "vision_config": {
                "hidden_size": TOWER_WIDTH, "intermediate_size": TOWER_INNER, "num_hidden_layers": TOWER_LAYERS,
                "num_attention_heads": 16, "image_size": 384, "patch_size": PATCH, "model_type": "siglip_vision_model",
                "vision_use_head": False,
            },
        }  # fmt: skip
    family = {"mm_newline_position": "grid", "mm_spatial_pool_mode": "average", "add_time_instruction": True}
    return {
        **_decoder_config(sizes), **(family if is_video else {}),
        "architectures": ["LlavaQwenForCausalLM"], "model_type": "llava", "vocab_size": sizes.vocabulary,
        "image_aspect_ratio": "anyres_max_9", "image_grid_pinpoints": pinpoints, "mm_hidden_size": TOWER_WIDTH,
        "mm_patch_merge_type": "spatial_unpad", "mm_projector_type": "mlp2x_gelu", "mm_resampler_type": None,
        "mm_spatial_pool_stride": 2, "mm_use_im_patch_token": False, "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch", "mm_vision_select_layer": -2, "tokenizer_model_max_length": 32768,
        "mm_vision_tower": "google/siglip-so400m-patch14-384", "max_window_layers": sizes.layers,
    }  # fmt: skip


def write_folder(folder: Path, name: str, tensors: Shapes, files: int = 4) -> Path:
    """``config.json``, an index and ``files`` safetensors files with true headers and no data on the disk."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config(name)))
    names, index = sorted(tensors), {}
    for number in range(files):
        file = f"model-{number + 1:05d}-of-{files:05d}.safetensors"
        part = {each: tensors[each] for each in names[number::files]}
        write_hollow(folder / file, part)
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return folder


def write_hollow(path: Path, tensors: Shapes) -> None:
    """A safetensors file of bfloat16 tensors whose data is a hole in the file."""
    header, end = {}, 0
    for name, shape in tensors.items():
        size = 2
        for length in shape:
            size *= length
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
