"""Tiny random Qwen2-VL and Qwen2.5-VL of transformers' own classes, and prompts as their processor writes them."""

from typing import Any

import torch
from torch import Tensor
from transformers import (
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
)

IMAGE_ID, VIDEO_ID, START_ID, END_ID, PAD_ID = 90, 91, 92, 93, 94
FIRST_SPECIAL, SECONDS = 90, 2
PATCH, MERGE, WINDOW = 4, 2, 2  # a window is WINDOW x WINDOW merged patches
Grid = tuple[int, int, int]  # temporal steps, rows and columns of patches

TEXT = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
    "bos_token_id": 95,
    "eos_token_id": 95,
    "pad_token_id": PAD_ID,
}
VISION = {"depth": 4, "num_heads": 2, "patch_size": PATCH, "spatial_merge_size": MERGE, "initializer_range": 0.3}
IDS = {
    "image_token_id": IMAGE_ID,
    "video_token_id": VIDEO_ID,
    "vision_start_token_id": START_ID,
    "vision_end_token_id": END_ID,
    "tie_word_embeddings": False,
}


def tiny_qwen_vl(family: str) -> PreTrainedModel:
    """A tiny model with random weights.

    Args:
        family: ``qwen2_5_vl``, whose last block without windows is not the last one, ``qwen2_vl``, ``qwen3_vl`` or
            ``qwen3_vl_moe``, which bring features for the first three decoder layers.
    """
    torch.manual_seed(0)
    if family.startswith("qwen3_vl"):
        model = _qwen3_vl(family)
    elif family == "qwen2_5_vl":
        vision = {
            **VISION,
            "hidden_size": 32,
            "intermediate_size": 48,
            "out_hidden_size": 64,
            "window_size": WINDOW * MERGE * PATCH,
            "fullatt_block_indexes": [0, 2],
            "tokens_per_second": 2,
        }
        model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=TEXT, vision_config=vision, **IDS))
    else:
        vision = {**VISION, "embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2}
        model = Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=TEXT, vision_config=vision, **IDS))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return model.eval().requires_grad_(False)


def _qwen3_vl(family: str) -> PreTrainedModel:
    vision = {
        **VISION,
        "hidden_size": 32,
        "intermediate_size": 48,
        "out_hidden_size": 64,
        "num_position_embeddings": 36,
        "deepstack_visual_indexes": [0, 1, 2],
    }
    rope = {**TEXT["rope_parameters"], "mrope_interleaved": True}
    text = {**TEXT, "head_dim": 16, "rope_parameters": rope}
    if family == "qwen3_vl":
        return Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision, **IDS))
    experts = {"moe_intermediate_size": 48, "num_experts_per_tok": 2, "num_local_experts": 4}
    config = Qwen3VLMoeConfig(text_config={**text, **experts}, vision_config=vision, **IDS)
    return Qwen3VLMoeForConditionalGeneration(config)


def patches(grid: Grid, seed: int = 0) -> Tensor:
    """Packed patches of an image or a video: most of them stand still, a third moves, one cut in the middle."""
    steps, rows, cols = grid
    generator = torch.Generator().manual_seed(seed)
    shape = (rows * cols // MERGE**2, MERGE**2, 3 * 2 * PATCH**2)
    scenes, frames = torch.randn(2, *shape, generator=generator), []
    moving = torch.rand(shape[0], generator=generator) < 0.35
    for step in range(steps):
        frame = scenes[int(2 * step >= steps > 3)] + 0.02 * torch.randn(shape, generator=generator)
        frame[moving] = torch.randn(int(moving.sum()), *shape[1:], generator=generator)
        frames.append(frame.flatten(0, 1))
    return torch.cat(frames)


def tokens_of(grid: Grid) -> int:
    """Tokens of an image or a video before compression."""
    return grid[0] * grid[1] * grid[2] // MERGE**2


def written(row: list[Any], timestamps: bool) -> list[Any]:
    """The pieces of a prompt as the processor writes them: numbers of text tokens, images and videos.

    With timestamps, as Qwen3-VL has them, a video is written frame by frame, ``("frame", grid, frame)``, each between a
    timestamp of two or three tokens with a mark and another mark.
    """
    if not timestamps:
        return row
    pieces: list[Any] = []
    for piece in row:
        if isinstance(piece, int) or piece[0] == "image":
            pieces.append(piece)
        else:
            for frame in range(piece[1][0]):
                pieces += [3 + frame % 2, ("frame", piece[1], frame), 1]
    return pieces


def inputs_of(rows: list[list[Any]], seconds: bool = True, timestamps: bool = False) -> dict[str, Any]:
    """What the processor returns: left-padded ids with one placeholder per token, and the pixels.

    Args:
        rows: one per prompt; a number stands for that many text tokens, ``("video", grid)`` and ``("image", grid)`` for
            a visual input.
        seconds: give the time between temporal steps (Qwen2.5-VL alone knows it).
        timestamps: write them, see :func:`written`.
    """
    generator = torch.Generator().manual_seed(5)
    ids: list[Tensor] = []
    found: dict[str, list[Grid]] = {"video": [], "image": []}
    for row in rows:
        parts = []
        for piece in row:
            if not isinstance(piece, int):
                found[piece[0]].append(piece[1])
        for piece in written(row, timestamps):
            if isinstance(piece, int):
                parts.append(torch.randint(0, FIRST_SPECIAL, (piece,), generator=generator))
                if timestamps and len(parts) > 1:  # behind an image or a frame
                    parts[-1][0] = END_ID
            else:
                parts[-1][-1] = START_ID  # transformers 5.17 counts inputs by it
                count = tokens_of(piece[1]) // (piece[1][0] if piece[0] == "frame" else 1)
                parts.append(torch.full((count,), IMAGE_ID if piece[0] == "image" else VIDEO_ID))
        ids.append(torch.cat(parts))
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=PAD_ID, padding_side="left")
    inputs: dict[str, Any] = {"input_ids": padded, "attention_mask": padded.ne(PAD_ID).long()}
    inputs["mm_token_type_ids"] = (padded == IMAGE_ID).int() + 2 * (padded == VIDEO_ID).int()
    names = {"video": ("pixel_values_videos", "video_grid_thw"), "image": ("pixel_values", "image_grid_thw")}
    for kind, grids in found.items():
        if grids:
            pixels, sizes = names[kind]
            inputs[pixels] = torch.cat([patches(grid, seed=7 * n + len(kind)) for n, grid in enumerate(grids)])
            inputs[sizes] = torch.tensor(grids)
    if seconds and found["video"]:
        inputs["second_per_grid_ts"] = torch.tensor([float(SECONDS)] * len(found["video"]))
    return inputs
