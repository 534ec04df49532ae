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
    """``qwen2_5_vl``, whose last block without windows is not the last one, or ``qwen2_vl``; the weights are random."""
    torch.manual_seed(0)
    if family == "qwen2_5_vl":
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


def inputs_of(rows: list[list[Any]], seconds: bool = True) -> dict[str, Any]:
    """What the processor returns: left-padded ids with one placeholder per token, and the pixels.

    Args:
        rows: one per prompt; a number stands for that many text tokens, ``("video", grid)`` and ``("image", grid)`` for
            a visual input.
        seconds: give the time between temporal steps (Qwen2.5-VL alone knows it).
    """
    generator = torch.Generator().manual_seed(5)
    ids: list[Tensor] = []
    found: dict[str, list[Grid]] = {"video": [], "image": []}
    for row in rows:
        parts = []
        for piece in row:
            if isinstance(piece, int):
                parts.append(torch.randint(0, FIRST_SPECIAL, (piece,), generator=generator))
            else:
                kind, grid = piece
                found[kind].append(grid)
                parts.append(torch.full((tokens_of(grid),), VIDEO_ID if kind == "video" else IMAGE_ID))
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
