"""Small checkpoints, clips and methods that the tests of serving share."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import LlavaOnevisionForConditionalGeneration

from eval.instruments.clips import draw_clip, picture
from eval.instruments.models.cut_checkpoint import make_cut_checkpoint
from eval.instruments.models.random_checkpoint import (
    LAYOUTS,
    randomize,
    tiny_config,
    write_checkpoint,
    write_tokenizer,
)
from holitom.compressor import Compressor
from holitom.serving import VideoRequest
from holitom.serving.requests import read_clip
from holitom.settings import parse_config
from llava.asking import VideoPrompt
from llava.model.language_model.llava_qwen import LlavaQwenConfig, LlavaQwenForCausalLM
from tests.tiny_models import hugging_face_config, hugging_face_name

# what stands before the LLM alone, with and without side signals of the tower
METHODS: dict[str, dict[str, Any] | None] = {
    "vanilla": None,
    "holitom": {"method": "holitom", "outer": {"retain_ratio": 0.15}, "inner": None},
    "visionzip": {"method": "visionzip", "tokens_per_frame": 30, "dominant_share": 0.8},
    "uniform": {"method": "uniform", "retain_ratio": 0.1},
}
EARLYTOM = {"method": "earlytom", "tower_layers": [0], "max_frames": 3, "inner": None}
NEW_TOKENS = 8


def small_checkpoint(folder: Path, layout: str = "llava-onevision") -> Path:
    """The tiny random geometry with heads of 32 channels, the fewest that vLLM has an attention for on a CPU."""
    raw = {**tiny_config(layers=3, tower_layers=3), **LAYOUTS[layout], "num_attention_heads": 2}
    return _write(folder, {**raw, "num_key_value_heads": 1})


def hugging_face_copy(checkpoint: Path, folder: Path) -> Path:
    """The same weights as transformers' own class writes them."""
    raw = json.loads((checkpoint / "config.json").read_text())
    config = hugging_face_config()
    for name in ("num_hidden_layers", "num_attention_heads", "num_key_value_heads"):
        setattr(config.text_config, name, raw[name])
    config.text_config.layer_types = ["full_attention"] * raw["num_hidden_layers"]
    config.text_config.vocab_size = raw["vocab_size"]
    model = LlavaOnevisionForConditionalGeneration(config).eval()
    stored = load_file(checkpoint / "model.safetensors")
    model.load_state_dict({hugging_face_name(name): tensor for name, tensor in stored.items()}, strict=True)
    model.save_pretrained(folder)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "generation_config.json"):
        (folder / name).write_bytes((checkpoint / name).read_bytes())
    return folder


def half_billion_checkpoint(folder: Path) -> Path:
    """The geometry of LLaVA-OneVision-0.5B, tied embeddings included, cut to 2 decoder and 2 tower layers."""
    return make_cut_checkpoint(folder, "llava-onevision-0.5b", 2, 2, seed=3)


def _write(folder: Path, raw: dict[str, Any]) -> Path:
    config = LlavaQwenConfig(**{key: value for key, value in raw.items() if key != "model_type"})
    config._attn_implementation = "sdpa"
    with torch.device("meta"):
        model = LlavaQwenForCausalLM(config)
    model = model.to_empty(device="cpu")
    model.tie_weights()
    randomize(model, seed=3)
    folder.mkdir(parents=True, exist_ok=True)
    write_checkpoint(folder, model.state_dict(), raw)
    write_tokenizer(folder)
    return folder


def frames(count: int, seed: int) -> np.ndarray:
    """A drawn clip, uint8 (count, height, width, 3)."""
    clip = draw_clip(random.Random(seed))
    return np.stack([picture(clip, number * 23 // max(1, count - 1)) for number in range(count)])


def compressor_of(method: Any) -> Compressor | None:
    """A fresh compressor with the settings of a request."""
    return parse_config({"compressor": method}).build()


def our_question(loaded: tuple[Any, ...], request: VideoRequest) -> VideoPrompt:
    """The same question for our own runtime."""
    tokenizer, model, processor, _ = loaded
    return VideoPrompt(tokenizer, model, read_clip(request.video, 8), processor, request.question)


def our_tokens(loaded: tuple[Any, ...], request: VideoRequest, new_tokens: int = NEW_TOKENS) -> list[int]:
    """Greedy tokens of our own runtime."""
    compressor = compressor_of(request.method)
    question = our_question(loaded, request)
    if compressor is None:
        return question.generate(new_tokens)[0].tolist()
    with compressor.applied(loaded[1]):
        return question.generate(new_tokens)[0].tolist()
