"""Visual tokens as the runtime makes them: tower at rest, projector, 2 x 2 pooling, kept tokens."""

import torch
from torch import Tensor

from eval.synthetic.training.streams import Batch
from eval.synthetic.training.vision import normalized, tower_pass
from llava.model.language_model.llava_qwen import LlavaQwenForCausalLM
from llava.model.pooling import pool_frames

_FRAMES_AT_ONCE = 32


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
    pooling = (model.config.mm_spatial_pool_stride, model.config.mm_spatial_pool_mode)
    with torch.autocast(pixels.device.type, torch.bfloat16):
        for part in pixels.split(_FRAMES_AT_ONCE):
            features, attention = tower_pass(model, normalized(part))
            tokens.append(pool_frames(features, *pooling))
            received.append(pool_frames(attention[..., None], *pooling)[..., 0])
    return torch.cat(tokens), torch.cat(received)


def kept_features(model: LlavaQwenForCausalLM, batch: Batch) -> Tensor:
    """Features of a batch's kept tokens, ``(videos, kept, 128)``: its exact codes, or encoded pixels."""
    if batch.features is not None:
        return batch.features
    assert batch.pixels is not None
    tokens, _ = encode(model, batch.pixels.flatten(0, 1))
    whole = tokens.unflatten(0, batch.pixels.shape[:2]).flatten(1, 2)
    return whole.gather(1, batch.kept[..., None].expand(-1, -1, whole.shape[2]))
