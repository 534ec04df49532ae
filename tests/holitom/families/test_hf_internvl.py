"""Which pictures of InternVL's prompts are frames, and what it refuses; the rest is in test_hf_plain_positions."""

import warnings
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor, nn
from transformers import InternVLProcessor, Qwen2Tokenizer

from holitom.families import hf_internvl
from holitom.hooks.call_names import cache_of, release_names
from holitom.hooks.prompt.pictures_layout import PicturesLayout
from holitom.hooks.prompt.prompt_layout import TowerCall
from holitom.methods.holitom import HolitomConfig
from holitom.methods.holitom.config import InnerConfig, OuterConfig
from llava.errors import InputError
from tests.holitom.families.refusals import refuses
from tests.tiny_models import hook_count
from tests.tiny_qwen_vl import END_ID, FIRST_SPECIAL, IMAGE_ID, START_ID, TEXT
from tests.tiny_video_models import CLIP_TOKENS, FRAMES, alone, clip_video, inputs_of, tiny_video_model

CONFIG = HolitomConfig(OuterConfig(retain_ratio=0.4, similarity_threshold=0.8), None)
TEXT_ONLY = list(range(FIRST_SPECIAL, TEXT["vocab_size"]))  # random weights would write pictures


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """A tiny random model; it registers capturing hooks of its own in its first call."""
    made = tiny_video_model("internvl")
    made(**inputs_of("internvl", [[5, "video", 7]]))
    return made


@pytest.fixture(autouse=True)
def untouched(model):
    """No test leaves a hook or a compressor behind."""
    hooks = hook_count(model)
    yield
    assert hook_count(model) == hooks
    assert "visual_compressor" not in vars(model)


def frame(*number: int) -> list[int]:
    """A frame as it is written, its label first."""
    return [7, START_ID, *number, END_ID, START_ID, *image()]


def image(tiles: int = 1) -> list[int]:
    return [IMAGE_ID] * (tiles * CLIP_TOKENS)


def prompt(*parts: list[int]) -> dict[str, Tensor]:
    """One prompt that begins and ends with text, and a different picture for every tile in it."""
    ids = torch.tensor([[3, 4, *(each for part in parts for each in part), 5, 6]])
    tiles = int((ids == IMAGE_ID).sum()) // CLIP_TOKENS
    return {"input_ids": ids, "pixel_values": torch.cat([clip_video(n)[:1] for n in range(tiles)])}


COUNTED = {
    "a frame": ([frame(1)], [1]),
    "frames": ([frame(1), frame(2), frame(1, 0)], [3]),
    "two videos without text between them": ([frame(1), frame(2), frame(1), frame(2), frame(3)], [2, 3]),
    "text within a video": ([frame(1), [8, 9, 8], frame(2)], [2]),
    "an image of one tile between two videos": ([frame(4), frame(5), [8], image(), frame(1), frame(2)], [2, 2]),
    "an image before and one behind": ([image(2), frame(1), frame(2), [9], image()], [2]),
    "several tiles behind a label": ([frame(1), frame(2)[:-CLIP_TOKENS], image(2), [9], frame(3)], [1, 1]),
    "another word before the number": ([frame(1), [7, 8, 2, END_ID, START_ID], image()], [1]),
    "no number": ([frame(1), [START_ID, END_ID, START_ID], image()], [1]),
    "another end of the label": ([frame(1), [START_ID, 2, END_ID], image()], [1]),
    "too long for a number": ([frame(1), frame(*range(7))], [1]),
    "the longest number": ([frame(1), frame(*range(6))], [2]),
    "images alone": ([image(), [8], image(2)], []),
}


