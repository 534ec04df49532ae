"""Asking a server of vLLM's own, which takes the embeddings of a prompt by POST.

vllm serve "$(python -m holitom.serving CHECKPOINT)" --enable-prompt-embeds --served-model-name decoder

maker = PromptMaker("CHECKPOINT", dtype="bfloat16")
for number, prompt in maker.prompts(requests):
    answer = post_completion("http://localhost:8000", completion_payload(prompt, "decoder", max_tokens=64))
    print(answer["choices"][0]["text"])
"""

import base64
import io
import json
import urllib.error
import urllib.request
from typing import Any

import torch

from holitom.errors import InputError
from holitom.serving.prompts import SplicedPrompt


def completion_payload(prompt: SplicedPrompt, model: str, **sampling: Any) -> dict[str, Any]:
    """The JSON body of a request to ``/v1/completions``.

    Args:
        prompt: of a :class:`~holitom.serving.prompts.PromptMaker` in the server's type of weights.
        model: the name it is served by.
        **sampling: ``max_tokens``, ``temperature`` and whatever else the server takes.

    Raises:
        InputError: if ``sampling`` names what the prompt decides.
    """
    for name in ("prompt", "prompt_embeds"):
        if name in sampling:
            raise InputError(f"{name} is made of the request: leave it out")
    saved = io.BytesIO()
    torch.save(prompt.embeds.contiguous().clone(), saved)  # a view would carry all that it is a view of
    return {"model": model, "prompt_embeds": base64.b64encode(saved.getvalue()).decode("ascii"), **sampling}


def post_completion(server: str, payload: dict[str, Any], timeout: float = 600.0) -> dict[str, Any]:
    """What the server answers.

    Args:
        server: ``http://host:port``.
        payload: of :func:`completion_payload`.
        timeout: seconds.

    Raises:
        InputError: if it cannot be reached or refuses the request; the message says its reason.
    """
    body, header = json.dumps(payload).encode("ascii"), {"Content-Type": "application/json"}
    if not server.startswith(("http://", "https://")):
        raise InputError(f"server = {server!r} is no address: it must be like http://localhost:8000")
    asked = urllib.request.Request(f"{server.rstrip('/')}/v1/completions", body, header)
    try:
        with urllib.request.urlopen(asked, timeout=timeout) as answered:
            return json.load(answered)
    except urllib.error.HTTPError as error:
        said = " ".join(error.read().decode("utf-8", "replace").split())[:300]
        raise InputError(
            f"{server} refused the request ({error.code}: {said}): it must serve the folder of "
            "python -m holitom.serving with --enable-prompt-embeds"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{server} gave no answer ({error}): start vllm serve first") from None
