"""Visual tokens as the runtime makes them: tower at rest, projector, 2 x 2 pooling, kept tokens."""

import torch
import torch.nn.functional as F
from torch import Tensor

from eval.synthetic.training.codes import GRID, POOLED
from eval.synthetic.training.streams import Batch
from eval.synthetic.training.vision import normalized, tower_pass
from llava.model.language_model.llava_qwen import LlavaQwenForCausalLM

_FRAMES_AT_ONCE = 32


def pooled(grid: Tensor) -> Tensor:
    """``(frames, 256, dim)`` to ``(frames, 64, dim)``, bilinear as the runtime does it."""
    square = grid.transpose(1, 2).unflatten(2, (GRID, GRID))
    return F.interpolate(square, size=(POOLED, POOLED), mode="bilinear").flatten(2).transpose(1, 2)


@torch.no_grad()
def encode(model: LlavaQwenForCausalLM, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Pooled tokens and pooled received attention of frames.

    Args:
        model: with its tower.
        pixels: ``(frames, 128, 128, 3)`` uint8.

    Returns:
        ``(frames, 64, 128)`` and ``(frames, 64)``.
    """
    tokens, received = [], []
    with torch.autocast(pixels.device.type, torch.bfloat16):
        for part in pixels.split(_FRAMES_AT_ONCE):
            features, attention = tower_pass(model, normalized(part))
            tokens.append(pooled(features))
            received.append(pooled(attention[..., None])[..., 0])
    return torch.cat(tokens), torch.cat(received)


def kept_features(model: LlavaQwenForCausalLM, batch: Batch) -> Tensor:
    """Features of a batch's kept tokens, ``(videos, kept, 128)``: its exact codes, or encoded pixels."""
    if batch.features is not None:
        return batch.features
    assert batch.pixels is not None
    tokens, _ = encode(model, batch.pixels.flatten(0, 1))
    whole = tokens.unflatten(0, batch.pixels.shape[:2]).flatten(1, 2)
    return whole.gather(1, batch.kept[..., None].expand(-1, -1, whole.shape[2]))
