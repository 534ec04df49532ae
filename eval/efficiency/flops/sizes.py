"""Sizes of the published checkpoints, for counting real FLOPs, and models of these sizes without values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from eval.instruments.models.geometries import FRAMES, GEOMETRIES
from eval.paper.formula import Geometry
from llava.errors import InputError
from llava.model.language_model.llava_qwen import LlavaQwenConfig, LlavaQwenForCausalLM
from llava.model.pooling import pool_frames
from llava.model.vision_tower import tower_config

DTYPE = torch.bfloat16
_QWEN2_72B = {
    "hidden_size": 8192,
    "intermediate_size": 29568,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
}
# name -> values of config.json; the 72B model is too large to be measured elsewhere
CHECKPOINTS: dict[str, dict[str, Any]] = {
    **{name: values for name, values in GEOMETRIES.items() if name != "tiny"},
    "llava-onevision-72b": {**GEOMETRIES["llava-onevision-7b"], **_QWEN2_72B},
}


@dataclass(frozen=True)
class ModelSizes:
    """Everything the FLOPs of a checkpoint depend on.

    Attributes:
        name: of the checkpoint.
        frames: frames of a video.
        side: pixels of a frame's side.
        patch: pixels of a patch's side.
        patches: patches of a frame.
        tower_dim, tower_inner, tower_layers, tower_heads: of the layers of the tower that run (26 of 27).
        tokens_per_frame: visual tokens of a frame after pooling.
        newline_mode: ``mm_newline_position``.
        projector_layers: linear layers of the projector.
        dim, inner, layers, heads, key_heads, head_dim, vocabulary: of the language model.
    """

    name: str
    frames: int
    side: int
    patch: int
    patches: int
    tower_dim: int
    tower_inner: int
    tower_layers: int
    tower_heads: int
    tokens_per_frame: int
    newline_mode: str
    projector_layers: int
    dim: int
    inner: int
    layers: int
    heads: int
    key_heads: int
    head_dim: int
    vocabulary: int

    @property
    def query_width(self) -> int:
        """Channels of all query heads."""
        return self.heads * self.head_dim

    @property
    def key_width(self) -> int:
        """Channels of all key heads, which are also those of the values."""
        return self.key_heads * self.head_dim

    @property
    def paper(self) -> Geometry:
        """The sizes that the paper's formula and its token counts need."""
        return Geometry(self.name, self.dim, self.inner, self.layers, self.frames, self.tokens_per_frame)

    @classmethod
    def of(cls, config: LlavaQwenConfig, name: str, frames: int) -> ModelSizes:
        """Read them from a configuration, the tower cut to the layers that the runtime runs."""
        tower = tower_config(config)
        patches = (tower.image_size // tower.patch_size) ** 2
        kind = config.mm_projector_type
        return cls(
            name=name,
            frames=frames,
            side=tower.image_size,
            patch=tower.patch_size,
            patches=patches,
            tower_dim=tower.hidden_size,
            tower_inner=tower.intermediate_size,
            tower_layers=tower.num_hidden_layers,
            tower_heads=tower.num_attention_heads,
            tokens_per_frame=pool_frames(
                torch.empty(1, patches, 1, device="meta"), config.mm_spatial_pool_stride, config.mm_spatial_pool_mode
            ).shape[1],
            newline_mode=config.mm_newline_position,
            projector_layers=1 if kind == "linear" else int(kind.removeprefix("mlp").removesuffix("x_gelu")),
            dim=config.hidden_size,
            inner=config.intermediate_size,
            layers=config.num_hidden_layers,
            heads=config.num_attention_heads,
            key_heads=config.num_key_value_heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
            vocabulary=config.vocab_size,
        )


def model_config(name: str) -> LlavaQwenConfig:
    """Configuration of one of :data:`CHECKPOINTS`.

    Raises:
        InputError: for an unknown name.
    """
    if name not in CHECKPOINTS:
        raise InputError(f"--geometry {name} is unknown: it must be one of {', '.join(CHECKPOINTS)}")
    config = LlavaQwenConfig(**CHECKPOINTS[name])
    config._attn_implementation = "sdpa"
    return config


def hollow_model(config: LlavaQwenConfig) -> LlavaQwenForCausalLM:
    """The runtime's own model on the meta device, without values, as bfloat16."""
    with torch.device("meta"):
        return LlavaQwenForCausalLM(config).to(DTYPE).eval()


@cache
def sizes_of(name: str) -> ModelSizes:
    """Sizes of one of :data:`CHECKPOINTS`."""
    return ModelSizes.of(model_config(name), name, FRAMES.get(name, 32))
