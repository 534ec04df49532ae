"""Questions per minute on vLLM beside this project's own loop, on the same machine with the same weights.

    python -m eval.efficiency.serving                                          # 64 requests about 16 videos
    python -m eval.efficiency.serving --config tiny/visionzip_r15 --requests 16 --videos 4

Needs vLLM (bash scripts/vllm_check.sh makes an environment). The checkpoint is random, of a published geometry with few
layers. All ways answer the same requests greedily, in turn, and start without a cache: ``loop`` asks our runtime one
question after the other, tower and all; ``loop_shared`` as well, but a tower runs once per video; ``vllm`` is
``holitom.serving.CompressedLLM``. The engine's start is not counted. The last line of stdout is one JSON document.
"""

import json
import os
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eval.instruments.cli import Count, Parser, provenance, user_errors
from eval.instruments.clips import draw_clip, picture
from eval.instruments.kinds import stamped
from eval.instruments.measure import interleaved, spread, timed
from eval.instruments.models.cut_checkpoint import make_cut_checkpoint
from holitom.serving import CompressedLLM, PromptMaker, VideoRequest
from holitom.serving.plugin import require_vllm
from holitom.serving.requests import read_clip
from holitom.serving.served_methods import served_method
from llava.asking import VideoPrompt
from llava.model.builder import load_pretrained_model

DTYPE = "float32"
_MOTION = 24  # pictures of a drawn clip
QUESTIONS = (
    "What is shown in the video?",
    "Which colour does the thing have?",
    "Where does it go?",
    "What happens first?",
)


@dataclass(frozen=True)
class Settings:
    """What to measure.

    Attributes:
        config: of the method; None is vanilla.
        requests: how many, spread evenly over ``videos``.
        videos: how many different ones.
        frames: of each.
        new_tokens: of each answer, unless it ends before.
        repetitions: of every way, after one that warms up.
    """

    config: str | None
    requests: int
    videos: int
    frames: int
    new_tokens: int
    repetitions: int


def make_requests(settings: Settings) -> list[VideoRequest]:
    """Drawn clips with questions of different length; requests about one video do not follow one another."""
    videos = []
    for number in range(settings.videos):
        clip = draw_clip(random.Random(number))
        places = np.linspace(0, _MOTION - 1, settings.frames).astype(int).tolist()
        videos.append(np.stack([picture(clip, place) for place in places]))
    return [
        VideoRequest(
            videos[number % settings.videos], QUESTIONS[number % len(QUESTIONS)] * (1 + number % 3), settings.config
        )
        for number in range(settings.requests)
    ]


class Ways:
    """The same requests in every way; each gives the tokens of every request.

    Args:
        checkpoint: folder.
        settings: what to measure.
    """

    def __init__(self, checkpoint: Path, settings: Settings) -> None:
        from vllm import SamplingParams  # noqa: PLC0415

        self.settings, self.requests = settings, make_requests(settings)
        self.compressor = served_method(settings.config).compressor
        self.tokenizer, self.model, self.processor, _ = load_pretrained_model(checkpoint, torch_dtype=DTYPE)
        self.maker = PromptMaker(checkpoint, "cpu", DTYPE)
        self.llm = CompressedLLM(
            checkpoint, DTYPE, "cpu", cache_folder=checkpoint / "decoders", enforce_eager=True, max_model_len=8192
        )
        self.greedy = SamplingParams(temperature=0, max_tokens=settings.new_tokens, detokenize=False)

    def loop(self) -> list[list[int]]:
        """Our runtime, one question after the other."""
        if self.compressor is None:
            return [self._ask(request) for request in self.requests]
        with self.compressor.applied(self.model):
            return [self._ask(request) for request in self.requests]

    def _ask(self, request: VideoRequest) -> list[int]:
        clip = read_clip(request.video, self.settings.frames)
        question = VideoPrompt(self.tokenizer, self.model, clip, self.processor, request.question)
        return question.generate(self.settings.new_tokens)[0].tolist()

    @torch.no_grad()
    def loop_shared(self) -> list[list[int]]:
        """Our decoder, one question after the other, on prompts whose towers ran once per video."""
        self.maker.forget()
        found: list[list[int]] = [[] for _ in self.requests]
        for number, prompt in self.maker.prompts(self.requests):
            made = self.model.generate(
                inputs_embeds=prompt.embeds[None],
                attention_mask=torch.ones(1, len(prompt.embeds), dtype=torch.long),
                max_new_tokens=self.settings.new_tokens,
                do_sample=False,
                pad_token_id=self.tokenizer.pad_token_id,
            )
            found[number] = made[0].tolist()
        return found

    def vllm(self) -> list[list[int]]:
        """vLLM."""
        self.llm.prompts.forget()
        self.llm.llm.reset_prefix_cache()
        return [list(output.outputs[0].token_ids) for output in self.llm.generate(self.requests, self.greedy)]


def measure(ways: Ways) -> dict[str, Any]:
    """Questions per minute of every way, what its answers share with those of the loop, and the load of the machine."""
    tokens: dict[str, list[list[int]]] = {}

    def run(name: str, way: Callable[[], list[list[int]]]) -> float:
        def answer() -> None:
            tokens[name] = way()

        return timed(answer)

    runs = {name: (lambda name=name: run(name, getattr(ways, name))) for name in ("loop", "loop_shared", "vllm")}
    load = os.getloadavg()[0]
    seconds = interleaved(runs, ways.settings.repetitions)
    count = len(ways.requests)
    equal = {name: sum(a == b for a, b in zip(tokens[name], tokens["loop"], strict=True)) for name in runs}
    return {
        "questions_per_minute": {
            name: spread([60 * count / value for value in values]) for name, values in seconds.items()
        },
        "speedup_over_loop": {
            name: spread([a / b for a, b in zip(seconds["loop"], values, strict=True)])
            for name, values in seconds.items()
        },
        "equal_answers": equal,
        "prompt_tokens": _prompt_tokens(ways),
        "load_before": round(load, 2),
        "cores": os.cpu_count(),
    }


def _prompt_tokens(ways: Ways) -> list[int]:
    """Of the shortest and the longest prompt."""
    lengths = [len(prompt.embeds) for _, prompt in ways.maker.prompts(ways.requests)]
    return [min(lengths), max(lengths)]


def parser() -> Parser:
    """The options."""
    found = Parser(description=__doc__)
    found.add_argument("--geometry", default="llava-onevision-0.5b")
    found.add_argument("--layers", action=Count, default=4, help="of the decoder (default 4)")
    found.add_argument("--tower-layers", action=Count, default=2, help="that run (default 2)")
    found.add_argument("--config", default="llava_onevision_0.5b/holitom_without_inner_r15")
    found.add_argument("--vanilla", action="store_true", help="no method")
    for name, value in (("requests", 64), ("videos", 16), ("frames", 8), ("new-tokens", 16), ("repetitions", 2)):
        found.add_argument(f"--{name}", action=Count, default=value, help=f"default {value}")
    return found


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    options = parser().parse_args(arguments)
    config = None if options.vanilla else options.config
    settings = Settings(
        config, options.requests, options.videos, options.frames, options.new_tokens, options.repetitions
    )
    served_method(config)
    version = require_vllm().__version__
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = make_cut_checkpoint(folder, options.geometry, options.layers, options.tower_layers)
        ways = Ways(checkpoint, settings)
        found = measure(ways)
        ways.llm.close()
    print(json.dumps(stamped("serving", {**vars(options), "dtype": DTYPE, "vllm": version, **found, **provenance()})))


if __name__ == "__main__":
    main()
