"""What identifies a file, a value and a checkpoint."""

import hashlib
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from llava.errors import CheckpointError
from llava.model.config_checks import read_json

# config, tokenizer and weights; pictures and texts of a model card decide no answer
CHECKPOINT_PATTERNS = ("*.safetensors", "*.json", "merges.txt", "vocab.txt")


def digest(value: Any) -> str:
    """SHA-256 of a value's canonical JSON; keys are sorted, and nothing but plain JSON is accepted."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=256)
def _file_digest(path: str, size: int, modified: int) -> str:
    """SHA-256 of a whole file; ``size`` and ``modified`` only tell the cache when it changed."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a whole file, read again only if it changed."""
    stat = path.stat()
    return _file_digest(str(path.resolve()), stat.st_size, stat.st_mtime_ns)


def local_checkpoint(name: str | os.PathLike[str]) -> Path:
    """The folder of a checkpoint; one of the hub is fetched first, or taken from its cache.

    Raises:
        CheckpointError: if there is none.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if folder.is_absolute() or str(name).count("/") != 1:
        raise CheckpointError(f"there is no folder {str(name)!r}: pass a folder that holds a checkpoint, or a hub id")
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    try:
        return Path(snapshot_download(str(name), allow_patterns=list(CHECKPOINT_PATTERNS)))
    except Exception as error:  # no network, no such name, no access: each an exception of its own kind
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"checkpoint {str(name)!r} is no folder here and cannot be fetched ({reason}): pass a folder"
        ) from error


def checkpoint_identity(folder: Path) -> dict[str, Any]:
    """SHA-256 of everything in a checkpoint that decides its answers.

    Returns:
        ``files`` (name to hash), ``weights_sha256`` (over all of them) and ``random``, whether the weights are those
        of :mod:`eval.instruments.models.random_checkpoint`, with which no score means anything.

    Raises:
        CheckpointError: if the folder holds no weights.
    """
    paths = sorted({path for pattern in CHECKPOINT_PATTERNS for path in folder.glob(pattern)})
    files = {path.name: file_digest(path) for path in paths}
    if "config.json" not in files or not any(name.endswith(".safetensors") for name in files):
        raise CheckpointError(f"{str(folder)!r} holds no config.json with *.safetensors: it is no checkpoint")
    tower = read_json(folder / "config.json").get("mm_vision_tower")
    return {"files": files, "weights_sha256": digest(files), "random": str(tower).startswith("random")}
