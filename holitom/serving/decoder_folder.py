"""The folder that vLLM loads a checkpoint's LLM from: Qwen2's ``config.json`` beside links to the checkpoint's files.

It takes a few kilobytes: the weights stay where they are, and the decoder (:mod:`holitom.serving.vllm_decoder`) reads
them by their names there.
"""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from holitom.errors import CheckpointError, InputError
from holitom.files import make_folder
from holitom.serving.plugin import ARCHITECTURE

_LINKED = (
    "*.safetensors",
    "*.safetensors.index.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
)
_OTHERS = frozenset({"architectures", "model_type", "dtype", "torch_dtype", "transformers_version", "_name_or_path"})


def default_cache() -> Path:
    """Where these folders are made unless another place is named."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "holitom" / "decoders"


def qwen2_config(checkpoint: Path) -> dict[str, Any]:
    """``config.json`` of the LLM of a checkpoint in either published layout.

    Raises:
        CheckpointError: if the checkpoint's configuration is none of ours.
    """
    from transformers import Qwen2Config  # noqa: PLC0415

    from llava.model.checkpoint import read_config  # noqa: PLC0415

    config = read_config(str(checkpoint))
    fields = {name for name in Qwen2Config().to_dict() if name not in _OTHERS}
    values = {name: value for name, value in config.to_dict().items() if name in fields}
    kind = str(getattr(config, "dtype", None) or "float16").removeprefix("torch.")
    return {**values, "architectures": [ARCHITECTURE], "model_type": "qwen2", "dtype": kind}


def decoder_folder(checkpoint: str | os.PathLike[str], cache: str | os.PathLike[str] | None = None) -> Path:
    """The folder of a checkpoint's LLM, made if it is not there.

    Args:
        checkpoint: folder in either published layout.
        cache: folder below which it is made; :func:`default_cache` without it.

    Raises:
        CheckpointError: if the checkpoint is none of ours.
        InputError: if the folder cannot be made.
    """
    source = Path(checkpoint).expanduser().resolve()
    if not source.is_dir():
        raise CheckpointError(
            f"there is no folder {str(checkpoint)!r}: vLLM needs the checkpoint as a folder, fetch it"
        )
    text = json.dumps(qwen2_config(source), indent=1, sort_keys=True)
    files = sorted({path for pattern in _LINKED for path in source.glob(pattern)})
    if not any(path.suffix == ".safetensors" for path in files):
        raise CheckpointError(f"{str(checkpoint)!r} holds no *.safetensors: download or convert the weights")
    said = json.dumps([str(source), text, [path.name for path in files]])
    root = make_folder(Path(cache).expanduser() if cache is not None else default_cache())
    target = root / f"{source.name}-{hashlib.sha256(said.encode()).hexdigest()[:12]}"
    if not target.is_dir():
        _make(target, text, files)
    return target


def _make(target: Path, config: str, files: list[Path]) -> None:
    """All of the folder at once: whoever sees it sees it whole."""
    with tempfile.TemporaryDirectory(prefix=".part-", dir=target.parent) as part:
        new = Path(part) / target.name
        new.mkdir()
        (new / "config.json").write_text(config, encoding="utf-8")
        try:
            for path in files:
                (new / path.name).symlink_to(path.resolve())
            os.replace(new, target)
        except OSError as error:
            if not target.is_dir():  # else another process was faster
                raise InputError(f"{target} cannot be made ({error.strerror}): name another cache folder") from None
