"""``load_pretrained_model``: a checkpoint in, everything that answers questions out."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedTokenizerBase, Qwen2Tokenizer, SiglipImageProcessorPil
from transformers.core_model_loading import WeightRenaming
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import is_flash_attn_2_available
from transformers.utils import logging as transformers_logging

from llava.errors import CheckpointError, InputError
from llava.model.checkpoint import KEY_MAPPING, read_config, rename_key
from llava.model.config_checks import check_generation_config
from llava.model.language_model.llava_qwen import LlavaQwenConfig, LlavaQwenForCausalLM
from llava.model.placement import check_reachable, resolve_device_map, tensor_parallel_arguments
from llava.model.stored import check_stored, is_left_out, report_misfit
from llava.model.weight_checks import check_weights

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
_LEAST_VOCABULARY = 256  # a byte-level tokenizer has at least one token per byte; without files it comes out empty


def _resolve_dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    """float16 on CUDA as the published evaluations use, float32 elsewhere, unless a type is asked for."""
    if dtype is None or dtype == "auto":
        return torch.float16 if torch.cuda.is_available() else torch.float32
    if isinstance(dtype, str) and dtype in DTYPES:
        return DTYPES[dtype]
    if isinstance(dtype, torch.dtype) and dtype in DTYPES.values():
        return dtype
    raise InputError(f"torch_dtype = {dtype!r} is not supported: use one of {', '.join(DTYPES)}")


def _check_attention(implementation: str) -> None:
    known = ("eager", *ALL_ATTENTION_FUNCTIONS.valid_keys())
    if implementation not in known:
        raise InputError(
            f"attn_implementation = {implementation!r} is unknown: use 'sdpa', 'eager' or 'flash_attention_2'"
        )
    if implementation.startswith("flash_attention") and not is_flash_attn_2_available():
        raise InputError(
            f"attn_implementation = {implementation!r} needs the package flash-attn and a CUDA device: "
            "pip install 'holitom[flash]', or use 'sdpa'"
        )


def _check_loaded(model: LlavaQwenForCausalLM, info: Any, path: str, whole: bool = True) -> None:
    """Nothing missing, nothing left over of a ``whole`` model, every shape right, nothing on the meta device."""
    found = {
        what: info[what] if isinstance(info, dict) else getattr(info, what)
        for what in ("missing_keys", "unexpected_keys", "mismatched_keys")
    }
    left_over = found["unexpected_keys"] if whole else ()
    extra = [name for name in left_over if not is_left_out(rename_key(name), model.config)]
    sizes = {name: (stored, wanted) for name, stored, wanted in found["mismatched_keys"]}
    report_misfit(path, found["missing_keys"], extra, sizes)
    if getattr(model, "hf_device_map", None) is None:
        tensors = [*model.named_parameters(), *model.named_buffers()]
        meta = [name for name, tensor in tensors if tensor.is_meta]
        if meta:
            raise CheckpointError(
                f"{path!r}: {len(meta)} tensors were never loaded, {meta[0]} first: download it again"
            )


def _load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """Qwen2's tokenizer by name: transformers' automatic choice goes by ``model_type``, which says ``llava``."""
    try:
        tokenizer = Qwen2Tokenizer.from_pretrained(path)
    except Exception as error:  # the tokenizers library raises bare Exceptions for damaged files
        raise CheckpointError(
            f"no tokenizer in {path!r}: vocab.json or tokenizer.json must lie beside config.json"
        ) from error
    if len(tokenizer) < _LEAST_VOCABULARY:
        raise CheckpointError(f"no tokenizer in {path!r}: vocab.json or tokenizer.json must lie beside config.json")
    return tokenizer


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers prints a table of what does not fit; we say it in one line."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


def _from_pretrained(path: str, config: LlavaQwenConfig, **kwargs: Any) -> tuple[LlavaQwenForCausalLM, Any]:
    """The model, and what transformers says of its loading."""
    kwargs = {
        **kwargs,
        "use_safetensors": True,
        "key_mapping": KEY_MAPPING,
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,
    }
    try:
        with _quiet():
            return LlavaQwenForCausalLM.from_pretrained(path, config=config, **kwargs)
    except (OSError, SafetensorError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split())[:400]
        raise CheckpointError(f"cannot load the weights of {path!r}: {reason}") from error


def _load_model(path: str, config: LlavaQwenConfig, **kwargs: Any) -> LlavaQwenForCausalLM:
    """transformers' loader under our key table, with its failures as one clear line."""
    check_stored(path, config, LlavaQwenForCausalLM)
    check_generation_config(Path(path) / "generation_config.json", config.vocab_size)
    model, info = _from_pretrained(path, config, **kwargs)
    # saving goes back the names that were met, which those of one layout survive: every model is saved in lmms-lab's
    model._weight_conversions = [WeightRenaming(*next(iter(KEY_MAPPING.items())))]
    _check_loaded(model, info, path)
    check_weights(model, path)
    if getattr(model, "hf_device_map", None) is not None:
        check_reachable(model.get_model())
    return model


