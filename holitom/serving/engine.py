"""``CompressedLLM``: the ways of vLLM's ``LLM``, with a video, a question and a method as a request."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch

from holitom.errors import InputError
from holitom.serving.decoder_folder import decoder_folder
from holitom.serving.plugin import require_vllm
from holitom.serving.prompts import CACHE_BYTES, FRAMES_PER_BATCH, PromptMaker, SplicedPrompt
from holitom.serving.requests import VideoRequest

_OURS = ("model", "enable_prompt_embeds")
WAVE = 256  # prompts that may wait in the engine at one time: vanilla ones of a 7B model take 45 MB each


def decoder_engine(
    checkpoint: str | os.PathLike[str], dtype: str, cache_folder: str | os.PathLike[str] | None = None, **engine: Any
) -> Any:
    """``vllm.LLM`` with the LLM of a checkpoint, which takes prompts as embeddings; arguments as for the class below.

    Raises:
        InputError: if vLLM is not installed, or for a wrong argument or checkpoint.
    """
    for name in _OURS:
        if name in engine:
            raise InputError(f"{name} = {engine[name]!r} is decided by the checkpoint and this project: leave it out")
    vllm = require_vllm()
    folder = decoder_folder(checkpoint, cache_folder)
    return vllm.LLM(model=str(folder), enable_prompt_embeds=True, dtype=dtype, **engine)


class CompressedLLM:
    """A checkpoint's LLM on vLLM, behind this project's tower, projector and outer stage.

    Args:
        checkpoint: folder in either published layout.
        dtype: of all of it; None is float16 on CUDA and float32 on the CPU.
        device: of the tower and the outer stage; on a GPU that vLLM uses too, leave them room
            (``gpu_memory_utilization``).
        cache_bytes: see :class:`~holitom.serving.prompts.PromptMaker`.
        frames_per_batch: likewise.
        cache_folder: see :func:`~holitom.serving.decoder_folder.decoder_folder`.
        **engine: arguments of ``vllm.LLM`` (``tensor_parallel_size``, ``max_model_len``, ``enforce_eager``, ...).

    Attributes:
        llm: vLLM's ``LLM``.
        prompts: the :class:`~holitom.serving.prompts.PromptMaker`, with its counts.

    Raises:
        InputError: if vLLM is not installed, or for a wrong argument or checkpoint.
    """

    def __init__(
        self,
        checkpoint: str | os.PathLike[str],
        dtype: str | None = None,
        device: str | torch.device | None = None,
        cache_bytes: int = CACHE_BYTES,
        frames_per_batch: int = FRAMES_PER_BATCH,
        cache_folder: str | os.PathLike[str] | None = None,
        **engine: Any,
    ) -> None:
        require_vllm()  # before anything is loaded
        self.prompts = PromptMaker(checkpoint, device, dtype, cache_bytes, frames_per_batch)
        kind = str(self.prompts.model.dtype).removeprefix("torch.")
        self.llm = decoder_engine(checkpoint, kind, cache_folder, **engine)

    def generate(
        self, requests: Sequence[VideoRequest] | VideoRequest, sampling_params: Any = None, use_tqdm: bool = False
    ) -> list[Any]:
        """Answer requests; the engine works on the first prompts while the tower makes the next ones.

        Args:
            requests: one or several.
            sampling_params: ``vllm.SamplingParams``, one for all or one per request; None is the checkpoint's own.
            use_tqdm: show vLLM's progress bars.

        Returns:
            ``vllm.RequestOutput`` for every request, in their order.

        Raises:
            InputError: for a request that cannot be served, or a prompt that the engine has no room for.
            VideoError: for a video that cannot be read.
        """
        asked = [requests] if isinstance(requests, VideoRequest) else list(requests)
        several = isinstance(sampling_params, Sequence)
        if several and len(sampling_params) != len(asked):
            raise InputError(
                f"{len(sampling_params)} sampling_params for {len(asked)} requests: pass one for each, or one for all"
            )
        outputs: list[Any] = [None] * len(asked)
        waiting: list[int] = []
        try:
            for number, prompt in self.prompts.prompts(asked):
                self._check_length(number, prompt)
                params = sampling_params[number] if several else sampling_params
                self.llm.enqueue({"prompt_embeds": prompt.embeds}, params, use_tqdm=False)
                waiting.append(number)
                if len(waiting) == WAVE:
                    self._collect(waiting, outputs, use_tqdm)
        finally:  # also after an error: what was queued would be an answer of the next call
            self._collect(waiting, outputs, use_tqdm)
        return outputs

    def close(self) -> None:
        """End the engine's processes."""
        self.llm.llm_engine.engine_core.shutdown()

    def _check_length(self, number: int, prompt: SplicedPrompt) -> None:
        longest = int(self.llm.llm_engine.model_config.max_model_len)
        if len(prompt.embeds) >= longest:
            raise InputError(
                f"request {number}: the prompt has {len(prompt.embeds)} tokens, and max_model_len = {longest} must "
                "hold them and the answer: raise it, use fewer frames, or compress to a lower retain_ratio"
            )

    def _collect(self, waiting: list[int], outputs: list[Any], use_tqdm: bool) -> None:
        """Wait for what is queued; vLLM returns it in the order in which it was."""
        if not waiting:
            return
        for number, output in zip(waiting, self.llm.wait_for_completion(use_tqdm=use_tqdm), strict=True):
            outputs[number] = output
        waiting.clear()
