"""A random checkpoint of a published geometry with few layers: true widths and heads, sizes that a CPU answers with."""

from pathlib import Path
from typing import Any

from eval.instruments.models.geometries import GEOMETRIES
from eval.instruments.models.random_checkpoint import tiny_config, write_random_model
from llava.errors import InputError
from llava.model.vision_tower import KNOWN_TOWERS

_FEWEST_CHANNELS = 32  # of a head, for which vLLM has an attention on the CPU: the tiny geometry gets fewer heads


def cut_config(geometry: str, layers: int, tower_layers: int) -> dict[str, Any]:
    """``config.json`` of a geometry with so many decoder layers, and tower layers that run.

    Raises:
        InputError: for an unknown geometry or a number below 1.
    """
    if geometry not in GEOMETRIES:
        raise InputError(f"geometry = {geometry!r} is unknown: it must be one of {', '.join(GEOMETRIES)}")
    if min(layers, tower_layers) < 1:
        raise InputError(f"layers = {layers} and tower_layers = {tower_layers}: both must be at least 1")
    sizes = GEOMETRIES[geometry]
    tower = sizes.get("vision_config", KNOWN_TOWERS["siglip-so400m-patch14-384"])
    tower = {**tower, "num_hidden_layers": tower_layers + 1}  # the last one is not run
    heads = min(sizes["num_attention_heads"], sizes["hidden_size"] // _FEWEST_CHANNELS)
    grouped = {
        "num_attention_heads": heads,
        "num_key_value_heads": min(sizes["num_key_value_heads"], max(1, heads // 2)),
    }
    special = {name: value for name, value in tiny_config().items() if name in ("bos_token_id", "eos_token_id")}
    return {**tiny_config(), **sizes, **special, **grouped, "num_hidden_layers": layers, "vision_config": tower}


def make_cut_checkpoint(path: str | Path, geometry: str, layers: int, tower_layers: int, seed: int = 0) -> Path:
    """Write it, in the layout of lmms-lab, with a byte-level tokenizer.

    Raises:
        InputError: for an unknown geometry, a number below 1, or if the folder cannot be made.
    """
    return write_random_model(path, cut_config(geometry, layers, tower_layers), seed)
