"""Our runtime against transformers' LlavaOnevision with the same random weights: logits and sequence lengths."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LlavaOnevisionForConditionalGeneration

from llava.constants import IMAGE_TOKEN_INDEX
from llava.mm_utils import process_images
from llava.model.builder import load_pretrained_model
from tests.tiny_models import IMAGE_ID, VIDEO_ID, hugging_face_model, prompt, video

VOCABULARY = 259


@pytest.fixture(scope="module")
def reference(checkpoint: Path) -> LlavaOnevisionForConditionalGeneration:
    return hugging_face_model(checkpoint)


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height))


def expanded(ids: torch.Tensor, counts: list[int], kinds: list[int]) -> torch.Tensor:
    """Each placeholder as many times as it has tokens, as transformers' processor writes it."""
    out, number = [], 0
    for token in ids[0].tolist():
        if token == IMAGE_TOKEN_INDEX:
            out += [kinds[number]] * counts[number]
            number += 1
        else:
            out.append(token)
    return torch.tensor([out])


@torch.no_grad()
def assert_same(model, reference, ids, ours: dict, theirs: dict, counts: list[int], kinds: list[int]) -> None:
    got = model(input_ids=ids, **ours).logits
    long_ids = expanded(ids, counts, kinds)
    want = reference(input_ids=long_ids, attention_mask=torch.ones_like(long_ids), **theirs).logits
    assert got.shape[1] == long_ids.shape[1]
    assert want.std() > 0.5  # logits that differ between tokens, so that an error would show
    torch.testing.assert_close(got, want[..., :VOCABULARY], atol=1e-4, rtol=0)


def test_text_only(model, reference) -> None:
    assert_same(model, reference, prompt(40), {}, {}, [], [])


@pytest.mark.parametrize("frames", [1, 5])
def test_video(model, reference, frames: int) -> None:
    clip = video(frames, cuts=(2,))
    ours = {"images": [clip], "modalities": ["video"]}
    theirs = {"pixel_values_videos": clip[None]}
    assert_same(model, reference, prompt(7, "video", 9), ours, theirs, [frames * 196 + 1], [VIDEO_ID])


def test_two_videos(model, reference) -> None:
    clips = [video(3, seed=1), video(3, seed=5)]
    ours = {"images": clips, "modalities": ["video", "video"]}
    theirs = {"pixel_values_videos": torch.stack(clips)}
    ids = prompt(3, "video", 4, "video", 5)
    assert_same(model, reference, ids, ours, theirs, [3 * 196 + 1] * 2, [VIDEO_ID] * 2)


# One tile, several tiles, wide and tall (unpadding on either side), and one that is shrunk to nine tiles.
@pytest.mark.parametrize("size", [(384, 384), (800, 600), (1500, 300), (250, 900), (2300, 2200), (771, 769)])
def test_any_resolution_image(model, reference, loaded, size: tuple[int, int]) -> None:
    image = picture(*size)
    tiles = process_images([image], loaded[2], model.config)[0]
    ours = {"images": [tiles], "image_sizes": [image.size]}
    theirs = {"pixel_values": tiles[None], "image_sizes": torch.tensor([[image.height, image.width]])}
    with torch.no_grad():
        features = reference.model.get_image_features(**theirs).pooler_output
    assert_same(model, reference, prompt(7, "image", 9), ours, theirs, [features[0].shape[0]], [IMAGE_ID])


def test_single_plain_image_and_two_images(model, reference, loaded) -> None:
    """Several images are not tiled; each keeps its 729 tokens and one newline."""
    model.config.image_aspect_ratio = "pad"
    images = [picture(500, 400), picture(300, 600, seed=1)]
    stacked = process_images(images, loaded[2], model.config)
    sizes = torch.tensor([[image.height, image.width] for image in images])
    ours = {"images": list(stacked), "image_sizes": [image.size for image in images]}
    theirs = {"pixel_values": stacked[:, None], "image_sizes": sizes, "batch_num_images": torch.tensor([2])}
    ids = prompt(3, "image", 4, "image", 5)
    assert_same(model, reference, ids, ours, theirs, [730, 730], [IMAGE_ID] * 2)


def test_image_and_video_in_one_prompt(model, reference, loaded) -> None:
    image, clip = picture(700, 500), video(2)
    tiles = process_images([image], loaded[2], model.config)[0]
    image_sizes = torch.tensor([[image.height, image.width]])
    theirs = {"pixel_values": tiles[None], "image_sizes": image_sizes, "pixel_values_videos": clip[None]}
    with torch.no_grad():
        features = reference.model.get_image_features(tiles[None], image_sizes).pooler_output
    ours = {"images": [tiles, clip], "image_sizes": [image.size, (384, 384)], "modalities": ["image", "video"]}
    counts = [features[0].shape[0], 2 * 196 + 1]
    assert_same(model, reference, prompt(3, "image", 2, "video", 4), ours, theirs, counts, [IMAGE_ID, VIDEO_ID])


def test_both_layouts_load_to_the_same_tensors(model, hf_checkpoint: Path) -> None:
    other = load_pretrained_model(hf_checkpoint, None, "llava_qwen", torch_dtype="float32")[1]
    ours, theirs = model.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name][: tensor.shape[0]]), name


def test_the_image_processor_makes_the_tiles_of_transformers(loaded) -> None:
    """Tiles agree with transformers' own processor up to its rounding of resized pixels."""
    from transformers import LlavaOnevisionImageProcessorPil  # noqa: PLC0415

    image = picture(800, 600)
    model = loaded[1]
    ours = process_images([image], loaded[2], model.config)[0]
    processor = LlavaOnevisionImageProcessorPil(
        size={"height": 384, "width": 384},
        image_grid_pinpoints=model.config.image_grid_pinpoints,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    theirs = torch.as_tensor(np.asarray(processor.preprocess([image], return_tensors="pt")["pixel_values"][0]))
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().mean() < 0.02
