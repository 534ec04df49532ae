"""Tiny random LLaVA-NeXT-Video, VideoLLaMA3 and InternVL of transformers' own classes, and prompts as processors write.

A row of a prompt is a list of numbers, which stand for so many text tokens, and of ``"video"`` and ``"image"``.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlamaConfig,
    LlavaNextVideoConfig,
    LlavaNextVideoForConditionalGeneration,
    PreTrainedModel,
    Qwen2Config,
    VideoLlama3Config,
    VideoLlama3ForConditionalGeneration,
)

from tests.tiny_qwen_vl import (
    END_ID,
    FIRST_SPECIAL,
    IMAGE_ID,
    PAD_ID,
    PATCH,
    START_ID,
    TEXT,
    VIDEO_ID,
    patches,
    tokens_of,
)

FAMILIES = ["llava_next_video", "video_llama_3", "internvl"]
FRAMES, SIDE, CLIP_TOKENS, CLIP_IMAGE = 6, 16, 16, 136  # of LLaVA-NeXT-Video and, in part, InternVL
TILES = 2  # of InternVL's images
GRIDS = [(6, 8, 12), (5, 10, 6), (8, 8, 8)]  # of VideoLLaMA3's videos, in turn: no two alike
PICTURE = (1, 6, 8)
PLAIN = {**{key: value for key, value in TEXT.items() if key != "rope_parameters"}, "rope_theta": 10000.0}
Piece = int | tuple[str, int, int]  # text; or an image or a video: its kind, frames and tokens of each


def tiny_video_model(family: str) -> PreTrainedModel:
    """A tiny model with random weights, biases included."""
    torch.manual_seed(0)
    ids = {"tie_word_embeddings": False}
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 2}
    if family == "llava_next_video":
        clip = CLIPVisionConfig(**vision, image_size=SIDE, patch_size=2, initializer_range=0.3)
        config = LlavaNextVideoConfig(
            vision_config=clip,
            text_config=LlamaConfig(**PLAIN),
            image_token_index=IMAGE_ID,
            video_token_index=VIDEO_ID,
            image_grid_pinpoints=[[SIDE, SIDE]],
            **ids,
        )
        model = LlavaNextVideoForConditionalGeneration(config)
    elif family == "internvl":
        sizes = {"image_size": SIDE, "patch_size": 2, "layer_scale_init_value": 1.0, "initializer_range": 0.3}
        config = InternVLConfig(
            vision_config={**vision, **sizes, "attention_bias": True, "use_qk_norm": True, "norm_type": "rms_norm"},
            text_config=Qwen2Config(**PLAIN),
            image_token_id=IMAGE_ID,
            frame_label_ids=[[START_ID], [END_ID, START_ID]],
            **ids,
        )
        model = InternVLForConditionalGeneration(config)
    else:
        config = VideoLlama3Config(
            vision_config={**vision, "patch_size": PATCH, "initializer_range": 0.3},
            text_config=Qwen2Config(**PLAIN),
            image_token_id=IMAGE_ID,
            video_token_id=VIDEO_ID,
            **ids,
        )
        model = VideoLlama3ForConditionalGeneration(config)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "position_embedding" in name:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
        if name.endswith(("q_norm.weight", "k_norm.weight")):
            parameter.data += 0.5 * torch.rand(parameter.shape, generator=generator)
        if "multi_modal_projector" in name or "projector" in name:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return model.eval().requires_grad_(False)


def clip_video(seed: int) -> Tensor:
    """A clip (frames, 3, 16, 16): half the picture stands still up to a cut, the rest moves."""
    generator = torch.Generator().manual_seed(seed)
    scenes, frames = torch.randn(2, 3, SIDE, SIDE, generator=generator), []
    for number in range(FRAMES):
        frame = scenes[int(number >= FRAMES // 2)] + 0.02 * torch.randn(3, SIDE, SIDE, generator=generator)
        frame[:, :, SIDE // 2 :] = torch.randn(3, SIDE, SIDE // 2, generator=generator)
        frames.append(frame)
    return torch.stack(frames)


def pieces_of(family: str, rows: list[list[Any]]) -> list[list[Piece]]:
    """The pieces of every row with the sizes of its images and videos."""
    found, videos = [], 0
    for row in rows:
        pieces: list[Piece] = []
        for piece in row:
            if piece == "video":
                grid = GRIDS[videos % len(GRIDS)]
                sizes = (grid[0], tokens_of(grid) // grid[0]) if family == "video_llama_3" else (FRAMES, CLIP_TOKENS)
                pieces.append(("video", *sizes))
                videos += 1
            elif piece == "image":
                images = {"llava_next_video": CLIP_IMAGE, "internvl": TILES * CLIP_TOKENS}
                pieces.append(("image", 1, images.get(family, tokens_of(PICTURE))))
            else:
                pieces.append(piece)
        found.append(pieces)
    return found


def with_times(family: str, row: list[Piece]) -> list[Any]:
    """A row as it is written: videos as ``("frame", frame, tokens)`` with a time or a label before each, if any."""
    if family == "llava_next_video":
        return row
    written: list[Any] = []
    for piece in row:
        if isinstance(piece, int) or piece[0] == "image":
            written.append(piece)
        else:
            for frame in range(piece[1]):
                written += [2 + frame % 2 if family == "video_llama_3" else 5, ("frame", frame, piece[2])]
    return written


def inputs_of(family: str, rows: list[list[Any]]) -> dict[str, Any]:
    """What the processor returns."""
    generator, ids = torch.Generator().manual_seed(5), []
    for row in pieces_of(family, rows):
        parts = []
        for piece in with_times(family, row):
            if isinstance(piece, int):
                parts.append(torch.randint(0, FIRST_SPECIAL, (piece,), generator=generator))
            else:
                count = piece[2] if piece[0] == "frame" else piece[1] * piece[2]
                apart = piece[0] != "image" and family != "internvl"
                parts.append(torch.full((count,), VIDEO_ID if apart else IMAGE_ID))
                if family == "internvl" and piece[0] == "frame":
                    parts[-2][1:] = torch.tensor([START_ID, piece[1], END_ID, START_ID])
        ids.append(torch.cat(parts))
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=PAD_ID, padding_side="left")
    inputs: dict[str, Any] = {"input_ids": padded, "attention_mask": padded.ne(PAD_ID).long()}
    videos, images = (sum(row.count(kind) for row in rows) for kind in ("video", "image"))
    if family == "llava_next_video":
        if videos:
            inputs["pixel_values_videos"] = torch.stack([clip_video(number) for number in range(videos)])
        if images:
            inputs["pixel_values"] = clip_video(99)[:1].expand(images, 2, -1, -1, -1)
            inputs["image_sizes"] = torch.full((images, 2), SIDE)
        return inputs
    if family == "internvl":
        inputs["pixel_values"] = torch.cat(internvl_pictures(rows))
        return inputs
    kinds = {"video": [GRIDS[n % len(GRIDS)] for n in range(videos)], "image": [PICTURE] * images}
    names = {"video": "pixel_values_videos", "image": "pixel_values"}
    for kind, grids in kinds.items():
        if grids:
            own = [patches(grid, seed=7 * n + len(kind))[:, : 3 * PATCH**2] for n, grid in enumerate(grids)]
            inputs[names[kind]] = torch.cat(own)
            inputs[f"{kind}_grid_thw"] = torch.tensor(grids)
            inputs[f"{kind}_merge_sizes"] = torch.full((len(grids),), 2)
    return inputs


def internvl_pictures(rows: list[list[Any]]) -> list[Tensor]:
    """The tiles of every image and the frames of every video, in the order of the rows."""
    kinds = [piece for row in rows for piece in row if not isinstance(piece, int)]
    videos = iter(range(len(kinds)))
    return [clip_video(next(videos)) if kind == "video" else clip_video(99)[:TILES] for kind in kinds]


def alone(family: str, rows: list[list[Any]], number: int) -> dict[str, Any]:
    """What :func:`inputs_of` gives for one row of a batch, with the pixels it has there."""
    inputs = inputs_of(family, rows)
    real = inputs["attention_mask"][number].bool()
    own = {key: inputs[key][number][real][None] for key in ("input_ids", "attention_mask")}
    if family == "internvl":
        earlier = sum(isinstance(piece, str) for row in rows[:number] for piece in row)
        mine = sum(isinstance(piece, str) for piece in rows[number])
        if mine:
            own["pixel_values"] = torch.cat(internvl_pictures(rows)[earlier : earlier + mine])
        return own
    for kind, pixels in (("video", "pixel_values_videos"), ("image", "pixel_values")):
        counts = [row.count(kind) for row in rows]
        mine = slice(sum(counts[:number]), sum(counts[: number + 1]))
        if not counts[number]:
            continue
        if family == "llava_next_video":
            own[pixels] = inputs[pixels][mine]
            if kind == "image":
                own["image_sizes"] = inputs["image_sizes"][mine]
            continue
        bounds = [0, *inputs[f"{kind}_grid_thw"].prod(-1).cumsum(0).tolist()]
        own[pixels] = inputs[pixels][bounds[mine.start] : bounds[mine.stop]]
        own |= {name: inputs[name][mine] for name in (f"{kind}_grid_thw", f"{kind}_merge_sizes")}
    return own
