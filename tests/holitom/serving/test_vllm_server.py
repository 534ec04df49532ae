"""vLLM's own server, given prompts by POST, answers as our decoder does."""

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from holitom.serving import PromptMaker, VideoRequest
from holitom.serving.client import completion_payload, post_completion
from holitom.serving.decoder_folder import decoder_folder
from tests.holitom.serving.serving_cases import METHODS, NEW_TOKENS, frames, our_tokens

if importlib.util.find_spec("vllm") is None:
    pytest.skip("vllm is not installed: bash scripts/vllm_check.sh runs these tests", allow_module_level=True)

_STARTS_WITHIN = 600  # seconds


@pytest.fixture(scope="module")
def server(served_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """vLLM's server on the folder that ``python -m holitom.serving`` prints."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("server")
    options = ["--enable-prompt-embeds", "--served-model-name", "decoder", "--dtype", "float32", "--enforce-eager"]
    options += ["--max-model-len", "4096", "--host", "127.0.0.1", "--port", str(port)]
    # what ``vllm serve`` starts, which asks for the version of a package "vllm": the CPU build is not called so
    launch = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model"]
    command = [*launch, str(decoder_folder(served_checkpoint, folder)), *options]
    with (folder / "log").open("w") as log:
        env = {"VLLM_CPU_KVCACHE_SPACE": "1", **os.environ}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=env)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait(process, address, folder / "log")
        yield address
    finally:
        process.terminate()
        process.wait(60)


def _wait(process: subprocess.Popen, address: str, log: Path) -> None:
    end = time.monotonic() + _STARTS_WITHIN
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5).close()
            return
        except (OSError, urllib.error.URLError):
            time.sleep(1)
    raise AssertionError(log.read_text()[-3000:])


def test_posted_prompts_are_answered_as_by_our_decoder(
    server: str, served_checkpoint: Path, ours: tuple[Any, ...]
) -> None:
    maker = PromptMaker(served_checkpoint, "cpu", "float32")
    requests = [
        VideoRequest(frames(count, count), "Why?" * count, method) for count in (2, 3) for method in METHODS.values()
    ]
    prompts = dict(maker.prompts(requests))

    def ask(number: int) -> list[int]:
        sampling = {"max_tokens": NEW_TOKENS, "temperature": 0, "return_token_ids": True}
        answer = post_completion(server, completion_payload(prompts[number], "decoder", **sampling))
        return answer["choices"][0]["token_ids"]

    with ThreadPoolExecutor(4) as pool:  # at the same time, as users come
        answered = list(pool.map(ask, range(len(requests))))
    assert answered == [our_tokens(ours, request) for request in requests]
