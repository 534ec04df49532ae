"""How a family's prompts are laid out: grids of its videos, and where their placeholder tokens stand."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from holitom.encoded_video import FrameMerges
from holitom.errors import InputError
from holitom.ops.token_ops import upload


@dataclass(frozen=True)
class VideoGrid:
    """Sizes of one encoded video.

    Attributes:
        frames: frames as the method counts them; one per temporal patch where the tower joins several pictures.
        tokens: tokens of a frame after pooling.
        patches: patches of a frame in the tower's side signals.
        newlines: placeholder tokens behind the video's own that hold newline vectors.
        pieces: pieces that its placeholders stand in, with other tokens between them: 1, or one per frame where a
            timestamp stands before each.
    """

    frames: int
    tokens: int
    patches: int
    newlines: int = 0
    pieces: int = 1

    @property
    def placeholders(self) -> int:
        """Tokens the video takes in the prompt before compression."""
        return self.frames * self.tokens + self.newlines


@dataclass(frozen=True)
class PlacedVideo:
    """One video in one row of a prompt.

    Attributes:
        start: its first placeholder.
        stop: behind its last one.
        number: which of the encoded videos it is.
        grid: its sizes.
        pieces: where each piece of its placeholders starts; what stands between them is not the video's.
    """

    start: int
    stop: int
    number: int
    grid: VideoGrid
    pieces: tuple[int, ...]

    @property
    def _length(self) -> int:
        return self.grid.placeholders // self.grid.pieces

    def visual(self, states: Float[Tensor, "seq dim"]) -> Float[Tensor, "frames tokens dim"]:
        """The video's tokens among those of a row, newlines left out."""
        grid = self.grid
        parts = [states[start : start + self._length] for start in self.pieces]
        own = parts[0] if len(parts) == 1 else torch.cat(parts)
        return own[: grid.frames * grid.tokens].view(grid.frames, grid.tokens, -1)

    def between(self, values: Shaped[Tensor, "seq ..."]) -> Shaped[Tensor, "between ..."]:
        """What stands between the pieces, of the values of a row."""
        ends = [start + self._length for start in self.pieces[:-1]]
        parts = [values[end:start] for end, start in zip(ends, self.pieces[1:], strict=True)]
        return torch.cat(parts) if parts else values[:0]

    def places(self, index: Int[Tensor, " kept"]) -> tuple[Int[Tensor, " kept"], Int[Tensor, " kept"]]:
        """Place in the row of tokens given by frame * tokens + position, and where the piece of each starts."""
        if len(self.pieces) == 1:
            return self.start + index, torch.full_like(index, self.start)
        (starts,) = upload(index.device, self.pieces)
        begins = starts[index // self._length]
        return begins + index % self._length, begins


@dataclass(frozen=True)
class TowerCall:
    """One call of the vision tower.

    Attributes:
        inputs: its first argument's first axis, images or packed patches.
        arguments: its keyword arguments.
        signals: what the compressor's recorders read, by name.
        merges: per video, what happened to its frames inside the tower; empty where nothing did.
    """

    inputs: int
    arguments: dict[str, Any]
    signals: dict[str, Tensor]
    merges: tuple[FrameMerges, ...] = ()


class PromptLayout(Protocol):
    """What a family file tells of a model whose prompts hold one placeholder token per visual token.

    Attributes:
        newline_mode: how newline vectors stand among the tokens of a video, see ``llava.model.newlines``.
        pixels: the argument of ``body`` that brings the pixels of videos.
        video_token_id: id of a video's placeholder tokens.
        body: the module whose forward takes ``input_ids`` and the pixels.
        tower: the vision tower, called once for all videos of a batch.
        decoder: the language model, called by ``body`` with ``inputs_embeds``.
    """

    newline_mode: str
    pixels: str
    video_token_id: int
    body: nn.Module
    tower: nn.Module
    decoder: nn.Module

    def view(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a call with its videos where :func:`brings_video` and the placeholders' id tell them."""

    def grids(self, arguments: dict[str, Any], call: TowerCall) -> list[VideoGrid]:
        """Sizes of the videos that ``call`` encoded, in prompt order; ``arguments`` are those of ``body``."""

    def cut(self, signal: Tensor, call: TowerCall, grids: Sequence[VideoGrid]) -> list[Tensor]:
        """One side signal of all videos as one (frames, patches[, channels]) per video."""

    def pool(self, signal: Tensor, grid: VideoGrid) -> Tensor:
        """The pooling of a video's features for a signal: (frames, patches, channels) to (frames, tokens, channels)."""

    def continued_positions(self, past: int, incoming: int) -> Tensor | None:
        """Positions of ``incoming`` tokens after ``past`` without mask and positions; None where they are 0, 1, ..."""


class TellsVideos:
    """Part of a :class:`PromptLayout` for a class whose calls bring videos apart from images."""

    pixels = "pixel_values_videos"

    def view(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments as they are."""
        return arguments


def brings_video(arguments: dict[str, Any]) -> bool:
    """Whether a call of the body is given a video, as pixels or encoded."""
    encoded = arguments.get("mm_encoder_outputs") or {}
    return arguments.get("pixel_values_videos") is not None or encoded.get("video") is not None


def place_videos(
    input_ids: Int[Tensor, "batch seq"], token_id: int, grids: Sequence[VideoGrid]
) -> list[list[PlacedVideo]]:
    """The videos of every row, found by their placeholder tokens. One transfer to the host.

    Where ``generate`` repeats every row, as for beams, the rows that belong together share their videos.

    Args:
        input_ids: the prompts.
        token_id: id of a placeholder.
        grids: sizes of the encoded videos, in the order of the rows before any was repeated.

    Raises:
        InputError: if the placeholders do not fit the videos.
    """
    places = [(row == token_id).nonzero().flatten().tolist() for row in input_ids.cpu()]
    encoded, found = sum(grid.placeholders for grid in grids), sum(map(len, places))
    repeats, rest = divmod(found, encoded)
    if rest or repeats == 0 or len(places) % repeats:
        raise InputError(
            f"the prompt has {found} video placeholder(s) and its {len(grids)} video(s) {encoded} token(s): they must "
            "be equal; let the model's processor write the prompt"
        )
    rows, number = [], 0
    for first in range(0, len(places), repeats):
        own, taken = places[first], 0
        row = []
        while taken < len(own) and number < len(grids):
            grid = grids[number]
            row.append(_place(own[taken : taken + grid.placeholders], number, grid, first))
            taken, number = taken + grid.placeholders, number + 1
        if any(other != own for other in places[first : first + repeats]) or taken < len(own):
            raise InputError(f"row {first} has {len(own)} video placeholder(s), more than the videos that were encoded")
        rows += [row] * repeats
    return rows


def _place(span: list[int], number: int, grid: VideoGrid, row: int) -> PlacedVideo:
    """The video whose placeholders stand at ``span``.

    Raises:
        InputError: if they are not in as many pieces as they should be.
    """
    length = grid.placeholders // grid.pieces
    starts = tuple(span[::length])
    whole = len(span) == grid.placeholders
    if not whole or any(
        span[at + length - 1] - start + 1 != length
        for at, start in zip(range(0, len(span), length), starts, strict=True)
    ):
        wanted = f"{length} tokens in one piece" if grid.pieces == 1 else f"{grid.pieces} pieces of {length} tokens"
        raise InputError(
            f"the placeholders of video {number} in row {row} are not {wanted}: let the model's processor write the "
            "prompt"
        )
    return PlacedVideo(span[0], span[-1] + 1, number, grid, starts)
