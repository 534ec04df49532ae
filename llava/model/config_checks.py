"""What a checkpoint's ``config.json`` must say before a model is built of it: sizes, numbers and words in bounds."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llava.errors import CheckpointError, shown

_MOST_BYTES = 1 << 20
_DEEPEST = 16
# Largest sizes that a configuration may ask for: far beyond any published model, far below what a machine dies of.
_SIZES = {
    "hidden_size": 1 << 16,
    "intermediate_size": 1 << 18,
    "num_hidden_layers": 1 << 10,
    "num_attention_heads": 1 << 10,
    "num_key_value_heads": 1 << 10,
    "head_dim": 1 << 12,
    "vocab_size": 1 << 22,
    "max_position_embeddings": 1 << 30,
    "mm_hidden_size": 1 << 16,
    "mm_spatial_pool_stride": 1 << 8,
    "tokenizer_model_max_length": 1 << 62,
    "max_sequence_length": 1 << 62,
    "image_size": 1 << 12,
    "patch_size": 1 << 10,
    "num_channels": 3,
}
_POSITIVE = ("rms_norm_eps", "layer_norm_eps", "rope_theta", "initializer_range")
_WORDS = (
    "mm_vision_tower",
    "mm_projector_type",
    "mm_patch_merge_type",
    "mm_newline_position",
    "mm_spatial_pool_mode",
    "image_aspect_ratio",
    "mm_resampler_type",
)
_FLAGS = ("tie_word_embeddings", "use_cache", "attention_bias", "mm_use_im_start_end", "mm_use_im_patch_token")


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file of a checkpoint's folder.

    Raises:
        CheckpointError: if it is unreadable, too large or too deep, or holds something else or a number that is not
            finite.
    """
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise CheckpointError(f"{file} has {file.stat().st_size} bytes: it must have at most {_MOST_BYTES}")
        found = json.loads(file.read_text(encoding="utf-8"))
    except CheckpointError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{file} is no readable JSON file ({reason}): download it again") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{file} holds {shown(found)}: it must hold a JSON object; download it again")
    return found


def check_config(raw: Mapping[str, Any], where: str) -> None:
    """Refuse a flat LLaVA configuration that no model can be built of.

    Args:
        raw: the configuration, with the tower's sizes under ``vision_config`` if it gives them.
        where: the file, for messages.

    Raises:
        CheckpointError: naming the key, its value and its bound.
    """
    for key, value in _numbers(raw, where, ""):
        if (isinstance(value, int) and abs(value) > 2**63) or not math.isfinite(value):
            raise CheckpointError(f"{where}: {key} = {shown(value)} is out of range: it must be finite and fit 64 bits")
    tower = raw.get("vision_config")
    if tower is not None and not isinstance(tower, Mapping):
        raise CheckpointError(f"{where}: vision_config = {shown(tower)} has the wrong type: it must be an object")
    rope = raw.get("rope_parameters")
    for prefix, group in (("", raw), ("vision_config.", tower), ("rope_parameters.", rope)):
        if isinstance(group, Mapping):
            _check_group(group, where, prefix)
    _check_heads(raw, where, "")
    if isinstance(tower, Mapping):
        _check_tower(tower, where)


def check_generation_config(file: Path, vocabulary: int) -> None:
    """Refuse a ``generation_config.json`` that transformers would leave out without a word, or fail on later.

    Args:
        file: it; nothing is checked where there is none.
        vocabulary: entries of the model's embedding table.

    Raises:
        CheckpointError: naming the key, its value and its bound.
    """
    if not file.is_file():
        return
    found = read_json(file)
    for key, value in _numbers(found, str(file), ""):
        if isinstance(value, float) and not math.isfinite(value):
            raise CheckpointError(f"{file}: {key} = {shown(value)} is out of range: it must be finite")
    for key in ("eos_token_id", "bos_token_id", "pad_token_id"):
        ids = found.get(key)
        for each in ids if isinstance(ids, list) else [] if ids is None else [ids]:
            if not isinstance(each, int) or isinstance(each, bool) or not -1 <= each < vocabulary:
                raise CheckpointError(
                    f"{file}: {key} = {shown(ids)} is a wrong value: it must be a token of the {vocabulary}, or several"
                )
    for key in ("temperature", "top_p", "top_k", "repetition_penalty", "max_length", "max_new_tokens", "num_beams"):
        number = found.get(key)
        if number is not None and (isinstance(number, bool) or not isinstance(number, int | float) or number < 0):
            raise CheckpointError(
                f"{file}: {key} = {shown(number)} is a wrong value: it must be a number of at least 0"
            )


def _numbers(value: Any, where: str, path: str, depth: int = 0) -> Iterator[tuple[str, int | float]]:
    """Every number of a configuration with its path."""
    if depth > _DEEPEST:
        raise CheckpointError(f"{where} is nested deeper than {_DEEPEST} levels: download it again")
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value
    pairs = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in pairs:
        yield from _numbers(entry, where, f"{path}.{key}" if path else str(key), depth + 1)


def _check_group(group: Mapping[str, Any], where: str, prefix: str) -> None:
    """Sizes, words and flags of one level; absent ones and null have defaults elsewhere."""
    for key, value in group.items():
        name, wrong = f"{where}: {prefix}{key} = {shown(value)}", None
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is None:
            continue
        if key in _SIZES and not (number and isinstance(value, int) and 1 <= value <= _SIZES[key]):
            wrong = f"an integer from 1 to {_SIZES[key]}"
        elif key in _POSITIVE and not (number and value > 0):
            wrong = "a number above 0"
        elif key == "mm_vision_select_layer" and not (number and isinstance(value, int)):
            wrong = "an integer"
        elif key in _WORDS and not isinstance(value, str):
            wrong = "a word"
        elif key in _FLAGS and not isinstance(value, bool):
            wrong = "true or false"
        elif key == "hidden_act" and not (isinstance(value, str) and _is_activation(value)):
            wrong = "an activation of transformers, such as 'silu'"
        if wrong is not None:
            raise CheckpointError(f"{name} is a wrong value: it must be {wrong}; download it again")


def _is_activation(name: str) -> bool:
    from transformers.activations import ACT2FN  # noqa: PLC0415

    return name in ACT2FN


def _check_heads(group: Mapping[str, Any], where: str, prefix: str) -> None:
    width, heads, shared = (group.get(key) for key in ("hidden_size", "num_attention_heads", "num_key_value_heads"))
    if width is not None and heads is not None and group.get("head_dim") is None and width % heads:
        raise CheckpointError(f"{where}: {prefix}hidden_size = {width} cannot be divided into {heads} attention heads")
    if heads is not None and shared is not None and heads % shared:
        raise CheckpointError(f"{where}: {prefix}num_attention_heads = {heads} is no multiple of {shared} key heads")


def _check_tower(tower: Mapping[str, Any], where: str) -> None:
    needed = (
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "image_size",
        "patch_size",
    )
    absent = [key for key in needed if tower.get(key) is None] if tower else []
    if absent:
        raise CheckpointError(f"{where}: vision_config lacks {', '.join(absent)}: download it again")
    _check_heads(tower, where, "vision_config.")
    if tower and tower["patch_size"] > tower["image_size"]:
        raise CheckpointError(
            f"{where}: vision_config.patch_size = {tower['patch_size']} exceeds image_size = {tower['image_size']}"
        )
