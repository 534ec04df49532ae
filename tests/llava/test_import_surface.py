"""Every name lmms-eval 0.7 imports: it swallows an ImportError and fails much later with a NameError."""

import importlib

import numpy as np
import pytest
import torch
from PIL import Image

from llava.conversation import SeparatorStyle, conv_templates
from llava.errors import InputError
from llava.mm_utils import (
    KeywordsStoppingCriteria,
    get_model_name_from_path,
    process_images,
    tokenizer_image_token,
)


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (
            "llava.constants",
            "IGNORE_INDEX IMAGE_TOKEN_INDEX DEFAULT_IMAGE_TOKEN DEFAULT_IM_START_TOKEN DEFAULT_IM_END_TOKEN",
        ),
        ("llava.conversation", "SeparatorStyle conv_templates"),
        ("llava.mm_utils", "KeywordsStoppingCriteria get_model_name_from_path tokenizer_image_token process_images"),
        ("llava.model.builder", "load_pretrained_model"),
        ("llava.model.language_model.llava_llama", "LlavaConfig"),
        ("llava.model.language_model.llava_qwen", "LlavaQwenConfig"),
    ],
)
def test_names(module: str, names: str) -> None:
    found = importlib.import_module(module)
    assert all(hasattr(found, name) for name in names.split())


def test_model_types_of_the_configurations() -> None:
    from llava.model.language_model.llava_llama import LlavaConfig  # noqa: PLC0415
    from llava.model.language_model.llava_qwen import LlavaQwenConfig  # noqa: PLC0415

    assert LlavaConfig.model_type == "llava_llama"
    assert LlavaQwenConfig.model_type == "llava_qwen"
    assert SeparatorStyle.TWO in SeparatorStyle


def test_qwen_prompt() -> None:
    conversation = conv_templates["qwen_1_5"].copy()
    conversation.append_message(conversation.roles[0], "<image>\nWhat?")
    conversation.append_message(conversation.roles[1], None)
    assert conversation.get_prompt() == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<image>\nWhat?<|im_end|>\n<|im_start|>assistant\n"
    )
    conversation.messages[-1][1] = "Fine."
    assert conversation.get_prompt().endswith("<|im_start|>assistant\nFine.<|im_end|>\n")
    assert conv_templates["qwen_1_5"].messages == []


def test_vicuna_prompt() -> None:
    conversation = conv_templates["vicuna_v1"].copy()
    conversation.append_message(conversation.roles[0], "Hi")
    conversation.append_message(conversation.roles[1], "Yes")
    conversation.append_message(conversation.roles[0], "Bye")
    conversation.append_message(conversation.roles[1], None)
    assert conversation.get_prompt().endswith(
        "answers to the user's questions. USER: Hi ASSISTANT: Yes</s>USER: Bye ASSISTANT:"
    )
    assert (conversation.sep, conversation.sep2, conversation.sep_style) == (" ", "</s>", SeparatorStyle.TWO)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("lmms-lab/llava-onevision-qwen2-7b-ov", "llava-onevision-qwen2-7b-ov"),
        ("a/run/checkpoint-50/", "run_checkpoint-50"),
    ],
)
def test_model_names(path: str, name: str) -> None:
    assert get_model_name_from_path(path) == name


def test_placeholders_are_tokenised_apart(loaded) -> None:
    tokenizer = loaded[0]
    ids = tokenizer_image_token("ab<image>\nc<image>", tokenizer, -200, return_tensors="pt")
    parts = [tokenizer("ab").input_ids, [-200], tokenizer("\nc").input_ids, [-200]]
    assert ids.tolist() == [token for part in parts for token in part]
    assert ids.dtype == torch.long
    with pytest.raises(InputError):
        tokenizer_image_token("ab", tokenizer, return_tensors="np")


def test_stopping_needs_no_prompt_and_is_per_row(loaded) -> None:
    tokenizer = loaded[0]
    criteria = KeywordsStoppingCriteria(["END"], tokenizer, torch.zeros(1, 900))
    rows = [tokenizer("so END").input_ids, tokenizer("ENDing").input_ids]
    assert criteria(torch.tensor(rows), None).tolist() == [True, False]
    assert criteria(torch.tensor([tokenizer("E").input_ids]), None).tolist() == [False]


@pytest.mark.parametrize(
    ("rule", "shape"), [("pad", (2, 3, 384, 384)), ("square", (2, 3, 384, 384)), (None, (2, 3, 384, 384))]
)
def test_process_images_stacks_plain_images(loaded, rule, shape) -> None:
    _, model, processor, _ = loaded
    model.config.image_aspect_ratio = rule
    images = [Image.new("RGB", (100, 50), (255, 0, 0)), Image.new("L", (30, 60))]
    assert process_images(images, processor, model.config).shape == shape


def test_padding_keeps_the_shape_of_an_image_and_is_grey(loaded) -> None:
    _, model, processor, _ = loaded
    model.config.image_aspect_ratio = "pad"
    out = process_images([Image.new("RGB", (384, 192), (255, 255, 255))], processor, model.config)[0]
    assert out[:, 192, 192].tolist() == [1, 1, 1]
    assert out[:, 10, 192].abs().max() < 0.01


def test_unknown_rule(loaded) -> None:
    _, model, processor, _ = loaded
    model.config.image_aspect_ratio = "highres"
    with pytest.raises(InputError, match="highres"):
        process_images([Image.new("RGB", (9, 9))], processor, model.config)


def test_a_pinpoint_range_is_spelled_out(loaded) -> None:
    _, model, processor, _ = loaded
    image = Image.fromarray(np.zeros((400, 800, 3), dtype=np.uint8))
    listed = process_images([image], processor, model.config)
    model.config.image_grid_pinpoints = "(1x1),...,(6x6)"
    assert torch.equal(process_images([image], processor, model.config), listed)
