"""Tiny random models and prompts for the tests."""

import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, Qwen2Config, SiglipVisionConfig

from eval.instruments.models.random_checkpoint import tiny_config
from llava.constants import IMAGE_TOKEN_INDEX

IMAGE_ID, VIDEO_ID = 259, 260  # placeholder ids of the Hugging Face layout, behind our vocabulary

# Our (published) names to those of transformers' class in memory; written out by hand, not taken from the library.
_TO_HUGGING_FACE = (
    ("model.vision_tower.vision_tower.vision_model.", "model.vision_tower."),
    ("model.mm_projector.0.", "model.multi_modal_projector.linear_1."),
    ("model.mm_projector.2.", "model.multi_modal_projector.linear_2."),
    ("model.image_newline", "model.image_newline"),
    ("lm_head.", "lm_head."),
    ("model.", "model.language_model."),
)


def hugging_face_config() -> LlavaOnevisionConfig:
    """transformers' configuration of the tiny checkpoint; the vocabulary has two more entries for placeholders."""
    raw = tiny_config()
    vision = {**raw["vision_config"], "num_hidden_layers": raw["vision_config"]["num_hidden_layers"] - 1}
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    text = {name: raw[name] for name in (*names, "max_position_embeddings", "rms_norm_eps", "rope_parameters")}
    return LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**vision, vision_use_head=False),
        text_config=Qwen2Config(**text, vocab_size=raw["vocab_size"] + 2, tie_word_embeddings=False),
        image_token_id=IMAGE_ID,
        video_token_id=VIDEO_ID,
        vision_feature_layer=-1,
        image_grid_pinpoints=raw["image_grid_pinpoints"],
        tie_word_embeddings=False,
    )


def hugging_face_name(name: str) -> str:
    """transformers' name of a published tensor."""
    for ours, theirs in _TO_HUGGING_FACE:
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise AssertionError(name)


def hugging_face_model(checkpoint: Path) -> LlavaOnevisionForConditionalGeneration:
    """transformers' LlavaOnevision with the weights of a tiny checkpoint in the layout of lmms-lab."""
    model = LlavaOnevisionForConditionalGeneration(hugging_face_config()).eval()
    state = {hugging_face_name(name): tensor for name, tensor in load_file(checkpoint / "model.safetensors").items()}
    for name in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
        state[name] = torch.cat([state[name], torch.zeros(2, state[name].shape[1])])
    model.load_state_dict(state, strict=True)
    return model


def save_hugging_face(checkpoint: Path, folder: Path) -> Path:
    """Write the Hugging Face layout with transformers' own ``save_pretrained``."""
    hugging_face_model(checkpoint).save_pretrained(folder)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        shutil.copy(checkpoint / name, folder / name)
    return folder


def pixels(*shape: int, seed: int = 0) -> Tensor:
    """Smooth random pictures in [-1, 1]: (..., 3, 384, 384)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(max(1, math.prod(shape)), 3, 12, 12, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=384, mode="bilinear")
    return smooth.clamp(-1, 1).view(*shape, 3, 384, 384)


def video(frames: int, seed: int = 0, cuts: tuple[int, ...] = ()) -> Tensor:
    """A clip with a still background, a moving patch and cuts: (frames, 3, 384, 384)."""
    scenes = pixels(len(cuts) + 1, seed=seed)
    patch = pixels(1, seed=seed + 1)[0][:, :96, :96]
    clip = []
    for frame in range(frames):
        picture = scenes[sum(frame >= cut for cut in cuts)].clone()
        at = (37 * frame) % 280
        picture[:, at : at + 96, at : at + 96] = patch
        clip.append(picture)
    return torch.stack(clip)


def prompt(*pieces: int | str, seed: int = 0) -> Tensor:
    """Token ids (1, text): a number stands for that many random text tokens, a string for one placeholder."""
    generator = torch.Generator().manual_seed(seed)
    ids = [
        torch.randint(0, 250, (piece,), generator=generator)
        if isinstance(piece, int)
        else torch.tensor([IMAGE_TOKEN_INDEX])
        for piece in pieces
    ]
    return torch.cat(ids)[None]


def greedily(model: nn.Module, ids: Tensor, steps: int, **inputs: Any) -> Any:
    """``generate`` for exactly ``steps`` greedy tokens, with the logits of each."""
    options = {"max_new_tokens": steps, "do_sample": False, "eos_token_id": None, "pad_token_id": 256}
    return model.generate(ids, return_dict_in_generate=True, output_logits=True, **options, **inputs)


@contextmanager
def seen_calls(decoder: nn.Module) -> Iterator[list[dict[str, Any]]]:
    """Keyword arguments of every call of a decoder inside a ``with`` block, as the hooks before leave them."""
    calls: list[dict[str, Any]] = []

    def see(decoder: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        calls.append(kwargs)

    with decoder.register_forward_pre_hook(see, with_kwargs=True):
        yield calls


def hook_count(model: nn.Module) -> int:
    """Hooks of every kind on every module."""
    kinds = [name for name in vars(model) if name.endswith("hooks") and isinstance(vars(model)[name], dict)]
    assert len(kinds) >= 6
    return sum(len(vars(module).get(kind) or ()) for module in model.modules() for kind in kinds)
