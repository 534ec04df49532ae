"""Loss of the vision tower and projector: every patch towards its code, attention towards objects.

The tower's last layer attends where objects are, because a term asks for it: the share of attention that patches
receive should lie on objects. That gives the tiny tower what a large one has by nature.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eval.synthetic.training.codes import directions
from llava.model.language_model.llava_qwen import LlavaQwenForCausalLM

_TEMPERATURE = 0.07
_ON_OBJECTS = 0.85  # share of received attention wanted on objects, if there are any
_OBJECT_WEIGHT = 5.0


@dataclass
class VisionBatch:
    """Frames with labels for every patch.

    Attributes:
        pixels: ``(frames, 128, 128, 3)`` uint8.
        codes: wanted projector outputs, ``(frames, 256, 128)``.
        objects: share of each patch that shows objects, ``(frames, 256)``.
        color, shape, scene: index of what most of a patch shows, or -100, ``(frames, 256)``.
    """

    pixels: Tensor
    codes: Tensor
    objects: Tensor
    color: Tensor
    shape: Tensor
    scene: Tensor

    def to(self, device: torch.device) -> "VisionBatch":
        """The batch on a device."""
        return VisionBatch(*(value.to(device) for value in vars(self).values()))


def normalized(pixels: Tensor) -> Tensor:
    """``(frames, height, width, 3)`` to ``(frames, 3, height, width)`` in [-1, 1], as the image processor."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def _attention(layer: Any, states: Tensor) -> tuple[Tensor, Tensor]:
    """Output of a SigLIP attention, and its weights ``(frames, heads, patches, patches)``."""
    size = layer.head_dim
    query, key, value = (
        projection(states).unflatten(-1, (-1, size)).transpose(1, 2)
        for projection in (layer.q_proj, layer.k_proj, layer.v_proj)
    )
    weights = (query * size**-0.5 @ key.transpose(-1, -2)).softmax(-1)
    return layer.out_proj((weights.to(value.dtype) @ value).transpose(1, 2).flatten(2)), weights


def tower_pass(model: LlavaQwenForCausalLM, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Projector outputs of normalized frames and attention received in the last layer.

    Args:
        model: its tower and projector are used; the layer that LLaVA drops is never run.
        pixels: ``(frames, 3, 128, 128)``.

    Returns:
        ``(frames, patches, 128)`` and ``(frames, patches)``, the latter summing to 1.
    """
    tower = model.get_vision_tower().vision_tower
    states = tower.embeddings(pixels).float()
    weights = None
    for layer in tower.encoder.layers:
        mixed, weights = _attention(layer.self_attn, _layer_norm(states, layer.layer_norm1))
        states = states + mixed.float()
        states = states + layer.mlp(_layer_norm(states, layer.layer_norm2)).float()
    assert weights is not None
    return model.get_model().mm_projector(states).float(), weights.float().mean(dim=(1, 2))


def _layer_norm(states: Tensor, module: nn.LayerNorm) -> Tensor:
    return F.layer_norm(states, module.normalized_shape, module.weight, module.bias, module.eps)


def _classes(features: Tensor, kind: str, labels: Tensor, parts: dict[str, float]) -> Tensor:
    """Cross entropy of naming what a patch shows from its direction alone."""
    chosen = labels >= 0
    if not chosen.any():
        return features.new_zeros(())
    logits = features[chosen] @ directions()[kind].to(features.device).T / _TEMPERATURE
    parts[kind] = float((logits.argmax(-1) == labels[chosen]).float().mean())
    return F.cross_entropy(logits, labels[chosen])


def attention_loss(received: Tensor, objects: Tensor) -> Tensor:
    """Cross entropy of the received attention to an even share on object patches; even everywhere without objects."""
    area = objects.sum(dim=1, keepdim=True)
    even = torch.full_like(objects, 1 / objects.shape[1])
    wanted = torch.where(area > 0, _ON_OBJECTS * objects / area.clamp(min=1e-6) + (1 - _ON_OBJECTS) * even, even)
    return F.kl_div(received.clamp(min=1e-8).log(), wanted, reduction="batchmean")


def vision_loss(model: LlavaQwenForCausalLM, batch: VisionBatch) -> tuple[Tensor, dict[str, float]]:
    """Loss of a batch and numbers for the log."""
    with torch.autocast(batch.pixels.device.type, torch.bfloat16):
        features, received = tower_pass(model, normalized(batch.pixels))
    parts: dict[str, float] = {}
    weight = 1 + (_OBJECT_WEIGHT - 1) * batch.objects
    distance = ((features - batch.codes).pow(2).sum(-1) * weight).sum() / weight.sum()
    attention = attention_loss(received, batch.objects)
    named = sum(
        _classes(features, kind, labels, parts)
        for kind, labels in (("color", batch.color), ("shape", batch.shape), ("scene", batch.scene))
    )
    parts |= {"distance": float(distance.detach()), "attention": float(attention.detach())}
    return distance * 2 + named + 0.3 * attention, parts
