"""FLOPs of the language model's prefill by the paper's own formula, and how many tokens each layer sees.

The formula counts visual tokens only: text, newline tokens, the vision tower, grouped-query attention and SwiGLU's
third matrix are left out, so the values compare methods with each other, not with a profiler.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from llava.errors import InputError

TERA = 1e12


@dataclass(frozen=True)
class Geometry:
    """The sizes the formula needs.

    Attributes:
        name: checkpoint family, for the table.
        hidden_size: width of the language model.
        intermediate_size: width of its feed-forward layers.
        layers: number of its layers.
        frames: frames sampled from a video.
        tokens_per_frame: visual tokens of a frame after pooling.
    """

    name: str
    hidden_size: int
    intermediate_size: int
    layers: int
    frames: int = 32
    tokens_per_frame: int = 196

    def __post_init__(self) -> None:
        for field, value in asdict(self).items():
            if field != "name" and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise InputError(f"{field} is {value!r}; it must be a whole number of at least 1")

    @property
    def visual_tokens(self) -> int:
        """Visual tokens of an uncompressed video."""
        return self.frames * self.tokens_per_frame

    @classmethod
    def from_config(cls, config: Any, name: str, frames: int = 32, tokens_per_frame: int = 196) -> Geometry:
        """Take the language model's sizes from a transformers config or a ``config.json`` read into a mapping.

        Args:
            config: flat (LLaVA-NeXT layout) or with a nested ``text_config`` (transformers' layout).
            name: what to call it.
            frames: frames sampled from a video.
            tokens_per_frame: visual tokens of a frame after pooling.

        Raises:
            InputError: the config lacks one of the sizes.
        """
        text = _entry(config, "text_config") or config
        keys = ("hidden_size", "intermediate_size", "num_hidden_layers")
        sizes = [_entry(text, key) for key in keys]
        missing = [key for key, value in zip(keys, sizes, strict=True) if value is None]
        if missing:
            raise InputError(f"the config of {name} has no {', '.join(missing)}; pass the config of a language model")
        width, inner_width, layers = sizes
        return cls(name, width, inner_width, layers, frames, tokens_per_frame)


ONEVISION_05B = Geometry("LLaVA-OneVision-0.5B", 896, 4864, 24)
ONEVISION_7B = Geometry("LLaVA-OneVision-7B", 3584, 18944, 28)
ONEVISION_72B = Geometry("LLaVA-OneVision-72B", 8192, 29568, 80)
VIDEO_7B = Geometry("LLaVA-Video-7B", 3584, 18944, 28, frames=64, tokens_per_frame=169)


def paper_flops(tokens_per_layer: Sequence[int], hidden_size: int, intermediate_size: int) -> float:
    """Prefill FLOPs by the paper's formula: the sum over layers of 4nd² + 2n²d + 2ndm.

    Args:
        tokens_per_layer: n, the visual tokens each layer sees; one entry per layer.
        hidden_size: d, width of the language model.
        intermediate_size: m, width of its feed-forward layers.

    Returns:
        FLOPs (not tera).

    Raises:
        InputError: no layer, or a negative token count.
    """
    if not tokens_per_layer or min(tokens_per_layer) < 0:
        raise InputError(f"tokens_per_layer is {list(tokens_per_layer)!r}; give one count of at least 0 for each layer")
    width, inner_width = hidden_size, intermediate_size
    # whole numbers throughout: exact however long the video is
    return float(sum(n * (4 * width**2 + 2 * n * width + 2 * width * inner_width) for n in tokens_per_layer))


def outer_tokens(geometry: Geometry, retain_ratio: float = 1.0) -> int:
    """Visual tokens after an outer stage as the paper counts them: rounded up in each frame.

    Raises:
        InputError: ``retain_ratio`` is outside (0, 1].
    """
    if not 0 < retain_ratio <= 1:
        raise InputError(f"retain_ratio is {retain_ratio}; it must be above 0 and at most 1")
    # 100 * 0.07 is 7.000000000000001 in floating point; a rounding error must not add a token to every frame
    return geometry.frames * math.ceil(round(geometry.tokens_per_frame * retain_ratio, 9))


def staged_layers(geometry: Geometry, stages: Mapping[int, int]) -> list[int]:
    """Tokens of every layer from the layers where the count changes.

    Args:
        geometry: gives the number of layers.
        stages: first layer of each stage -> tokens from there on; one stage starts at layer 0.

    Raises:
        InputError: no stage starts at layer 0, or one starts outside the model.
    """
    if 0 not in stages or not all(0 <= layer < geometry.layers for layer in stages):
        bound = f"0 and other layers below {geometry.layers}"
        raise InputError(f"stages start at layers {sorted(stages)}; they must be {bound} for {geometry.name}")
    counts: list[int] = []
    for layer in range(geometry.layers):
        counts.append(stages.get(layer, counts[-1] if counts else 0))
    return counts


def outer_layers(geometry: Geometry, retain_ratio: float = 1.0) -> list[int]:
    """Tokens of every layer when only an outer stage compresses; 1.0 is the uncompressed model."""
    return staged_layers(geometry, {0: outer_tokens(geometry, retain_ratio)})


def inner_layers(geometry: Geometry, retain_ratio: float, merge_layer: int, merge_ratio: float = 0.5) -> list[int]:
    """Tokens of every layer for both stages of HoliTom: ``merge_ratio`` of them are gone from ``merge_layer`` on."""
    tokens = outer_tokens(geometry, retain_ratio)
    return staged_layers(geometry, {0: tokens, merge_layer: math.trunc(tokens * (1 - merge_ratio))})


def fastv_layers(geometry: Geometry, prune_layer: int = 2, keep_ratio: float = 0.2) -> list[int]:
    """Tokens of every layer for FastV: all before ``prune_layer``, ``keep_ratio`` of them from there on."""
    tokens = geometry.visual_tokens
    return staged_layers(geometry, {0: tokens, prune_layer: math.trunc(tokens * keep_ratio)})


def pdrop_layers(
    geometry: Geometry, drop_layers: Sequence[int] = (2, 7, 14), keep_ratios: Sequence[float] = (0.5, 0.25, 0.125)
) -> list[int]:
    """Tokens of every layer for PyramidDrop: ``keep_ratios`` of the original tokens from each of ``drop_layers`` on."""
    tokens = geometry.visual_tokens
    drops = {layer: math.trunc(tokens * ratio) for layer, ratio in zip(drop_layers, keep_ratios, strict=True)}
    return staged_layers(geometry, {0: tokens, **drops})


def _entry(config: Any, key: str) -> Any:
    return config.get(key) if isinstance(config, Mapping) else getattr(config, key, None)
