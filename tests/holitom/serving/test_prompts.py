"""Prompts are those that our own decoder is given, and towers run once per video."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eval.instruments.clips import draw_clip, write_clip
from holitom.serving import PromptMaker, VideoRequest
from llava.errors import InputError, VideoError
from llava.model.builder import load_pretrained_model
from llava.video import load_video
from tests.holitom.serving.serving_cases import EARLYTOM, METHODS, compressor_of, frames, our_question, small_checkpoint

SOUND = {"question": "What is it?", "method": METHODS["uniform"]}


def maker(checkpoint: Path, **settings: Any) -> PromptMaker:
    return PromptMaker(checkpoint, dtype="float32", **settings)


def made(of: PromptMaker, requests: list[VideoRequest]) -> list[torch.Tensor]:
    found = dict(of.prompts(requests))
    assert sorted(found) == list(range(len(requests)))
    return [found[number].embeds for number in range(len(requests))]


def spliced(loaded: tuple[Any, ...], request: VideoRequest) -> torch.Tensor:
    """What our own model hands to its decoder."""
    model, question, compressor = loaded[1], our_question(loaded, request), compressor_of(request.method)
    if compressor is not None:
        compressor.apply(model)
    try:
        with torch.no_grad():
            prompt = model.splice_visuals(question.ids, None, None, [question.pixels], None, ["video"])
    finally:
        if compressor is not None:
            compressor.remove()
    positions = torch.arange(prompt.inputs_embeds.shape[1])[None]
    assert torch.equal(prompt.position_ids, positions), "vLLM numbers a prompt without gaps"
    return prompt.inputs_embeds[0]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    write_clip(path, draw_clip(random.Random(5)))
    return path


def test_prompts_are_what_our_decoder_is_given(served_checkpoint: Path, ours: tuple[Any, ...]) -> None:
    videos = [frames(count, seed) for seed, count in ((1, 3), (2, 4))]
    methods = [*METHODS.values(), EARLYTOM]
    requests = [
        VideoRequest(video, "Why" * (2 + 7 * at), method) for at, video in enumerate(videos) for method in methods
    ]
    for request, embeds in zip(requests, made(maker(served_checkpoint), requests), strict=True):
        expected = spliced(ours, request)
        assert embeds.shape == expected.shape
        torch.testing.assert_close(embeds, expected, rtol=1e-4, atol=1e-4)


def test_llava_video_s_grid_and_times(tmp_path: Path, clip: Path) -> None:
    folder = small_checkpoint(tmp_path / "video", "llava-video")
    loaded = load_pretrained_model(folder, None, "llava_qwen", torch_dtype="float32")
    of = maker(folder)
    requests = [VideoRequest(load_video(clip, 3), "What?", METHODS[name]) for name in ("vanilla", "holitom")]
    for request, embeds in zip(requests, made(of, requests), strict=True):
        torch.testing.assert_close(embeds, spliced(loaded, request), rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="times are unknown"):
        made(of, [VideoRequest(frames(3, 1), "What?")])


def test_the_same_video_takes_one_tower_pass(served_checkpoint: Path, clip: Path) -> None:
    of = maker(served_checkpoint)
    first = VideoRequest(clip, "One?", METHODS["holitom"], num_frames=3)
    made(of, [first, VideoRequest(clip, "Two?", METHODS["holitom"], num_frames=3)])
    assert (of.counts.tower_calls, of.counts.tower_videos, of.counts.tower_frames) == (1, 1, 3)
    assert of.counts.compressions == 1
    again = made(of, [first, VideoRequest(clip, "Three?", METHODS["uniform"], num_frames=3)])
    assert (of.counts.tower_calls, of.counts.compressions) == (1, 2)
    assert torch.equal(again[0], made(maker(served_checkpoint), [first])[0])
    clip.touch()  # another time: maybe other content
    made(of, [first])
    assert of.counts.tower_calls == 2


def test_frames_are_the_same_video_by_their_content(served_checkpoint: Path) -> None:
    of = maker(served_checkpoint)
    video = frames(3, 1)
    made(of, [VideoRequest(video, **SOUND), VideoRequest(video.copy(), **SOUND)])
    assert of.counts.tower_videos == 1
    video[0, 0, 0] ^= 1
    made(of, [VideoRequest(video, **SOUND)])
    assert of.counts.tower_videos == 2


def test_a_video_runs_again_where_a_signal_lacks(served_checkpoint: Path, ours: tuple[Any, ...]) -> None:
    of = maker(served_checkpoint)
    plain, signalled = (VideoRequest(frames(3, 1), "What?", METHODS[name]) for name in ("uniform", "visionzip"))
    made(of, [plain])
    [embeds] = made(of, [signalled])
    assert of.counts.tower_calls == 2
    torch.testing.assert_close(embeds, spliced(ours, signalled), rtol=1e-4, atol=1e-4)
    made(of, [plain, VideoRequest(frames(3, 1), "What?")])
    assert of.counts.tower_calls == 2


def test_towers_run_in_batches_over_requests(served_checkpoint: Path) -> None:
    requests = [VideoRequest(frames(count, seed), **SOUND) for seed, count in enumerate((2, 3, 2, 4, 1))]
    whole, parted = maker(served_checkpoint), maker(served_checkpoint, frames_per_batch=5)
    both = [made(whole, requests), made(parted, requests)]
    assert (whole.counts.tower_calls, parted.counts.tower_calls) == (1, 3)  # 2 + 3, 2, 4 + 1
    assert whole.counts.tower_frames == parted.counts.tower_frames == 12
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_without_a_cache_nothing_is_kept_and_nothing_else_changes(served_checkpoint: Path) -> None:
    of = maker(served_checkpoint, cache_bytes=0)
    request = VideoRequest(frames(2, 1), **SOUND)
    one, other = made(of, [request, request])
    assert torch.equal(one, other)
    assert of.counts.tower_calls == 1
    made(of, [request])
    assert of.counts.tower_calls == 2


def test_a_wrong_request_is_told_by_its_number_before_any_tower_runs(served_checkpoint: Path) -> None:
    of = maker(served_checkpoint)
    good, bad = VideoRequest(frames(2, 1), **SOUND), frames(2, 1).astype(np.float32)
    for wrong, kind, words in (
        (VideoRequest(frames(2, 1), "?", "tiny/fastv"), InputError, "request 1: tiny/fastv compresses inside the LLM"),
        (VideoRequest(frames(2, 1), "?", "tiny/evs_r15"), InputError, "request 1: tiny/evs_r15 keeps its tokens"),
        (VideoRequest(bad, "?"), InputError, "request 1: frames of shape"),
        (VideoRequest("absent.mp4", "?"), VideoError, "request 1: absent.mp4"),
        (VideoRequest(frames(2, 1), "?", num_frames=3), InputError, "request 1: num_frames = 3 for 2 frames"),
        (VideoRequest(7, "?"), InputError, "request 1: a video of type int"),  # type: ignore[arg-type]
    ):
        with pytest.raises(kind, match=words):
            made(of, [good, wrong])
    assert of.counts.tower_calls == 0


@pytest.mark.parametrize("settings", [{"cache_bytes": -1}, {"frames_per_batch": 0}])
def test_settings_out_of_range_are_refused(served_checkpoint: Path, settings: dict[str, int]) -> None:
    with pytest.raises(InputError, match="out of range"):
        maker(served_checkpoint, **settings)
