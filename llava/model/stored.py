"""What a checkpoint folder stores, told from its file headers before any weight is read."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from llava.errors import CheckpointError
from llava.model.checkpoint import rename_key
from llava.model.vision_tower import full_tower_layers, tower_config

Shapes = dict[str, tuple[int, ...]]
# A tensor name that only one published layout has; the names of decoders differ between releases of transformers.
_MARKS = {
    "lmms-lab": r"^model\.mm_projector\.",
    "hugging-face": r"^(?:model\.)?multi_modal_projector\.linear_1\.",
}
_MOST_NAMES = 12  # tensor names an error message lists before it only counts


def recognise_layout(names: Iterable[str]) -> str:
    """Whose layout a list of tensor names is: ``lmms-lab`` or ``hugging-face``.

    Raises:
        CheckpointError: if it is neither.
    """
    names = sorted(names)
    found = [layout for layout, mark in _MARKS.items() if any(re.search(mark, name) for name in names)]
    if len(found) == 1:
        return found[0]
    raise CheckpointError(
        f"the {len(names)} tensors ({_listed(names, 4)}) are of no published layout: they must hold "
        "model.mm_projector.* (lmms-lab) or multi_modal_projector.* (Hugging Face); use another checkpoint"
    )


def stored_shapes(folder: str | Path) -> Shapes | None:
    """Name and shape of every tensor in a local folder's safetensors files; None if it has none (a hub id, say).

    Raises:
        CheckpointError: if the index is damaged, a file that it names is absent, or a file is cut or damaged.
    """
    root = Path(folder)
    single, index = root / SAFE_WEIGHTS_NAME, root / SAFE_WEIGHTS_INDEX_NAME
    if single.is_file():
        return _shapes_in(single)
    if not index.is_file():
        return None
    try:
        named = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = sorted(set(named.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is no index of safetensors files ({error!r}): download it again") from None
    absent = [file for file in files if not (root / file).is_file()]
    if absent:
        raise CheckpointError(
            f"{str(folder)!r} lacks {len(absent)} of the {len(files)} files of its index: {_listed(absent)}; "
            "download them"
        )
    stored: Shapes = {}
    for file in files:
        stored |= _shapes_in(root / file)
    lost = sorted(set(named) - set(stored))
    if lost:
        raise CheckpointError(
            f"{index} names {len(lost)} tensors that no file holds: {_listed(lost)}; download it again"
        )
    return stored


def _shapes_in(file: Path) -> Shapes:
    try:
        # as numpy: torch would map the file with room to write, which a machine of less memory than the file refuses
        with safe_open(file, framework="np") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"cannot load the weights of {str(file)!r}: {reason}; download it again") from None


def is_left_out(name: str, config: Any) -> bool:
    """Whether LLaVA does not run the part of the tower a tensor (by our name) belongs to: the head, the cut layers.

    Published checkpoints leave these out; files made from a whole tower hold them.
    """
    if name.startswith("model.vision_tower.vision_tower.head."):
        return True
    layer = re.match(r"model\.vision_tower\.vision_tower\.encoder\.layers\.(\d+)\.", name)
    return layer is not None and tower_config(config).num_hidden_layers <= int(layer[1]) < full_tower_layers(config)


def check_stored(path: str, config: Any, model_class: type[nn.Module]) -> None:
    """Compare the names and shapes of a local checkpoint with the model, before any weight is read.

    Does nothing where there are no safetensors files to look into; transformers finds out what is there.

    Args:
        path: the folder.
        config: its configuration.
        model_class: the model's class; it is built on the meta device, which takes no memory.

    Raises:
        CheckpointError: if the layout is unknown, files are absent, or names and shapes differ.
    """
    stored = stored_shapes(path)
    if stored is None:
        return
    recognise_layout(stored)
    with torch.device("meta"):
        model = model_class(config)
    if getattr(config, "tie_word_embeddings", False):
        model.tie_weights()  # type: ignore[operator]
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {rename_key(name): shape for name, shape in stored.items()}
    optional = {"lm_head.weight"} if getattr(config, "tie_word_embeddings", False) else set()
    different = {name: (found[name], wanted[name]) for name in wanted.keys() & found if found[name] != wanted[name]}
    extra = [name for name in found.keys() - wanted if not is_left_out(name, config)]
    report_misfit(path, wanted.keys() - found.keys() - optional, extra, different)


def report_misfit(
    path: str, missing: Iterable[str], unexpected: Iterable[str], mismatched: Mapping[str, tuple[Any, Any]]
) -> None:
    """Raise one line that lists what does not fit, if anything does not.

    Args:
        path: the checkpoint.
        missing: tensors of the model that are not stored.
        unexpected: stored tensors the model has not.
        mismatched: stored and wanted shape by name.

    Raises:
        CheckpointError: if any of these is not empty.
    """
    sizes = [f"{name} {tuple(stored)} instead of {tuple(wanted)}" for name, (stored, wanted) in mismatched.items()]
    found = {"missing": list(missing), "unexpected": list(unexpected), "mismatched": sizes}
    problems = [f"{len(names)} tensors {what}: {_listed(names)}" for what, names in found.items() if names]
    if problems:
        raise CheckpointError(
            f"the checkpoint {path!r} does not fit the model ({'; '.join(problems)}): download it again, "
            "or check that it is a LLaVA-OneVision checkpoint"
        )


def _listed(names: Iterable[str], most: int = _MOST_NAMES) -> str:
    names = sorted(names)
    rest = len(names) - most
    return ", ".join(names[:most]) + (f", and {rest} more" if rest > 0 else "")
