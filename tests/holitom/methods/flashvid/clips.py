"""Small clips whose tokens partly stand still, so that links, trees and raised thresholds occur."""

import torch
from torch import Tensor

from holitom.methods.flashvid.compression import FlashVidRules

RULES = FlashVidRules(
    segment=True,
    min_segments=8,
    segment_threshold=0.9,
    complementary=True,
    link_threshold=0.8,
    neighbors=7,
    tree_mean=False,
    single_frame_all=True,
)


def clip(frames: int, tokens: int, dim: int = 8, cuts: tuple[int, ...] = (), change: float = 0.3, seed: int = 0):
    """Features (frames, tokens, dim) that change at the cuts and drift between them, and random attention."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    base = noise(len(cuts) + 1, tokens, dim) + 2 * noise(len(cuts) + 1, 1, dim)
    scene = torch.tensor([sum(frame >= cut for cut in cuts) for frame in range(frames)])
    features = base[scene] + change * noise(frames, tokens, dim)
    return features, torch.rand(frames, tokens, generator=generator)
