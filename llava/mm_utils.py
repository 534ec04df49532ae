"""Prompts and images on their way into the model."""

import math
import re
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase, StoppingCriteria

from llava.constants import DEFAULT_IMAGE_TOKEN, IMAGE_TOKEN_INDEX
from llava.errors import InputError


def get_model_name_from_path(model_path: str) -> str:
    """The last part of a path or hub id; for ``checkpoint-N`` folders the parent's name as well."""
    parts = model_path.strip("/").split("/")
    return f"{parts[-2]}_{parts[-1]}" if parts[-1].startswith("checkpoint-") and len(parts) > 1 else parts[-1]


def tokenizer_image_token(
    prompt: str,
    tokenizer: PreTrainedTokenizerBase,
    image_token_index: int = IMAGE_TOKEN_INDEX,
    return_tensors: str | None = None,
) -> Tensor | list[int]:
    """Tokenise a prompt with ``image_token_index`` in place of each ``<image>``.

    Returns:
        A list of ids, or a 1-D int64 tensor with ``return_tensors="pt"``.
    """
    pieces = [tokenizer(piece).input_ids for piece in prompt.split(DEFAULT_IMAGE_TOKEN)]
    bos = tokenizer.bos_token_id
    starts_with_bos = bool(pieces[0]) and bos is not None and pieces[0][0] == bos
    ids = list(pieces[0])
    for piece in pieces[1:]:
        ids.append(image_token_index)
        ids.extend(piece[1:] if starts_with_bos and piece and piece[0] == bos else piece)
    if return_tensors is None:
        return ids
    if return_tensors != "pt":
        raise InputError(f"return_tensors = {return_tensors!r} is not supported: it must be None or 'pt'")
    return torch.tensor(ids, dtype=torch.long)


class KeywordsStoppingCriteria(StoppingCriteria):
    """Stop a row once its newest tokens spell one of the keywords.

    Only the tail is looked at, so it does not matter whether ``output_ids`` starts with the prompt: generation from
    embeddings hands over new tokens only.
    """

    def __init__(self, keywords: Sequence[str], tokenizer: PreTrainedTokenizerBase, input_ids: Tensor) -> None:
        self.keywords = list(keywords)
        self.tokenizer = tokenizer
        lengths = [len(tokenizer(keyword, add_special_tokens=False).input_ids) for keyword in self.keywords]
        self.tail = max(lengths, default=1) + 1  # one more: a keyword may start inside a token

    def __call__(self, output_ids: Tensor, scores: Tensor | None = None, **kwargs: Any) -> Tensor:
        """A boolean per row of ``output_ids`` (batch, seq)."""
        tails = self.tokenizer.batch_decode(output_ids[:, -self.tail :], skip_special_tokens=False)
        hits = [any(keyword in tail for keyword in self.keywords) for tail in tails]
        return torch.tensor(hits, dtype=torch.bool, device=output_ids.device)


def expand_to_square(image: Image.Image, background: tuple[int, ...]) -> Image.Image:
    """Centre an image on a square of its longer side."""
    side = max(image.size)
    square = Image.new(image.mode, (side, side), background)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def _resize_and_pad(image: Image.Image, resolution: tuple[int, int]) -> Image.Image:
    """Fit an image into (height, width) without changing its shape, and centre it on black."""
    height, width = resolution
    scale_width, scale_height = width / image.width, height / image.height
    if scale_width < scale_height:
        size = (width, min(math.ceil(image.height * scale_width), height))
    else:
        size = (min(math.ceil(image.width * scale_height), width), height)
    canvas = Image.new("RGB", (width, height), (0, 0, 0))
    canvas.paste(image.resize(size), ((width - size[0]) // 2, (height - size[1]) // 2))
    return canvas


def grid_pinpoints(model_config: Any, side: int) -> list[tuple[int, int]]:
    """Resolutions (height, width) of any-resolution images; a ``"(1x1),...,(6x6)"`` text is spelled out."""
    pinpoints = model_config.image_grid_pinpoints
    if isinstance(pinpoints, str):
        found = [(int(a), int(b)) for a, b in re.findall(r"\((\d+)x(\d+)\)", pinpoints)]
        if len(found) != 2:
            raise InputError(f"image_grid_pinpoints = {pinpoints!r} is not a range: write '(1x1),...,(6x6)' or a list")
        (top, left), (bottom, right) = found
        return [(side * row, side * col) for row in range(top, bottom + 1) for col in range(left, right + 1)]
    return [(int(height), int(width)) for height, width in pinpoints]


def process_anyres_image(image: Image.Image, processor: Any, model_config: Any) -> Tensor:
    """Tiles of one image at the resolution that suits it best, behind the whole image at tower size.

    Returns:
        float32 (1 + tiles, 3, side, side), tiles in reading order.
    """
    from transformers.image_processing_utils import select_best_resolution  # noqa: PLC0415

    side = processor.size["height"]
    best = select_best_resolution((image.height, image.width), grid_pinpoints(model_config, side))
    padded = _resize_and_pad(image, best)
    tiles = [image.resize((side, side))]
    for top in range(0, best[0], side):
        tiles.extend(padded.crop((left, top, left + side, top + side)) for left in range(0, best[1], side))
    return processor.preprocess(tiles, return_tensors="pt")["pixel_values"]


def process_images(images: Sequence[Image.Image], image_processor: Any, model_cfg: Any) -> Tensor | list[Tensor]:
    """Pixel values of several images, as ``model_cfg.image_aspect_ratio`` asks (anyres, anyres_max_N, pad, square).

    Returns:
        One stacked tensor where all shapes are equal, else a list: (images, [tiles,] 3, side, side).

    Raises:
        InputError: for an aspect ratio rule this runtime does not know.
    """
    rule = getattr(model_cfg, "image_aspect_ratio", None) or "square"
    images = [image.convert("RGB") for image in images]
    if rule.startswith("anyres"):
        pixels = [process_anyres_image(image, image_processor, model_cfg) for image in images]
    elif rule == "pad":
        background = tuple(int(255 * mean) for mean in image_processor.image_mean)
        squares = [expand_to_square(image, background) for image in images]
        pixels = list(image_processor.preprocess(squares, return_tensors="pt")["pixel_values"])
    elif rule == "square":
        return image_processor.preprocess(images, return_tensors="pt")["pixel_values"]
    else:
        raise InputError(f"image_aspect_ratio = {rule!r} is not supported: use 'anyres_max_9', 'pad' or 'square'")
    return torch.stack(pixels) if len({tuple(p.shape) for p in pixels}) == 1 else pixels
