"""The SigLIP tower of LLaVA: transformers' SigLIP without its last layer, read before the post-layernorm."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers import SiglipImageProcessorPil, SiglipVisionConfig, SiglipVisionModel

from llava.errors import CheckpointError, InputError
from llava.model.placement import compute_device

# Sizes of the towers that published checkpoints name; writing them here saves a download of the tower's config.
KNOWN_TOWERS: dict[str, dict[str, int]] = {
    "siglip-so400m-patch14-384": {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 14,
    },
}
FRAMES_PER_PASS = 16  # enough to fill a GPU; 16 frames of so400m take about 0.4 GB of activations in float32


def _tower_sizes(config: Any) -> dict[str, Any]:
    """Sizes of the whole tower."""
    name = str(getattr(config, "mm_vision_tower", None) or "").rstrip("/").split("/")[-1]
    sizes: Any = getattr(config, "vision_config", None)
    sizes = sizes.to_dict() if hasattr(sizes, "to_dict") else sizes
    sizes = sizes or KNOWN_TOWERS.get(name)
    if not sizes:
        known = ", ".join(sorted(KNOWN_TOWERS))
        raise CheckpointError(
            f"mm_vision_tower = {name!r} is not a tower this runtime knows ({known}); "
            "use a checkpoint with one of them or give its sizes as vision_config"
        )
    return sizes


def full_tower_layers(config: Any) -> int:
    """Layers of the whole tower, of which LLaVA runs the first ones (:func:`tower_config`)."""
    return int(_tower_sizes(config)["num_hidden_layers"])


def tower_config(config: Any) -> SiglipVisionConfig:
    """The tower's configuration, cut to the layers that LLaVA runs.

    Args:
        config: a LLaVA configuration with ``mm_vision_tower`` (a name) or ``vision_config`` (sizes, all layers
            counted), and ``mm_vision_select_layer`` (negative: -2 leaves out the last layer).

    Raises:
        CheckpointError: for a tower other than SigLIP, or an impossible layer.
    """
    sizes = _tower_sizes(config)
    fields = {key: value for key, value in sizes.items() if key not in ("model_type", "vision_use_head")}
    select_layer = int(getattr(config, "mm_vision_select_layer", -2))
    layers = int(fields["num_hidden_layers"]) + 1 + select_layer
    if select_layer >= 0 or layers < 1:
        raise CheckpointError(
            f"mm_vision_select_layer = {select_layer} is out of range: it must lie between "
            f"-{fields['num_hidden_layers']} and -1; published checkpoints use -2"
        )
    return SiglipVisionConfig(**{**fields, "num_hidden_layers": layers}, vision_use_head=False)


def make_image_processor(side: int) -> SiglipImageProcessorPil:
    """The tower's image processor: bicubic resize to ``side`` x ``side``, values in [-1, 1].

    Made from constants, on Pillow, so that pixel values depend neither on a download nor on torchvision.
    """
    half = [0.5, 0.5, 0.5]
    return SiglipImageProcessorPil(size={"height": side, "width": side}, image_mean=half, image_std=half)


class SiglipVisionTower(nn.Module):
    """SigLIP as LLaVA uses it.

    Attributes:
        vision_tower: transformers' ``SiglipVisionModel``; its post-layernorm is loaded but not used.
        image_processor: makes ``pixel_values`` from frames or images.
        frames_per_pass: pictures that run through the tower at one time, at least 1. It bounds the memory that encoding
            takes beside its input and output, and may be set at any time.
        gates: one identity per layer, behind it. Where a gate has a forward hook, all pictures of a call meet there,
            (images, patches, hidden), before any goes on, and as many go on as the hook returns; a gate without one is
            not called. Gates hold no weights.
    """

    is_loaded = True
    frames_per_pass: int = FRAMES_PER_PASS

    def __init__(self, config: Any) -> None:
        super().__init__()
        tower = tower_config(config)
        tower._attn_implementation = config._attn_implementation
        self.vision_tower = SiglipVisionModel(tower)
        self.image_processor = make_image_processor(tower.image_size)
        self.gates = nn.ModuleList(nn.Identity() for _ in range(tower.num_hidden_layers))

    @property
    def config(self) -> SiglipVisionConfig:
        """The tower's configuration."""
        return self.vision_tower.config

    @property
    def num_patches_per_side(self) -> int:
        """27 for 384/14."""
        return self.config.image_size // self.config.patch_size

    @property
    def last_attention(self) -> nn.Module:
        """Attention module of the last layer that runs: the source of received attention."""
        return self.vision_tower.encoder.layers[-1].self_attn

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the weights."""
        return self.vision_tower.embeddings.patch_embedding.weight.dtype

    @property
    def device(self) -> torch.device:
        """Device of the first layer."""
        return compute_device(self.vision_tower.embeddings.patch_embedding)

    @property
    def meets(self) -> bool:
        """Whether all pictures of a call meet at some gate, so that a video must come in one call."""
        return any(gate._forward_hooks for gate in self.gates)

    def forward(self, pixel_values: Tensor, prepare: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Features of the last layer that runs, before the post-layernorm.

        Args:
            pixel_values: (images, 3, side, side), any floating-point type and device.
            prepare: makes pixel values of one pass, where ``pixel_values`` are something else.

        Returns:
            (images, patches, hidden) in the tower's type; as many images as the hooks on its gates leave.
        """
        stops = [layer + 1 for layer, gate in enumerate(self.gates) if gate._forward_hooks]
        first = stops[0] if stops else len(self.gates)

        def begin(part: Tensor) -> Tensor:
            return self._run(self._embed(part if prepare is None else prepare(part)), 0, first)

        hidden = in_passes(begin, pixel_values, self.frames_per_pass)
        for start, stop in pairwise([*stops, len(self.gates)]):
            hidden = self.gates[start - 1](hidden)
            if start < stop:
                hidden = in_passes(partial(self._run, start=start, stop=stop), hidden, self.frames_per_pass)
        return hidden

    def _embed(self, pixels: Tensor) -> Tensor:
        """What the first layer reads of one pass."""
        return self.vision_tower.embeddings(pixels.to(device=self.device, dtype=self.dtype))

    def _run(self, hidden: Tensor, start: int, stop: int) -> Tensor:
        """Layers ``start`` to ``stop`` - 1 on one pass; all of them as the library runs them."""
        encoder = self.vision_tower.encoder
        if stop - start == len(self.gates):
            return encoder(inputs_embeds=hidden).last_hidden_state
        for layer in encoder.layers[start:stop]:
            hidden = layer(hidden, None)
        return hidden


def in_passes(work: Callable[[Tensor], Tensor], inputs: Tensor, size: int) -> Tensor:
    """``work`` on ``size`` entries of the first axis at a time, with one result of all in memory and none beside it.

    Args:
        work: gives one output per entry, whatever the others are.
        inputs: (entries, ...), at least one.
        size: entries per call, at least 1.

    Returns:
        (entries, ...).

    Raises:
        InputError: if ``size`` is no positive integer.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise InputError(f"frames_per_pass = {size!r} is out of range: it must be an integer of at least 1; use 16")
    if len(inputs) <= size:
        return work(inputs)
    results: Tensor | None = None
    for start in range(0, len(inputs), size):
        part = work(inputs[start : start + size])
        if results is None:
            results = part.new_empty(len(inputs), *part.shape[1:])
        results[start : start + size] = part
        del part  # else it lives on beside the next one
    assert results is not None
    return results
