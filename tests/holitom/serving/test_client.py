"""What is posted to a server is the prompt's embeddings and nothing more, and its refusals are told."""

import base64
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holitom.serving.client import completion_payload, post_completion
from holitom.serving.videos import SplicedPrompt
from llava.errors import InputError
from llava.video import VideoClip

CLIP = VideoClip(np.zeros((0, 2, 2, 3), np.uint8), (0,), 1, 0.0, 0.0, "frames", Path("x"))


class Answering(BaseHTTPRequestHandler):
    """Answers with the shape of what it was sent, or refuses a model that is called so."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        tensor = torch.load(io.BytesIO(base64.b64decode(asked["prompt_embeds"])), weights_only=True)
        refused = asked["model"] == "refused"
        self.send_response(404 if refused else 200)
        self.end_headers()
        answer = {"path": self.path, "shape": list(tensor.shape), "max_tokens": asked["max_tokens"]}
        self.wfile.write(json.dumps({"error": "no such model"} if refused else answer).encode())

    def log_message(self, *_: Any) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def server() -> Iterator[str]:
    served = HTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    thread.join()


def prompt(dtype: torch.dtype = torch.bfloat16) -> SplicedPrompt:
    """A view of a larger tensor."""
    return SplicedPrompt(torch.randn(500, 8).to(dtype)[10:13], (4, 3), CLIP)


def test_the_payload_holds_the_embeddings_alone() -> None:
    asked = prompt()
    payload = completion_payload(asked, "decoder", max_tokens=3, temperature=0)
    raw = base64.b64decode(payload.pop("prompt_embeds"), validate=True)
    assert payload == {"model": "decoder", "max_tokens": 3, "temperature": 0}
    assert torch.equal(torch.load(io.BytesIO(raw), weights_only=True), asked.embeds)
    assert len(raw) < 4000 < asked.embeds.untyped_storage().nbytes()


def test_a_server_is_asked(server: str) -> None:
    answer = post_completion(f"{server}/", completion_payload(prompt(), "decoder", max_tokens=3))
    assert answer == {"path": "/v1/completions", "shape": [3, 8], "max_tokens": 3}


def test_what_goes_wrong_is_told(server: str) -> None:
    with pytest.raises(InputError, match=r"refused the request .404: .*no such model.*--enable-prompt-embeds"):
        post_completion(server, completion_payload(prompt(), "refused", max_tokens=3))
    with pytest.raises(InputError, match="gave no answer"):
        post_completion("http://127.0.0.1:9", {})
    with pytest.raises(InputError, match="is no address"):
        post_completion("file:///etc/hosts", {})
    with pytest.raises(InputError, match="prompt_embeds is made"):
        completion_payload(prompt(), "decoder", prompt_embeds="x")
