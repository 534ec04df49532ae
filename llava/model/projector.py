"""From the tower's width to the LLM's: a multilayer perceptron with GELU."""

import re
from typing import Any

from torch import nn

from llava.errors import CheckpointError


def build_projector(config: Any) -> nn.Sequential:
    """The projector that ``config.mm_projector_type`` names: ``linear`` or ``mlpNx_gelu``.

    Module names are 0, 2, ... as in published checkpoints.

    Raises:
        CheckpointError: for another type.
    """
    kind = getattr(config, "mm_projector_type", "linear")
    match = re.fullmatch(r"mlp(\d+)x_gelu", kind)
    if kind != "linear" and not match:
        raise CheckpointError(
            f"mm_projector_type = {kind!r} is not supported: it must be 'linear' or 'mlp2x_gelu'; "
            "use a LLaVA-OneVision or LLaVA-Video checkpoint"
        )
    depth = int(match.group(1)) if match else 1
    layers: list[nn.Module] = [nn.Linear(config.mm_hidden_size, config.hidden_size)]
    for _ in range(depth - 1):
        layers += [nn.GELU(), nn.Linear(config.hidden_size, config.hidden_size)]
    return nn.Sequential(*layers)
