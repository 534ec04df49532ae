"""An oracle of the counted peak: how many bytes a prefill needs besides the weights, estimated from sizes alone.

Everything that is alive counts: pixel values, features, the key-value cache and the temporaries of the layer that
runs. Attention is fused, so no attention map is in memory. The estimate takes the largest of three moments; in brackets
is what is alive beside them:

* tower: inside the feed-forward part of a layer, 4 states and 2 wide activations per patch of the frames that are
  encoded at one time [pixels, and from the second pass on the pooled features of all frames];
* projector: the tower's features and the last two activations per patch of the same frames [the same];
* language model: for every layer, 3 states and 3 wide activations (gate, up and their product) per token of that layer
  [pixels, embedded prompt, angles, keys and values of this layer and those before].

What a method adds is left out: its maps and copies are of a frame or of few tokens. The run without values
(:mod:`eval.efficiency.flops.counted`) has them, and adds up what is alive after every operator.
"""

from __future__ import annotations

from eval.efficiency.flops.plans import Plan
from eval.efficiency.flops.sizes import ModelSizes
from llava.model.vision_tower import FRAMES_PER_PASS


def pixel_bytes(sizes: ModelSizes, element: int = 2) -> int:
    """The pixel values of a video."""
    return sizes.frames * 3 * sizes.side**2 * element


def encoding_peak_bytes(sizes: ModelSizes, element: int = 2) -> int:
    """Most bytes alive while tower and projector run, a few frames at a time."""
    tower = 4 * sizes.tower_dim + 2 * sizes.tower_inner
    widest = sizes.patches * max(tower, sizes.tower_dim + 2 * sizes.dim)
    first, rest = min(sizes.frames, FRAMES_PER_PASS), sizes.frames - FRAMES_PER_PASS
    peak = first * widest
    if rest > 0:
        pooled = sizes.frames * sizes.tokens_per_frame * sizes.dim
        peak = max(peak, pooled + min(rest, FRAMES_PER_PASS) * widest)
    return pixel_bytes(sizes, element) + peak * element


def prefill_peak_bytes(plan: Plan, element: int = 2) -> int:
    """Most bytes alive while the language model reads the prompt."""
    sizes, lengths = plan.sizes, plan.lengths
    held = pixel_bytes(sizes, element) + lengths[0] * (sizes.dim + 2 * sizes.head_dim) * element
    peak = cached = 0
    for seq in lengths:
        cached += 2 * seq * sizes.key_width * element
        peak = max(peak, cached + seq * (3 * sizes.dim + 3 * sizes.inner) * element)
    return held + peak


def peak_activation_bytes(plan: Plan, element: int = 2) -> int:
    """Most bytes alive at one time in a prefill, the key-value cache included and the weights not.

    Args:
        plan: checkpoint and configuration.
        element: bytes of a number, 2 for half precision.
    """
    return max(encoding_peak_bytes(plan.sizes, element), prefill_peak_bytes(plan, element))
