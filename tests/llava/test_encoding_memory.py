"""Encoding in passes: the same tokens, and memory that does not grow with the video beside its input and output."""

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from holitom import available_methods
from llava.errors import InputError
from llava.model.visual_inputs import VisualEncoder
from tests.tiny_models import prompt, video


def pictures(frames: int, side: int = 40, seed: int = 0) -> Tensor:
    """A decoded video: (frames, side, side + 8, 3) uint8."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (frames, side, side + 8, 3), dtype=torch.uint8, generator=generator)


def peak_bytes(work) -> int:
    """Highest memory that torch held during ``work`` above what it held before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    assert len(events) > 10, "the profiler saw no memory"
    peak = now = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


@pytest.fixture
def encoder(model) -> VisualEncoder:
    return VisualEncoder(model.model, model.config, None)


def beside(encoder: VisualEncoder, pixels: Tensor, compressor=None) -> int:
    """Peak of encoding a video less the bytes of its features."""
    kept = []

    def work() -> None:
        if compressor is None:
            kept.append(encoder.encode_frames(pixels))
            return
        with compressor.recording():
            kept.append(encoder.encode_frames(pixels))

    with torch.no_grad():
        encoder.encode_frames(pixels[:2])  # what is made once
        peak = peak_bytes(work)
    return peak - kept[0].nbytes


@pytest.mark.parametrize("kind", ["pictures", "pixel values"])
def test_a_long_video_takes_no_more_memory_than_a_short_one(encoder: VisualEncoder, kind: str) -> None:
    """32 and 128 frames: the same ceiling, which is that of one pass."""
    tower = encoder.model.vision_tower
    tower.frames_per_pass = 2

    def given(frames: int) -> Tensor:
        if kind == "pictures":
            return pictures(frames)
        return torch.zeros(1, 3, 384, 384).expand(frames, -1, -1, -1)  # a long video that is not in memory itself

    one_pass, medium, long = (beside(encoder, given(frames)) for frames in (2, 32, 128))
    feature = 196 * encoder.config.hidden_size * 4
    assert medium <= 1.05 * one_pass + 2 * feature
    assert long <= 1.01 * medium
    assert long < 128 * feature, "less than the features themselves"


def test_received_attention_is_recorded_pass_by_pass(model, encoder: VisualEncoder) -> None:
    """Beside the scores, (frames, 729) fp32, nothing of the earlier passes is kept."""
    encoder.model.vision_tower.frames_per_pass = 2
    with available_methods()["holitom"](inner=None).build().applied(model) as compressor:
        one_pass, long = (beside(encoder, pictures(frames), compressor) for frames in (2, 32))
        scores = compressor.take_signals()["received_attention"]
    assert scores.shape == (32, 729)
    assert long <= 1.05 * one_pass + 2 * scores.nbytes + 2 * 196 * encoder.config.hidden_size * 4


@pytest.mark.parametrize("size", [1, 3, 5, 7, 100])
def test_passes_change_no_token(model, encoder: VisualEncoder, size: int) -> None:
    tower, clip = encoder.model.vision_tower, video(7, cuts=(2,))
    results = []
    with available_methods()["holitom"](inner=None).build().applied(model) as compressor, torch.no_grad():
        for tower.frames_per_pass in (7, size):
            with compressor.recording():
                results.append(
                    (encoder.encode_frames(clip), compressor.take_signals()["received_attention"], tower(clip))
                )
    for got, want in zip(results[1], results[0], strict=True):
        assert got.shape == want.shape
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [2, 16])
def test_pictures_are_what_the_image_processor_makes_of_them(model, size: int, monkeypatch) -> None:
    clip, ids = pictures(5), prompt(5, "video", 9)
    tower = model.get_vision_tower()
    tower.frames_per_pass = size
    pixels = tower.image_processor.preprocess(clip.numpy(), return_tensors="pt")["pixel_values"]
    calls: list[int] = []
    make = tower.image_processor.preprocess

    def counted(frames, **options):
        calls.append(len(frames))
        return make(frames, **options)

    monkeypatch.setattr(tower.image_processor, "preprocess", counted)
    spliced = [model.splice_visuals(ids, None, None, [each], None, "video").inputs_embeds for each in (pixels, clip)]
    torch.testing.assert_close(*spliced, atol=0, rtol=0)
    assert calls == [min(size, 5 - start) for start in range(0, 5, size)], "pixel values of one pass at a time"


@pytest.mark.parametrize("size", [0, -1, 2.0, True, None])
def test_a_size_that_is_no_size_is_refused(model, size) -> None:
    model.get_vision_tower().frames_per_pass = size
    with pytest.raises(InputError, match=r"frames_per_pass = .* is out of range"):
        model.generate(prompt(2, "video", 2), images=[video(1)], modalities="video", max_new_tokens=1)


def test_a_bad_pixel_is_found_in_any_pass(model) -> None:
    clip = video(40)
    clip[37, 1, 5, 5] = torch.nan
    with pytest.raises(InputError, match=r"\[37\]"):
        model.splice_visuals(prompt(2, "video", 2), None, None, [clip], None, "video")


def test_pictures_are_no_images(model) -> None:
    with pytest.raises(InputError, match=r"\(3, 40, 48, 3\)"):
        model.splice_visuals(prompt(2, "image", 2), None, None, [pictures(3)], None, "image")


def test_frames_that_meet_in_the_tower_run_in_passes_too(encoder: VisualEncoder, model) -> None:
    """Between the gates the tower holds the states of all frames, but the activations of one pass alone."""
    pixels, tower, peaks, kept = video(24), encoder.model.vision_tower, {}, {}
    config = available_methods()["earlytom"](similarity_threshold=0.3, tower_layers=[0], inner=None)
    states = 24 * tower.num_patches_per_side**2 * tower.config.hidden_size * 4
    with config.build().applied(model) as compressor:
        for passes in (2, 24):
            tower.frames_per_pass = passes
            peaks[passes] = beside(encoder, pixels, compressor)
            with compressor.recording(), torch.no_grad():
                kept[passes] = encoder.encode_frames(pixels)
    torch.testing.assert_close(kept[2], kept[24], atol=1e-5, rtol=0)
    assert len(kept[2]) < 24
    assert peaks[2] < 4 * states < peaks[24]
