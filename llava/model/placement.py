"""Where a model's weights lie and where it computes: device maps, offloading, tensor parallelism, DeepSpeed ZeRO-3.

One process with ``device_map="auto"`` spreads the layers over the GPUs it sees. Several processes that share one model
are started by ``torchrun`` (``tp_plan="auto"``) or run under :func:`zero3`.
"""

import itertools
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import align_module_device
from torch import Tensor, nn
from transformers.distributed import DistributedConfig
from transformers.integrations import HfDeepSpeedConfig, is_deepspeed_available, is_deepspeed_zero3_enabled

from llava.errors import InputError

_AUTOMATIC = ("auto", "balanced", "balanced_low_0", "sequential")
DeviceMap = str | dict[str, Any] | None


def resolve_device_map(device_map: DeviceMap) -> DeviceMap:
    """A device map that exists on this machine; without a GPU the automatic ones mean the CPU.

    Under an active ZeRO-3 configuration there is none, since DeepSpeed places the weights itself.

    Raises:
        InputError: for an unknown device, or a map of one's own under ZeRO-3.
    """
    if is_deepspeed_zero3_enabled():
        if device_map is not None and device_map not in _AUTOMATIC:
            raise InputError(f"device_map = {device_map!r} is not possible under ZeRO-3, which shards: leave it out")
        return None
    if not isinstance(device_map, str):
        return device_map
    if device_map in _AUTOMATIC:
        return device_map if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(device_map)
    except RuntimeError:
        raise InputError(f"device_map = {device_map!r} is no device: use 'auto', 'cpu' or 'cuda:0'") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device_map = {device_map!r} needs a CUDA device, and there is none: use 'cpu' or 'auto'")
    return device_map


def tensor_parallel_arguments(tp_plan: str | dict[str, str], device_map: DeviceMap, config: Any) -> dict[str, Any]:
    """Arguments of ``from_pretrained`` that shard every layer over the processes of ``torchrun``.

    Args:
        tp_plan: ``"auto"``, or rules that replace some of the model's own.
        device_map: what the caller asked for; every process takes its own device here.
        config: of the model, for its numbers of heads.

    Raises:
        InputError: outside ``torchrun``, beside a device map or ZeRO-3, or if the heads cannot be divided.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes < 2:
        raise InputError(
            f"tp_plan = {tp_plan!r} with 1 process shards nothing: start with torchrun --nproc_per_node 2 (or more), "
            "or use device_map = 'auto'"
        )
    if is_deepspeed_zero3_enabled() or (device_map is not None and device_map not in _AUTOMATIC):
        raise InputError(f"tp_plan = {tp_plan!r} cannot be joined with a device_map or ZeRO-3: choose one of them")
    for name in ("num_attention_heads", "num_key_value_heads"):
        heads = getattr(config, name)
        if heads % processes:
            raise InputError(f"{name} = {heads} cannot be divided over {processes} processes: use a divisor of {heads}")
    return {"device_map": None, "distributed_config": DistributedConfig(tp_plan=tp_plan)}


def compute_device(module: nn.Module) -> torch.device:
    """The device a module computes on, which accelerate's hook knows while offloaded weights lie on the meta device.

    Layers that torch quantised for the CPU hold their weights in packed form, as no parameter.
    """
    hook: Any = getattr(module, "_hf_hook", None)
    for each in getattr(hook, "hooks", (hook,)):
        if getattr(each, "execution_device", None) is not None:
            return torch.device(each.execution_device)
    tensors = itertools.chain(module.parameters(), module.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def whole_parameter(module: nn.Module, name: str) -> Tensor:
    """A module's own parameter, for use outside of the module's forward; a copy if it is offloaded or sharded."""
    parameter = getattr(module, name)
    if hasattr(parameter, "ds_id"):
        import deepspeed  # noqa: PLC0415

        with deepspeed.zero.GatheredParameters([parameter]):
            return parameter.detach().clone()
    if not parameter.is_meta:
        return parameter
    with align_module_device(module):
        return getattr(module, name).detach().clone()


def check_reachable(decoder: nn.Module) -> None:
    """Refuse a device map that offloads the newline vector by itself: no hook of accelerate would ever fetch it.

    Raises:
        InputError: in that case.
    """
    if whole_parameter(decoder, "image_newline").is_meta:
        raise InputError(
            "device_map offloads 'model.image_newline' by itself, and nothing fetches it: give it a device"
        )


@contextmanager
def zero3(config: Mapping[str, Any] | str | Path) -> Iterator[dict[str, Any]]:
    """A block in which ``load_pretrained_model`` shards every weight over the processes (DeepSpeed ZeRO stage 3).

    Each process is one of ``torchrun``, ``deepspeed`` or ``accelerate launch``; all must be given the same prompts,
    and ``generate`` needs ``synced_gpus=True``::

        with zero3("configs/launch/zero3.json") as settings:
            tokenizer, model, processor, _ = load_pretrained_model(path)
            engine = deepspeed.initialize(model=model, config_params=settings)[0]
            engine.module.generate(ids, images=[pixels], modalities=["video"], synced_gpus=True)

    Args:
        config: DeepSpeed's settings, or a JSON file with them.

    Raises:
        InputError: if deepspeed is not installed, the file is unreadable, or the stage is not 3.
    """
    if not is_deepspeed_available():
        raise InputError("ZeRO-3 needs deepspeed: pip install 'holitom[deepspeed]', or use device_map = 'auto'")
    settings = dict(config) if isinstance(config, Mapping) else _read_json(Path(config))
    stage = (settings.get("zero_optimization") or {}).get("stage")
    if stage != 3:
        raise InputError(f"zero_optimization.stage = {stage!r} does not shard the weights: it must be 3")
    active = HfDeepSpeedConfig(settings)  # transformers keeps a weak reference: it is active as long as this lives
    try:
        yield settings
    finally:
        del active


def _read_json(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{str(path)!r} is no readable JSON file: {reason}; see configs/launch/zero3.json") from None
    if not isinstance(settings, dict):
        raise InputError(f"{str(path)!r} holds no settings of DeepSpeed: see configs/launch/zero3.json")
    return settings
