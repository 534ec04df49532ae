"""What a checkpoint folder stores, told from its file headers before any weight is read."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from llava.errors import CheckpointError, InputError, shown
from llava.model.checkpoint import rename_key
from llava.model.config_checks import read_json
from llava.model.vision_tower import full_tower_layers, tower_config

Shapes = dict[str, tuple[int, ...]]
# A tensor name that only one published layout has; the names of decoders differ between releases of transformers.
_MARKS = {
    "lmms-lab": r"^model\.mm_projector\.",
    "hugging-face": r"^(?:model\.)?multi_modal_projector\.linear_1\.",
}
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
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
    """Name and shape of every tensor in a local folder's safetensors files; None for what is no folder (a hub id).

    Raises:
        CheckpointError: if there are no such files, the index is damaged or names files elsewhere, a file that it names
            is absent, or a file is cut or damaged or holds tensors of another type than floating point.
    """
    root = Path(folder)
    if not root.is_dir():
        return None
    if (root / "adapter_config.json").is_file():
        raise CheckpointError(
            f"{str(folder)!r} holds an adapter, whose weights lie elsewhere too: merge it, save the model"
        )
    single, index = root / SAFE_WEIGHTS_NAME, root / SAFE_WEIGHTS_INDEX_NAME
    if single.is_file():
        return _shapes_in(single)
    if not index.is_file():
        others = sorted(file.name for file in (*root.glob("*.bin"), *root.glob("*.pt"), *root.glob("*.pth")))
        found = f"it holds {_listed(others, 3)}, which may run code when read" if others else "there is none"
        raise CheckpointError(
            f"cannot load the weights of {str(folder)!r}: they must be {SAFE_WEIGHTS_NAME} or several files with "
            f"{SAFE_WEIGHTS_INDEX_NAME}, {found}; download or convert them"
        )
    named = _weight_map(index)
    files = sorted(set(named.values()))
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


def _weight_map(index: Path) -> dict[str, str]:
    """File of every tensor by an index.

    Files must lie beside the index: what identifies a checkpoint is the content of its folder.

    Raises:
        CheckpointError: if it is damaged, or names a file elsewhere.
    """
    try:
        found = read_json(index)
    except CheckpointError as error:
        raise CheckpointError(f"{index} is no index of safetensors files: {error}") from None
    named = found.get("weight_map")
    if (
        not isinstance(named, dict)
        or not named
        or not all(isinstance(file, str) for file in named.values())
        or not isinstance(found.get("metadata"), dict)
    ):
        raise CheckpointError(
            f"{index} is no index of safetensors files (weight_map is {shown(named)}): it must have metadata, and a "
            "file for every tensor; download it again"
        )
    strange = sorted({file for file in named.values() if not re.fullmatch(r"[\w][-\w.]*\.safetensors", file)})
    if strange:
        raise CheckpointError(
            f"{index} names {shown(strange[0])}: it must name *.safetensors files of its own folder; download it again"
        )
    return named


def _shapes_in(file: Path) -> Shapes:
    try:
        # as numpy: torch would map the file with room to write, which a machine of less memory than the file refuses
        with safe_open(file, framework="np") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
            shapes = {name: tuple(each.get_shape()) for name, each in slices.items()}
            wrong = {name: each.get_dtype() for name, each in slices.items() if each.get_dtype() not in _FLOATS}
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"cannot load the weights of {str(file)!r}: {reason}; download it again") from None
    if wrong:
        name = min(wrong)
        raise CheckpointError(
            f"{str(file)!r} stores {len(wrong)} tensors in types that are no weights ({name} is {wrong[name]}): they "
            f"must be one of {', '.join(sorted(_FLOATS))}; use the checkpoint in 16 or 32 bits"
        )
    return shapes


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
    model = _hollow(path, config, model_class)
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {rename_key(name): shape for name, shape in stored.items()}
    optional = {"lm_head.weight"} if getattr(config, "tie_word_embeddings", False) else set()
    different = {name: (found[name], wanted[name]) for name in wanted.keys() & found if found[name] != wanted[name]}
    extra = [name for name in found.keys() - wanted if not is_left_out(name, config)]
    report_misfit(path, wanted.keys() - found.keys() - optional, extra, different)


def _hollow(path: str, config: Any, model_class: type[nn.Module]) -> nn.Module:
    """The model without weights, to compare with.

    Raises:
        CheckpointError: if the configuration describes none.
    """
    try:
        with torch.device("meta"):
            model = model_class(config)
        if getattr(config, "tie_word_embeddings", False):
            model.tie_weights()  # type: ignore[operator]
    except InputError:
        raise
    except Exception as error:  # whatever a library makes of values it does not expect
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise CheckpointError(f"config.json of {path!r} describes no model that can be built ({reason})") from error
    return model


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
    names = [name if name.isprintable() and len(name) <= 200 else shown(name) for name in sorted(names)]
    rest = len(names) - most
    return ", ".join(names[:most]) + (f", and {rest} more" if rest > 0 else "")
