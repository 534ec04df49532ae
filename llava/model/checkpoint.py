"""Published checkpoint layouts: which one a folder holds, its configuration, and where its tensors go."""

import re
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from llava.errors import CheckpointError, shown
from llava.model.config_checks import check_config, read_json
from llava.model.language_model.llava_qwen import LlavaQwenConfig

# Regular expressions over checkpoint names, tried in order, the first that matches wins; one table for both layouts,
# since their names do not overlap. The first is the only one that saving reverses, see llava.model.builder.
KEY_MAPPING: dict[str, str] = {
    # lmms-lab: decoder names are Qwen2's own, the tower is nested
    r"^model\.vision_tower\.vision_tower\.vision_model\.": "model.vision_tower.vision_tower.",
    # Hugging Face (transformers 5 and, without the leading "model.", older files)
    r"^(?:model\.)?vision_tower\.vision_model\.": "model.vision_tower.vision_tower.",
    r"^(?:model\.)?vision_tower\.(?=embeddings|encoder|post_layernorm|head)": "model.vision_tower.vision_tower.",
    r"^(?:model\.)?multi_modal_projector\.linear_1\.": "model.mm_projector.0.",
    r"^(?:model\.)?multi_modal_projector\.linear_2\.": "model.mm_projector.2.",
    r"^language_model\.lm_head\.": "lm_head.",
    r"^language_model\.model\.": "model.",
    r"^model\.language_model\.": "model.",
    r"^image_newline$": "model.image_newline",
}


_REQUIRED = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
    "mm_hidden_size",
    "mm_projector_type",
)


def rename_key(name: str) -> str:
    """Our name of one checkpoint tensor."""
    for pattern, replacement in KEY_MAPPING.items():
        renamed, hits = re.subn(pattern, replacement, name)
        if hits:
            return renamed
    return name


def _plain(value: Any) -> dict[str, Any]:
    found = value.to_dict() if hasattr(value, "to_dict") else value
    if not isinstance(found, dict):
        raise CheckpointError(
            f"text_config or vision_config is {shown(found)}: it must be an object; download it again"
        )
    return found


def _from_hugging_face(raw: dict[str, Any]) -> dict[str, Any]:
    """Flat LLaVA keys from the nested configuration of transformers' LlavaOnevision."""
    text, vision = _plain(raw.get("text_config")), _plain(raw.get("vision_config"))
    if (
        text.get("model_type", "qwen2") != "qwen2"
        or vision.get("model_type", "siglip_vision_model") != "siglip_vision_model"
    ):
        raise CheckpointError(
            f"the checkpoint joins {vision.get('model_type')!r} and {text.get('model_type')!r}: it must be SigLIP and "
            "Qwen2; use llava-hf/llava-onevision-qwen2-*"
        )
    layer, strategy = raw.get("vision_feature_layer", -1), raw.get("vision_feature_select_strategy", "full")
    if not isinstance(layer, int) or strategy != "full":
        raise CheckpointError(
            f"vision_feature_layer = {layer!r} with strategy {strategy!r} is not supported: "
            "it must be one layer and 'full'"
        )
    drop = ("model_type", "architectures", "_name_or_path", "transformers_version", "torch_dtype", "dtype")
    return {
        **{key: value for key, value in text.items() if key not in drop},
        # older files say it of the decoder alone and leave the default beside it
        "tie_word_embeddings": bool(raw.get("tie_word_embeddings")) or bool(text.get("tie_word_embeddings")),
        "vision_config": {key: value for key, value in vision.items() if key not in drop},
        "mm_hidden_size": vision.get("hidden_size"),
        "mm_vision_tower": "siglip",
        "mm_vision_select_layer": layer,
        "mm_projector_type": "mlp2x_gelu",
        "mm_patch_merge_type": "spatial_unpad",
        "mm_newline_position": "one_token",
        "mm_spatial_pool_mode": "bilinear",
        "mm_spatial_pool_stride": 2,
        "image_aspect_ratio": raw.get("vision_aspect_ratio", "anyres_max_9"),
        "image_grid_pinpoints": raw.get("image_grid_pinpoints"),
        "dtype": raw.get("dtype", raw.get("torch_dtype")),
    }


def _read(path: str) -> dict[str, Any]:
    """``config.json`` of a folder, or of a hub id through transformers.

    Raises:
        CheckpointError: if there is none that can be read.
    """
    if Path(path).is_dir():
        if not (Path(path) / "config.json").is_file():
            raise CheckpointError(f"no config.json in {path!r}; pass a folder that holds a LLaVA-OneVision checkpoint")
        raw = read_json(Path(path) / "config.json")
    else:
        try:
            raw, _ = PreTrainedConfig.get_config_dict(path)
        except (OSError, ValueError, RecursionError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise CheckpointError(
                f"no checkpoint configuration in {path!r} ({reason}); pass a folder with config.json or a hub id"
            ) from error
    if not raw:
        raise CheckpointError(f"no config.json in {path!r}; pass a folder that holds a LLaVA-OneVision checkpoint")
    return raw


def read_config(path: str, overwrite: dict[str, Any] | None = None) -> LlavaQwenConfig:
    """The configuration of a checkpoint in either published layout.

    Args:
        path: local folder or hub id.
        overwrite: values that replace those of the file.

    Raises:
        CheckpointError: if there is no readable configuration, or it is of another architecture.
    """
    raw = _read(path)
    kind, architectures = raw.get("model_type"), raw.get("architectures") or []
    if not isinstance(architectures, list) or not all(isinstance(name, str) for name in architectures):
        raise CheckpointError(f"config.json of {path!r}: architectures = {shown(architectures)} is no list of names")
    if kind == "llava_onevision":
        raw = _from_hugging_face(raw)
    elif (
        kind not in ("llava", "llava_qwen")
        or "mm_vision_tower" not in raw
        or any("Qwen" not in a for a in architectures)
    ):
        raise CheckpointError(
            f"{path!r} has model_type {shown(kind)} and architectures {shown(architectures)}: it must be a "
            "LLaVA-OneVision or LLaVA-Video checkpoint on Qwen2, from lmms-lab or llava-hf"
        )
    check_config({**raw, **(overwrite or {})}, f"config.json of {path!r}")
    resampler = raw.get("mm_resampler_type")
    if resampler:
        raise CheckpointError(f"mm_resampler_type = {resampler!r} is not supported: it must be null")
    # llava_vid of lmms-eval reads the first; the configurations of Hugging Face lack both
    flags = {"mm_use_im_start_end": False, "mm_use_im_patch_token": False}
    merged = {**flags, **raw, **(overwrite or {})}
    if merged["mm_use_im_start_end"]:
        raise CheckpointError(
            "mm_use_im_start_end = true is not supported: it must be false, as in published checkpoints"
        )
    merged.pop("model_type", None)
    absent = [key for key in _REQUIRED if merged.get(key) is None]
    if absent:
        raise CheckpointError(f"config.json of {path!r} lacks {', '.join(absent)}: download it again")
    try:
        return LlavaQwenConfig(**merged)
    except Exception as error:  # whatever a library makes of values it does not expect
        reason = " ".join(f"{error or type(error).__name__}".split())[:400]
        raise CheckpointError(f"config.json of {path!r} has a wrong value: {reason}") from error
