"""Scores over all heads where tensor parallelism gives every process a part of the heads.

Each process computes the scores of its own heads. Left like that the processes would keep different tokens, without an
error: hidden states of different tokens would be added up from the next layer on.
"""

from typing import Any, Literal

import torch.distributed
from jaxtyping import Float
from torch import Tensor


def over_all_heads(
    attention: Any, scores: Float[Tensor, "batch seq"], combine: Literal["mean", "max"]
) -> Float[Tensor, "batch seq"]:
    """Scores of this process's heads combined with those of the others; the same in every process, bit for bit.

    Without tensor parallelism they are returned as they are.

    Args:
        attention: attention module whose ``q_proj`` gave the queries; transformers shards it by heads.
        scores: fp32 mean or largest value over the heads at hand.
        combine: how the heads are combined; every process has equally many.
    """
    mesh = getattr(getattr(attention.q_proj, "weight", None), "device_mesh", None)  # adapters may have no weight
    if mesh is None or "tp" not in (mesh.mesh_dim_names or ()):
        return scores
    group = mesh.get_group("tp")
    operation = torch.distributed.ReduceOp.MAX if combine == "max" else torch.distributed.ReduceOp.SUM
    combined = scores.contiguous().clone()
    torch.distributed.all_reduce(combined, operation, group)
    return combined if combine == "max" else combined / torch.distributed.get_world_size(group)
