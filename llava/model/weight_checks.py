"""Weights that no answer can come from: not finite, or zero throughout where a trained tensor cannot be."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers.utils import SAFE_WEIGHTS_NAME

from llava.errors import CheckpointError
from llava.model.checkpoint import rename_key

_LISTED = 4  # tensor names that a message gives before it only counts


def check_weights(model: nn.Module, path: str) -> None:
    """Look once at every weight of a loaded model, where it lies: one pass without a copy, one transfer per device.

    Weights that were offloaded to the disk are read from the checkpoint's files, one tensor at a time. Of a sharded
    weight each process looks at its share. Types are those after loading: what float16 cannot hold is found too.

    Args:
        model: as transformers loaded it.
        path: the checkpoint, for messages and for offloaded weights.

    Raises:
        CheckpointError: naming the tensors that are not finite, or zero throughout.
    """
    own = list(model.named_parameters())
    placed = ((name, _share(parameter)) for name, parameter in own if not parameter.is_meta)
    away = {name for name, parameter in own if parameter.is_meta}
    check_values([*summaries(placed), *summaries(_offloaded(path, away))], path)


def summaries(tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor | None]]:
    """Name and (2,) float32 smallest and largest value of every tensor, on its device; NaN if any is; None if empty."""
    for name, tensor in tensors:
        ends = torch.stack(torch.aminmax(tensor.detach())) if tensor.numel() else None
        yield name, None if ends is None else ends.float()


def check_values(found: Iterable[tuple[str, Tensor | None]], path: str) -> None:
    """Judge the :func:`summaries` of a checkpoint's tensors.

    Raises:
        CheckpointError: see :func:`check_weights`.
    """
    ends = [(name, pair) for name, pair in found if pair is not None]
    values: dict[str, list[float]] = {}
    for device in {pair.device for _, pair in ends}:
        here = [(name, pair) for name, pair in ends if pair.device == device]
        fetched = torch.stack([pair for _, pair in here]).tolist()  # the one transfer of this device
        values |= {name: pair for (name, _), pair in zip(here, fetched, strict=True)}
    limit = torch.finfo(torch.float32).max
    broken = [name for name, (low, high) in values.items() if not -limit <= low <= high <= limit]
    empty = [name for name, pair in values.items() if pair == [0.0, 0.0] and _must_differ_from_zero(name)]
    for names, what in ((broken, "with NaN or infinite values"), (empty, "of zeros alone")):
        if names:
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            raise CheckpointError(
                f"{path!r} has {len(names)} tensors {what} ({', '.join(sorted(names)[:_LISTED])}{more}): no answer "
                "means anything; download it again, or load it in bfloat16 or float32"
            )


def _must_differ_from_zero(name: str) -> bool:
    """Biases may be zero; a matrix, a table of embeddings or a norm's scale of zeros lets nothing through."""
    return name.endswith("weight")


def _share(parameter: Any) -> Tensor:
    """This process's part of a weight that DeepSpeed or tensor parallelism shards; else the weight."""
    shard = getattr(parameter, "ds_tensor", None)
    if shard is not None:
        return shard.data
    return parameter.to_local() if hasattr(parameter, "to_local") else parameter


def _offloaded(path: str, names: set[str]) -> Iterator[tuple[str, Tensor]]:
    """Tensors by our names, from the files of a local checkpoint."""
    if not names:
        return
    root = Path(path)
    files = [root / SAFE_WEIGHTS_NAME] if (root / SAFE_WEIGHTS_NAME).is_file() else sorted(root.glob("*.safetensors"))
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            for stored in tensors.keys():  # noqa: SIM118
                if rename_key(stored) in names:
                    yield rename_key(stored), tensors.get_tensor(stored)
