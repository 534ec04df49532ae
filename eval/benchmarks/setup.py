"""What identifies a run and a question: hashes of weights, code and videos."""

import hashlib
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import torch

import holitom
import llava
from eval.instruments.cli import processor
from eval.instruments.fingerprints import digest, file_digest
from llava.video_files import check_file

# arguments of the stock models that decide where and how fast, not what
_PLACEMENT = frozenset({"self", "kwargs", "pretrained", "device", "device_map", "batch_size", "use_cache"})
_BLOCK = 1 << 20
_BLOCKS = 16  # of a long video that are read: beginning, end and evenly between


@cache
def code_digest() -> str:
    """SHA-256 of the sources an answer depends on: ``llava``, ``holitom`` and the models of the harness."""
    packages = [Path(str(package.__file__)).parent for package in (llava, holitom)]
    found = {f"{root.name}/{path.relative_to(root)}": path for root in packages for path in root.rglob("*.py")}
    names = ("models.py", "questions.py", "preparing.py", "ahead.py", "reuse.py", "videos.py", "vllm_engine.py")
    found |= {name: Path(__file__).parent / "lmms" / name for name in names}
    return digest({name: file_digest(path) for name, path in found.items()})


def setup_of(model: Any, stock_id: str, arguments: dict[str, Any], weights_sha256: str) -> dict[str, Any]:
    """What every answer of a model depends on besides the question and the method.

    Args:
        model: the loaded model.
        stock_id: its name in the harness.
        arguments: all of the stock model's, by name.
        weights_sha256: of the checkpoint.
    """
    import transformers  # noqa: PLC0415

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
