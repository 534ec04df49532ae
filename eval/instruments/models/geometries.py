"""The sizes of the published checkpoints, and models of these sizes with random weights, made where they run.

Speed depends on sizes and not on what was learned, so a latency can be measured without a download. What random weights
do not give is meaning: see :func:`fill` for what they are made to keep.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding

from eval.instruments.models.random_checkpoint import LAYOUTS, tiny_config
from llava.errors import InputError
from llava.model.language_model.llava_qwen import LlavaQwenConfig, LlavaQwenForCausalLM

_TOWER = {
    "mm_vision_tower": "google/siglip-so400m-patch14-384",
    "mm_vision_select_layer": -2,
    "mm_hidden_size": 1152,
    "mm_projector_type": "mlp2x_gelu",
    "mm_patch_merge_type": "spatial_unpad",
    "mm_spatial_pool_stride": 2,
}
_QWEN2 = {
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"},
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "tokenizer_model_max_length": 32768,
    "use_cache": True,
}
_QWEN2_05B = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
_QWEN2_7B = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "tie_word_embeddings": False,
}
_TINY_LAYERS = 8  # as many as the learned tiny model has, so that the files of configs/tiny fit

# name -> values of config.json
GEOMETRIES: dict[str, dict[str, Any]] = {
    "llava-onevision-7b": {**_TOWER, **_QWEN2, **_QWEN2_7B, **LAYOUTS["llava-onevision"]},
    "llava-onevision-0.5b": {**_TOWER, **_QWEN2, **_QWEN2_05B, **LAYOUTS["llava-onevision"]},
    "llava-video-7b": {**_TOWER, **_QWEN2, **_QWEN2_7B, **LAYOUTS["llava-video"]},
    "tiny": {key: value for key, value in tiny_config(layers=_TINY_LAYERS).items() if key != "model_type"},
}
# frames sampled from a video: the tiny one is for tests
FRAMES = {"llava-onevision-7b": 32, "llava-onevision-0.5b": 32, "llava-video-7b": 64, "tiny": 8}
_SAME_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "mm_newline_position",
    "mm_spatial_pool_mode",
)
_WRITES_RESIDUAL = ("o_proj", "out_proj", "down_proj", "fc2")
_EMBEDDING_BOUNDS = {"position_embedding": 0.05, "embed_tokens": 0.03, "image_newline": 0.03}
_NOISE_VALUES = 4_194_301  # a prime, so that no row of a matrix repeats the one before


def geometry_config(name: str, attention: str = "sdpa") -> LlavaQwenConfig:
    """The configuration of one geometry.

    Args:
        name: a key of :data:`GEOMETRIES`.
        attention: attention implementation of decoder and tower alike.

    Raises:
        InputError: for an unknown name.
    """
    if name not in GEOMETRIES:
        raise InputError(f"geometry = {name!r} is unknown: it must be one of {', '.join(GEOMETRIES)}")
    config = LlavaQwenConfig(**GEOMETRIES[name])
    config._attn_implementation = attention
    return config


def check_sizes(config: Any, geometry: str, checkpoint: str) -> None:
    """A checkpoint of another size must not be measured under a geometry's name.

    Raises:
        InputError: if a size differs.
    """
    wanted = geometry_config(geometry)
    for field in _SAME_SIZES:
        if getattr(config, field, None) != getattr(wanted, field, None):
            raise InputError(
                f"{checkpoint} has {field} = {getattr(config, field, None)!r}, {geometry} has "
                f"{getattr(wanted, field, None)!r}: name the checkpoint's own geometry"
            )


class _Noise:
    """An endless stream of values in [-1, 1]: one drawn block over and over, since drawing billions takes minutes."""

    def __init__(self, device: torch.device, dtype: torch.dtype, seed: int) -> None:
        generator = torch.Generator(device).manual_seed(seed)
        block = torch.rand(_NOISE_VALUES, generator=generator, device=device, dtype=torch.float32)
        self.block, self.place = (2 * block - 1).to(dtype), 0

    def write(self, flat: Tensor, bound: float) -> None:
        """The next values, times ``bound``."""
        start = 0
        while start < flat.numel():
            count = min(flat.numel() - start, _NOISE_VALUES - self.place)
            torch.mul(self.block[self.place : self.place + count], bound, out=flat[start : start + count])
            start, self.place = start + count, (self.place + count) % _NOISE_VALUES


@torch.no_grad()
def fill(model: nn.Module, seed: int) -> None:
    """Random values for every parameter, drawn on the device it lies on.

    A matrix keeps the size of what it is given (variance 1 / inputs), and what is written onto the residual stream is
    scaled down by the depth. So activations stay finite in half precision, and a patch's feature is still mostly that
    patch: what stands still in the pixels stands still in the features, and what changes does not look alike. A method
    with a threshold of similarity then finds the redundancy that a synthetic clip was given.

    Args:
        model: with all parameters on one real device.
        seed: of the values; the same on one kind of device.
    """
    parameters = dict(model.named_parameters())
    first = next(iter(parameters.values()))
    noise = _Noise(first.device, first.dtype, seed)
    depth = sum(name.endswith("q_proj.weight") for name in parameters)
    for name, parameter in parameters.items():
        bound = next((bound for part, bound in _EMBEDDING_BOUNDS.items() if part in name), None)
        if bound is None and parameter.dim() == 1:
            parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
            continue
        bound = bound or (3 / parameter[0].numel()) ** 0.5
        if any(part in name for part in _WRITES_RESIDUAL):
            bound *= max(depth, 1) ** -0.5
        noise.write(parameter.view(-1), bound)


def random_model(
    name: str, device: torch.device | str, dtype: torch.dtype, seed: int = 0, attention: str = "sdpa"
) -> LlavaQwenForCausalLM:
    """A model of the true size with random weights, made on ``device`` in ``dtype``: never anywhere else.

    Args:
        name: a key of :data:`GEOMETRIES`.
        device: where the weights are made; ``"meta"`` leaves them unmade.
        dtype: floating-point type of the weights.
        seed: of the weights.
        attention: attention implementation of decoder and tower alike.

    Raises:
        InputError: for an unknown name.
    """
    config = geometry_config(name, attention)
    with torch.device("meta"):
        model = LlavaQwenForCausalLM(config).to(dtype).eval()
    if torch.device(device).type == "meta":
        return model
    if config.tie_word_embeddings:  # made apart, the table would be in memory twice until the two are tied again
        model.lm_head.register_parameter("weight", None)
    model.to_empty(device=device)
    if config.tie_word_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    _fill_buffers(model, config)
    fill(model, seed)
    return model


@torch.no_grad()
def _fill_buffers(model: LlavaQwenForCausalLM, config: LlavaQwenConfig) -> None:
    """Buffers are no parameters: rotary frequencies (float32 whatever the weights are) and the tower's positions."""
    model.model.rotary_emb = Qwen2RotaryEmbedding(config).to(model.device)
    embeddings = model.get_vision_tower().vision_tower.embeddings
    embeddings.position_ids.copy_(torch.arange(embeddings.position_ids.shape[-1])[None])
    known = ("rotary_emb.inv_freq", "rotary_emb.original_inv_freq", "embeddings.position_ids")
    unknown = [name for name, _ in model.named_buffers() if not name.endswith(known)]
    assert not unknown, f"buffers without values: {unknown}"
