"""Images and videos to the tokens that stand at their placeholders."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor, nn

from llava.errors import InputError
from llava.mm_utils import grid_pinpoints
from llava.model.image_features import pack_image
from llava.model.newlines import insert_newlines
from llava.model.placement import compute_device, whole_parameter
from llava.model.pooling import pool_frames, pooled_tokens
from llava.model.splicing import VisualTokens
from llava.model.vision_tower import FRAMES_PER_PASS, SiglipVisionTower, in_passes

if TYPE_CHECKING:
    from llava.model.visual_compressor import VisualCompressor

MODALITIES = ("image", "video")


def _spread(modalities: str | Sequence[str] | None, count: int) -> list[str]:
    """One modality per visual input."""
    words = ["image"] if modalities is None else [modalities] if isinstance(modalities, str) else list(modalities)
    words = words * count if len(words) == 1 else words
    if len(words) != count:
        raise InputError(
            f"{len(words)} modalities for {count} image(s) and video(s): pass one per input, or one for all"
        )
    for word in words:
        if word not in MODALITIES:
            raise InputError(f"modality {word!r} is not supported: use one of {', '.join(MODALITIES)}")
    return words


def is_pictures(pixels: Tensor) -> bool:
    """Whether a video is given as it was decoded, (frames, height, width, 3) uint8 RGB, and not as pixel values."""
    return pixels.dtype == torch.uint8 and pixels.dim() == 4 and pixels.shape[-1] == 3 and pixels.shape[0] > 0


def _check_pixels(pixels: Tensor, number: int, side: int) -> None:
    if not isinstance(pixels, Tensor):
        raise InputError(
            f"visual input {number} is a {type(pixels).__name__}: it must be a tensor; "
            "make it with the image_processor that load_pretrained_model returns"
        )
    if pixels.dim() not in (3, 4) or tuple(pixels.shape[-3:]) != (3, side, side) or pixels.shape[0] == 0:
        raise InputError(
            f"visual input {number} has shape {tuple(pixels.shape)}: it must be (frames or tiles, 3, {side}, {side}); "
            "make it with the image_processor that load_pretrained_model returns"
        )
    if not pixels.is_floating_point():
        raise InputError(
            f"visual input {number} has type {pixels.dtype}: pixel values must be floating point; "
            "make them with the image_processor that load_pretrained_model returns"
        )
    finite = torch.stack([torch.isfinite(part).all() for part in pixels.split(FRAMES_PER_PASS)])
    if not bool(finite.all()):
        bad = (~torch.isfinite(pixels.float())).flatten(1).any(1).nonzero().flatten().tolist()
        raise InputError(
            f"visual input {number} has NaN or infinite pixels (first axis: {bad[:8]}): check its decoding"
        )


class VisualModel(Protocol):
    """What is read of the model whose visual inputs are encoded."""

    vision_tower: SiglipVisionTower
    mm_projector: nn.Sequential
    image_newline: nn.Parameter


class VisualEncoder:
    """Encodes the visual inputs of one prompt batch.

    Settings are read from ``config`` at the time of the call, since evaluation harnesses change them after loading.
    """

    def __init__(self, model: VisualModel, config: Any, compressor: "VisualCompressor | None") -> None:
        self.model = model
        self.config = config
        self.compressor = compressor
        unpads = "unpad" in getattr(config, "mm_patch_merge_type", "flat")
        self.image_newline = whole_parameter(cast(nn.Module, model), "image_newline")
        self.newline = self.image_newline if unpads else None

    def encode(
        self,
        images: Tensor | Sequence[Tensor],
        image_sizes: Sequence[tuple[int, int]] | None,
        modalities: str | Sequence[str] | None,
    ) -> list[VisualTokens]:
        """Tokens of every visual input; arguments as in ``LlavaQwenForCausalLM.splice_visuals``."""
        words = _spread(modalities, len(images))
        stacked = isinstance(images, Tensor) and images.dim() == 4
        if isinstance(images, Tensor) and stacked and "video" in words:
            raise InputError(
                f"a tensor of shape {tuple(images.shape)} is a stack of images, not a video: pass images=[frames]"
            )
        side = self.model.vision_tower.config.image_size
        for number, (pixels, word) in enumerate(zip(images, words, strict=True)):
            if not (word == "video" and isinstance(pixels, Tensor) and is_pictures(pixels)):
                _check_pixels(pixels, number, side)
        if image_sizes is not None and len(image_sizes) != len(images):
            raise InputError(
                f"{len(image_sizes)} image_sizes for {len(images)} image(s) and video(s): pass one for each"
            )
        if self.compressor is not None:
            self.compressor.start_prompt()
        visuals = []
        for number, (pixels, word) in enumerate(zip(images, words, strict=True)):
            if word == "video":
                visuals.append(self.encode_video(pixels if pixels.dim() == 4 else pixels[None]))
                continue
            size = None if image_sizes is None else image_sizes[number]
            tiles = pixels if pixels.dim() == 4 else pixels[None]
            visuals.append(VisualTokens(self._encode_image(tiles, size, newline=not stacked), False))
        return visuals

    def _project(self, pixels: Tensor) -> Tensor:
        """(images, 3, side, side) to (images, patches, dim)."""
        return self._to_llm(self.model.vision_tower(pixels))

    def _to_llm(self, features: Tensor) -> Tensor:
        """What the tower returns, (images, patches, hidden), to (images, patches, dim)."""
        return self.model.mm_projector(features.to(compute_device(self.model.mm_projector[0])))

    def pool(self, features: Tensor) -> Tensor:
        """Pooling of video frames with the settings of the configuration."""
        return pool_frames(features, *self._pooling())

    def _pooling(self) -> tuple[int, str]:
        """Stride and mode."""
        stride = getattr(self.config, "mm_spatial_pool_stride", None)
        mode = getattr(self.config, "mm_spatial_pool_mode", None) or "bilinear"
        return 2 if stride is None else int(stride), mode

    def encode_frames(self, pixels: Tensor) -> Tensor:
        """A video to (frames, tokens, dim): projected and pooled, without newlines or compression.

        A few frames are worked on at a time (:attr:`SiglipVisionTower.frames_per_pass`), from their pixels to their
        pooled tokens, so that beside input and output memory does not grow with the video. Where its frames meet inside
        the tower (:attr:`SiglipVisionTower.gates`) it is worked on from gate to gate, and fewer frames may come out.

        Args:
            pixels: (frames, 3, side, side), or pictures as :func:`is_pictures` knows them.
        """

        def prepare(part: Tensor) -> Tensor:
            return self._pixel_values(part) if is_pictures(part) else part

        def encode(part: Tensor) -> Tensor:
            return self.pool(self._project(prepare(part)))

        tower = self.model.vision_tower
        if tower.meets:
            hidden = tower(pixels, prepare)
            return in_passes(lambda part: self.pool(self._to_llm(part)), hidden, tower.frames_per_pass)
        return in_passes(encode, pixels, tower.frames_per_pass)

    def _pixel_values(self, pictures: Tensor) -> Tensor:
        """Pictures of any size to (frames, 3, side, side) float32 on the CPU."""
        processor = self.model.vision_tower.image_processor
        return processor.preprocess(pictures.cpu().numpy(), return_tensors="pt")["pixel_values"]

    def encode_video(self, pixels: Tensor) -> VisualTokens:
        """Tokens of one video (frames, 3, side, side), compressed if there is a compressor, with newlines."""
        mode = self.newline_mode

        def encode() -> Tensor:
            return self.encode_frames(pixels)

        if self.compressor is None:
            pooled = encode()
            features = pooled.flatten(0, 1)
            index, every_row = torch.arange(features.shape[0], device=features.device), False
        else:
            kept = self.compressor.compress_video(encode, self.pool, mode)
            features, index, every_row = kept.features, kept.index, kept.every_row
        return self.video_tokens(features, index, pixels.shape[0], every_row)

    def video_tokens(self, features: Tensor, index: Tensor, frames: int, every_row: bool = False) -> VisualTokens:
        """What stands at the placeholder of a video that is encoded, and compressed, already: newlines join its tokens.

        Args:
            features: (kept, dim).
            index: (kept,) int64, see :class:`~llava.model.visual_compressor.KeptTokens`.
            frames: of the video.
            every_row: likewise.
        """
        mode = self.newline_mode
        rows_of = frames if every_row else None
        tokens = insert_newlines(features, index, self.image_newline, mode, self.tokens_per_frame, rows_of)
        if self.compressor is None or not self.compressor.keeps_positions:
            return VisualTokens(tokens, is_video=True)
        if mode not in ("one_token", "no_token"):
            raise InputError(
                f"mm_newline_position = {mode!r} is not supported by a method that keeps positions: use 'one_token'"
            )
        whole = frames * self.tokens_per_frame
        newlines = tokens.shape[0] - features.shape[0]
        positions = torch.cat([index, torch.arange(whole, whole + newlines, device=index.device)])
        return VisualTokens(tokens, True, positions, whole + newlines)

    @property
    def newline_mode(self) -> str:
        """How newline tokens stand in a video; none in checkpoints whose merge type does not unpad, unless they ask."""
        mode = getattr(self.config, "mm_newline_position", None) or "one_token"
        return "no_token" if self.newline is None and mode == "one_token" else mode

    @property
    def tokens_per_frame(self) -> int:
        """Tokens of a frame after pooling."""
        return pooled_tokens(self.model.vision_tower.num_patches_per_side**2, *self._pooling())

    def _encode_image(self, tiles: Tensor, image_size: tuple[int, int] | None, newline: bool) -> Tensor:
        """(tiles, 3, side, side) to (tokens, dim); ``image_size`` is (width, height)."""
        side = self.model.vision_tower.config.image_size
        several = tiles.shape[0] > 1
        return pack_image(
            self._project(tiles),
            None if image_size is None else (int(image_size[1]), int(image_size[0])),
            self.newline if newline else None,
            getattr(self.config, "image_aspect_ratio", None) or "square",
            grid_pinpoints(self.config, side) if several else [],
            side,
        )