def load_pretrained_model(
    model_path: str | os.PathLike[str],
    model_base: str | None = None,
    model_name: str | None = None,
    load_8bit: bool = False,
    load_4bit: bool = False,
    device_map: str | dict[str, Any] | None = "auto",
    attn_implementation: str | None = "sdpa",
    torch_dtype: str | torch.dtype | None = None,
    overwrite_config: dict[str, Any] | None = None,
    multimodal: bool = True,
    tp_plan: str | dict[str, str] | None = None,
    **kwargs: Any,
) -> tuple[PreTrainedTokenizerBase, LlavaQwenForCausalLM, SiglipImageProcessorPil, int]:
    """Load a LLaVA-OneVision or LLaVA-Video checkpoint.

    Reads the layout of lmms-lab (flat configuration, tower inside the checkpoint, one or several safetensors files)
    and that of Hugging Face (``llava-hf/llava-onevision-*``), from a folder or a hub id. Sizes of the tower and the
    image processor come from this package, never from a second download.

    Args:
        model_path: folder or hub id.
        model_base: must be None; adapters on a base model are not supported.
        model_name: accepted for compatibility; the architecture is read from the configuration.
        load_8bit: must be False.
        load_4bit: must be False.
        device_map: ``"auto"`` spreads the model over the GPUs, or puts it on the CPU where there is none; also a
            device, or a dictionary of modules to devices, ``"cpu"`` and ``"disk"`` among them (with
            ``offload_folder``). Inside :func:`llava.model.placement.zero3` DeepSpeed shards the weights instead.
        attn_implementation: ``"sdpa"`` (default), ``"eager"`` or ``"flash_attention_2"``.
        torch_dtype: ``"float16"``, ``"bfloat16"`` or ``"float32"``; None is float16 on CUDA and float32 on the CPU.
        overwrite_config: configuration values that replace those of the checkpoint.
        multimodal: accepted for compatibility.
        tp_plan: ``"auto"`` shards every layer over the processes of ``torchrun`` (tensor parallelism).
        **kwargs: passed on to transformers' ``from_pretrained`` (``revision``, ``offload_folder``, ...).

    Returns:
        tokenizer, model in evaluation mode, image processor, and the longest context in tokens.

    Raises:
        InputError: for an unsupported argument.
        CheckpointError: if the checkpoint is absent, incomplete, damaged or of another architecture.
    """
    path = os.path.expanduser(os.fspath(model_path))
    if model_base is not None or load_8bit or load_4bit:
        raise InputError(
            "model_base, load_8bit and load_4bit are not supported: load a full checkpoint in 16 or 32 bits"
        )
    implementation = attn_implementation or "sdpa"
    _check_attention(implementation)
    dtype = _resolve_dtype(kwargs.pop("dtype", None) if torch_dtype is None else torch_dtype)
    asked, device_map = device_map, resolve_device_map(device_map)
    if os.path.sep in path and not os.path.isdir(path) and (path.startswith((".", "/", "~")) or path.count("/") > 1):
        raise CheckpointError(f"there is no folder {path!r}: pass a folder that holds a checkpoint, or a hub id")
    kwargs.pop("customized_config", None)
    config = read_config(path, overwrite_config)
    tokenizer = _load_tokenizer(path)
    where = {"device_map": device_map} if tp_plan is None else tensor_parallel_arguments(tp_plan, asked, config)
    model = _load_model(path, config, dtype=dtype, attn_implementation=implementation, **where, **kwargs).eval()
    context_len = int(getattr(config, "max_sequence_length", None) or config.max_position_embeddings)
    return tokenizer, model, model.get_vision_tower().image_processor, context_len


def load_without_decoder(
    model_path: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    attn_implementation: str = "sdpa",
    torch_dtype: str | torch.dtype | None = None,
) -> tuple[PreTrainedTokenizerBase, LlavaQwenForCausalLM]:
    """What makes the prompt of a checkpoint's LLM and not the LLM: tower, projector, newline and embedding table.

    Args:
        model_path: folder.
        device: where it computes.
        attn_implementation: of the tower.
        torch_dtype: as for :func:`load_pretrained_model`.

    Returns:
        tokenizer, and the model in evaluation mode: it has no decoder layer and no output layer, so it splices prompts
        (``splice_visuals``) and generates nothing.

    Raises:
        InputError: for an unsupported argument.
        CheckpointError: if the checkpoint, its decoder included, is absent, incomplete, damaged or of another
            architecture.
    """
    path = os.path.expanduser(os.fspath(model_path))
    _check_attention(attn_implementation)
    dtype, place = _resolve_dtype(torch_dtype), resolve_device_map(str(device))
    config = read_config(path)
    tokenizer = _load_tokenizer(path)
    check_stored(path, config, LlavaQwenForCausalLM)
    check_generation_config(Path(path) / "generation_config.json", config.vocab_size)
    values = {key: value for key, value in config.to_dict().items() if key not in ("model_type", "layer_types")}
    small = LlavaQwenConfig(**{**values, "num_hidden_layers": 0})
    model, info = _from_pretrained(path, small, dtype=dtype, attn_implementation=attn_implementation, device_map=place)
    _check_loaded(model, info, path, whole=False)
    model.lm_head = nn.Identity()  # type: ignore[assignment]
    check_weights(model, path)
    return tokenizer, model.eval()
