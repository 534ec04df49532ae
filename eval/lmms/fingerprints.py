"""What identifies a run and a question: hashes of weights, code and videos."""

import hashlib
import json
import os
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import torch
import transformers

import holitom
import llava
from eval.cli import processor
from llava.errors import CheckpointError
from llava.video_files import check_file

# config, tokenizer and weights; pictures and texts of a model card decide no answer
CHECKPOINT_PATTERNS = ("*.safetensors", "*.json", "merges.txt", "vocab.txt")
# arguments of the stock models that decide where and how fast, not what
_PLACEMENT = frozenset({"self", "kwargs", "pretrained", "device", "device_map", "batch_size", "use_cache"})
_BLOCK = 1 << 20
_BLOCKS = 16  # of a long video that are read: beginning, end and evenly between


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
        of :mod:`eval.random_checkpoint`, with which no score means anything.

    Raises:
        CheckpointError: if the folder holds no weights.
    """
    paths = sorted({path for pattern in CHECKPOINT_PATTERNS for path in folder.glob(pattern)})
    files = {path.name: file_digest(path) for path in paths}
    if "config.json" not in files or not any(name.endswith(".safetensors") for name in files):
        raise CheckpointError(f"{str(folder)!r} holds no config.json with *.safetensors: it is no checkpoint")
    tower = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("mm_vision_tower")
    return {"files": files, "weights_sha256": digest(files), "random": str(tower).startswith("random")}


@cache
def code_digest() -> str:
    """SHA-256 of the sources an answer depends on: ``llava``, ``holitom`` and the models of the harness."""
    packages = [Path(str(package.__file__)).parent for package in (llava, holitom)]
    found = {f"{root.name}/{path.relative_to(root)}": path for root in packages for path in root.rglob("*.py")}
    found |= {name: Path(__file__).with_name(name) for name in ("models.py", "questions.py")}
    return digest({name: file_digest(path) for name, path in found.items()})


def setup_of(model: Any, stock_id: str, arguments: dict[str, Any], weights_sha256: str) -> dict[str, Any]:
    """What every answer of a model depends on besides the question and the method.

    Args:
        model: the loaded model.
        stock_id: its name in the harness.
        arguments: all of the stock model's, by name.
        weights_sha256: of the checkpoint.
    """
    return {
        "weights_sha256": weights_sha256,
        "model": stock_id,
        "arguments": {name: value for name, value in sorted(arguments.items()) if name not in _PLACEMENT},
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else processor(),
        "attention": model.config._attn_implementation,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "code_sha256": code_digest(),
    }


@lru_cache(maxsize=4096)
def _video_digest(path: str, size: int, modified: int) -> str:
    found = hashlib.sha256(str(size).encode())
    starts = range(0, size, _BLOCK) if size <= _BLOCKS * _BLOCK else _spread(size)
    with open(path, "rb") as file:
        for start in starts:
            file.seek(start)
            found.update(file.read(_BLOCK))
    return found.hexdigest()


def _spread(size: int) -> list[int]:
    return [(size - _BLOCK) * number // (_BLOCKS - 1) for number in range(_BLOCKS)]


def video_digest(path: Path) -> str:
    """SHA-256 of a video's size and content; of files beyond 16 MiB sixteen evenly spread MiB are read.

    Raises:
        VideoError: the path is absent, no regular file, empty or not readable.
    """
    check_file(path)
    stat = path.stat()
    return _video_digest(str(path.absolute()), stat.st_size, stat.st_mtime_ns)
