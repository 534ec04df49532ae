"""On vLLM itself: greedy tokens are those of our own decoder. ``bash scripts/vllm_check.sh`` makes the environment."""

import importlib.util
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eval.instruments.clips import draw_clip, write_clip
from holitom.serving import CompressedLLM, VideoRequest
from llava.model.builder import load_pretrained_model
from llava.video import load_video
from tests.holitom.serving.serving_cases import (
    METHODS,
    NEW_TOKENS,
    frames,
    half_billion_checkpoint,
    hugging_face_copy,
    our_tokens,
    small_checkpoint,
)

if importlib.util.find_spec("vllm") is None:
    pytest.skip("vllm is not installed: bash scripts/vllm_check.sh runs these tests", allow_module_level=True)

CASES = ("small", "half-billion", "llava-video")
VIDEOS = [(1 + number % 3, 10 + number) for number in range(6)]  # frames, seed


def case_checkpoint(case: str, folder: Path) -> Path:
    """Tiny in the layout of Hugging Face, 0.5B cut to few layers and tiny LLaVA-Video in that of lmms-lab."""
    if case == "half-billion":
        return half_billion_checkpoint(folder / "half")
    if case == "llava-video":
        return small_checkpoint(folder / "video", "llava-video")
    return hugging_face_copy(small_checkpoint(folder / "lmms-lab"), folder / "hugging-face")


@pytest.fixture(scope="module", params=CASES)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, Any]]:
    """One engine per checkpoint."""
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    folder = tmp_path_factory.mktemp(request.param)
    checkpoint = case_checkpoint(request.param, folder)
    llm = CompressedLLM(
        checkpoint, "float32", "cpu", cache_folder=folder / "cache", enforce_eager=True, max_model_len=4096
    )
    yield request.param, checkpoint, llm
    llm.close()


def asked(case: str, folder: Path) -> list[VideoRequest]:
    """Six videos with questions of different length, for every method and vanilla."""
    if case == "llava-video":
        clips = []
        for count, seed in VIDEOS:
            path = folder / f"{seed}.mp4"
            write_clip(path, draw_clip(random.Random(seed)))
            clips.append(load_video(path, count))
        videos: list[Any] = clips
    else:
        videos = [frames(count, seed) for count, seed in VIDEOS]
    return [VideoRequest(video, "So? " * at, method) for at, video in enumerate(videos) for method in METHODS.values()]


def test_tokens_are_those_of_our_decoder(served: tuple[str, Path, Any], tmp_path: Path) -> None:
    from vllm import SamplingParams  # noqa: PLC0415

    case, checkpoint, llm = served
    requests = asked(case, tmp_path)
    words = case != "half-billion"  # its vocabulary is larger than the tokenizer's
    greedy = SamplingParams(temperature=0, max_tokens=NEW_TOKENS, detokenize=words)
    outputs = llm.generate(requests, greedy)
    assert len({len(output.prompt_token_ids) for output in outputs}) > len(VIDEOS)
    assert llm.prompts.counts.tower_videos == len(VIDEOS), "requests about one video share its tower pass"
    loaded = load_pretrained_model(checkpoint, None, "llava_qwen", torch_dtype="float32")
    expected = [our_tokens(loaded, request) for request in requests]
    assert [list(output.outputs[0].token_ids) for output in outputs] == expected
    assert len({tuple(tokens) for tokens in expected}) > len(VIDEOS), "prompts that differ are answered differently"
    if words:  # vLLM waits for the rest of a character that is not complete, our tokenizer shows that it is not
        decoded = [
            text.rstrip("\ufffd") for text in llm.prompts.tokenizer.batch_decode(expected, skip_special_tokens=True)
        ]
        assert [output.outputs[0].text.rstrip("\ufffd") for output in outputs] == decoded
    again = llm.generate(requests[::-1], greedy)
    assert [list(output.outputs[0].token_ids) for output in again] == expected[::-1]
    assert llm.prompts.counts.tower_videos == len(VIDEOS)