@pytest.mark.parametrize(("parts", "frames"), COUNTED.values(), ids=COUNTED)
def test_labels_tell_frames_from_images(model, parts: list, frames: list[int]) -> None:
    """Frames are those of the tiles at these places: what is kept without compression of tokens are their features."""
    inputs = prompt(*parts)
    features = model.model.get_image_features(pixel_values=inputs["pixel_values"]).pooler_output
    before = model(**inputs).logits
    whole = HolitomConfig(OuterConfig(retain_ratio=1.0, similarity_threshold=1.0), None)
    with whole.build().applied(model) as compressor:
        after, videos = model(**inputs).logits, compressor.record.videos if frames else ()
    assert [len(video.index) for video in videos] == [count * CLIP_TOKENS for count in frames]
    torch.testing.assert_close(after, before, atol=2e-5, rtol=0)
    for video in videos:  # one after the other in the tower
        first = int((features[:, 0] - video.features[0]).abs().sum(-1).argmin())
        own = features[first : first + len(video.index) // CLIP_TOKENS].flatten(0, 1)
        torch.testing.assert_close(video.features, own)


@torch.no_grad()
def test_signals_are_those_of_normed_queries_and_keys() -> None:
    """Against transformers' own eager attention, and against the keys that the last layer norms."""
    made = tiny_video_model("internvl")
    made.model.vision_tower.set_attn_implementation("eager")
    recorders = [hf_internvl.recorder(made, name) for name in ("received_attention", "key_metric")]
    with recorders[0].recording(), recorders[1].recording():
        out = made.model.vision_tower(pixel_values=clip_video(0), output_attentions=True, output_hidden_states=True)
    torch.testing.assert_close(recorders[0].take(), out.attentions[-1].mean((1, 2)), atol=1e-6, rtol=1e-5)
    layer = made.model.vision_tower.encoder.layer[-1]
    keys = layer.attention.k_norm(layer.attention.k_proj(layer.layernorm_before(out.hidden_states[-2])))
    torch.testing.assert_close(recorders[1].take(), (keys[..., :16] + keys[..., 16:]) / 2)


def test_the_label_is_what_the_processor_writes(model) -> None:
    """Its own text, by a tokenizer of Qwen2's that knows bytes alone, with the label as the message says to set it."""
    tokenizer = Qwen2Tokenizer(vocab={mark: n for n, mark in enumerate(sorted(ByteLevel.alphabet()))}, merges=[])
    tokenizer.add_tokens(["<img>", "</img>", "<IMG_CONTEXT>"], special_tokens=True)
    marks = {"start_image_token": "<img>", "end_image_token": "</img>", "image_token": "<IMG_CONTEXT>"}
    processor = SimpleNamespace(**marks, image_seq_length=CLIP_TOKENS)
    pixels = {"pixel_values_videos": clip_video(0).repeat(2, 1, 1, 1)[None]}  # twelve frames, two digits in some
    text = InternVLProcessor.replace_video_token(processor, pixels, 0)
    encode = partial(tokenizer.encode, add_special_tokens=False)
    label = [encode(part) for part in ("Frame", ": <img>")]
    config = SimpleNamespace(frame_label_ids=label, image_token_id=encode("<IMG_CONTEXT>")[0])
    layout = PicturesLayout(SimpleNamespace(config=config, model=model.model), 4, 4, 2)
    image = "\n<img>" + CLIP_TOKENS * "<IMG_CONTEXT>" + "</img>"
    ids = torch.tensor([encode(f"user\n{text}\n{text}{image}\nIn which Frame: is it?")])
    arguments = layout.view({"input_ids": ids, "pixel_values": torch.zeros(25, 3, 16, 16)})
    grids = layout.grids(arguments, TowerCall(25, {}, {}))
    assert [(grid.frames, grid.pieces, grid.tokens) for grid in grids] == 2 * [(12, 12, CLIP_TOKENS)]


def test_beams_in_a_batch_are_those_alone(model) -> None:
    rows = [[5, "video", 7, "image", 3], [4, "video", 2, "video", 6]]
    options: dict[str, Any] = {"num_beams": 3, "max_new_tokens": 4, "do_sample": False, "suppress_tokens": TEXT_ONLY}
    inner = HolitomConfig(CONFIG.outer, InnerConfig(merge_layer=4))
    with inner.build().applied(model):
        together = model.generate(**inputs_of("internvl", rows), **options)
        for number in range(2):
            single = model.generate(**alone("internvl", rows, number), **options)
            assert together[number, -4:].tolist() == single[0, -4:].tolist()


def test_labels_train_as_cut_by_hand(model) -> None:
    """The loss is that of the tokens that are left: text alone is asked for."""
    inputs = inputs_of("internvl", [[5, "video", 7]])
    labels = inputs["input_ids"].masked_fill(inputs["input_ids"] >= FIRST_SPECIAL, -100)
    labels[:, :-7] = -100
    with CONFIG.build().applied(model):
        out = model(**inputs, labels=labels)
        logits = model(**inputs).logits
    want = nn.functional.cross_entropy(logits[0, -8:-1], labels[0, -7:])
    torch.testing.assert_close(out.loss, want)


LABEL = "model.config.frame_label_ids = "


@pytest.mark.parametrize("label", [None, [], [[1], []], [[1], [2], [3]], ["Frame", ": "], 5, [[1.0], [2]]], ids=str)
def test_without_the_label_nothing_is_applied(model, label) -> None:
    published = model.config.frame_label_ids
    model.config.frame_label_ids = label
    try:
        with pytest.raises(InputError, match=LABEL) as error:
            CONFIG.build().apply(model)
    finally:
        model.config.frame_label_ids = published
    assert "\n" not in str(error.value)
    assert "tokenizer.encode(text, add_special_tokens=False) for text in ('Frame', ': <img>')" in str(error.value)


def test_what_the_family_refuses(model) -> None:
    compressor, inputs = CONFIG.build(), inputs_of("internvl", [[5, "video", 7]])
    settings = {"vision_feature_layer": -2, "vision_feature_select_strategy": "full"}
    refuses(model, compressor, settings, head="leave it out")
    ids, embeds = inputs["input_ids"], model.get_input_embeddings()(inputs["input_ids"])
    first = ids[0].tolist().index(IMAGE_ID)
    with compressor.applied(model):
        with pytest.raises(InputError, match=f"has {FRAMES * CLIP_TOKENS} video placeholder.*pass pixel_values"):
            model(input_ids=ids)
        with pytest.raises(InputError, match=f"has {CLIP_TOKENS - 1} placeholders: it must be a multiple of the 16"):
            model(input_ids=ids[:, torch.arange(ids.shape[1]) != first], pixel_values=inputs["pixel_values"])
        with pytest.raises(InputError, match="logits_to_keep must be a number"):
            model(**inputs, logits_to_keep=torch.tensor([3]))
        with pytest.raises(InputError, match="without input_ids"):
            model(inputs_embeds=embeds, pixel_values=inputs["pixel_values"])
        cache = cache_of(model(**inputs))
        with pytest.raises(NotImplementedError, match="a video in a later turn"):
            model(**prompt(frame(1)), **{release_names().call: cache})


def test_frames_behind_another_label_are_told_of(model) -> None:
    """They look like small images; one image is no video."""
    other = [[8, number, *image()] for number in (1, 2, 3)]
    with CONFIG.build().applied(model), torch.no_grad():
        with pytest.warns(UserWarning, match="3 pictures of one tile, and none behind the label"):
            model(**prompt(*other))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model(**prompt([9], image()))
