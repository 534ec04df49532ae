"""Pictures of what became of the tokens of a few samples: saved records drawn, and pictures found in the results."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from eval.report.page.blocks import Block, Notice, Picture, Section, Text
from eval.report.page.sources import Sources
from llava.errors import InputError

MAX_WIDTH = 1400  # pixels of an embedded picture


def picture_block(slug: str, title: str, said: str, raw: bytes) -> Picture:
    """A picture, decoded and made anew so that nothing but pixels reaches the page, no wider than ``MAX_WIDTH``.

    Raises:
        InputError: the bytes are no picture.
    """
    from PIL import Image  # noqa: PLC0415

    try:
        with Image.open(io.BytesIO(raw), formats=("PNG",)) as opened:
            opened.load()
            pixels = opened.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"is no readable PNG ({error}): draw it again") from None
    if pixels.width > MAX_WIDTH:
        pixels = pixels.resize((MAX_WIDTH, max(1, round(pixels.height * MAX_WIDTH / pixels.width))))
    packed = io.BytesIO()
    pixels.quantize(128).convert("RGB").save(packed, format="WEBP", lossless=True, quality=100, method=4)
    source = "data:image/webp;base64," + base64.b64encode(packed.getvalue()).decode("ascii")
    return Picture(slug, title, source, said, pixels.width, pixels.height)


def token_maps(sources: Sources, most: int) -> tuple[list[Picture], dict[str, str]]:
    """Pictures for the page, at most ``most``, and the saved records that they show: path -> id on the page."""
    pictures: list[Picture] = []
    shown: dict[str, str] = {}
    for path in sources.pictures:
        if len(pictures) == most:
            break
        name, slug = sources.named(path), f"map-{len(pictures) + 1}"
        pictures += sources.tried(name, found_picture, path, name, slug)
    # one sample of every method before the next sample
    for path in sorted(sources.saved, key=lambda path: (path.name, path.parent)):
        if len(pictures) == most:
            break
        name, slug = sources.named(path), f"map-{len(pictures) + 1}"
        for drawn in sources.tried(name, drawn_record, path, name, slug):
            pictures.append(drawn)
            shown[name] = slug
    return pictures, shown


def found_picture(path: Path, name: str, slug: str) -> Picture:
    """A picture that lies among the results."""
    return picture_block(slug, name, f"Token map {name}", path.read_bytes())


def drawn_record(path: Path, name: str, slug: str) -> Picture:
    """The token map of a saved record.

    Raises:
        InputError: it is damaged, or holds no video.
    """
    from holitom.record.file import load_record  # noqa: PLC0415
    from holitom.views import token_map  # noqa: PLC0415
    from holitom.views.page import DPI  # noqa: PLC0415

    record = load_record(path)
    drawn = io.BytesIO()
    token_map(record).savefig(drawn, format="png", dpi=DPI, metadata={"Software": None})
    return picture_block(slug, name, caption(record.meta) or f"Token map of {name}", drawn.getvalue())


def map_section(sources: Sources, pictures: list[Picture]) -> Section:
    """The pictures with what they show."""
    held = len(sources.pictures) + len(sources.saved)
    if not pictures:
        text = (
            "No token maps: runs with --save-records leave records that are drawn here, and pictures of "
            "python -m holitom.show are found in folders called token_maps."
        )
        return Section("maps", "Token maps", [Notice(text, "absent")])
    blocks: list[Block] = [
        Text([f"{len(pictures)} of {held} at hand; the sample browser links to those of its answers."])
    ]
    return Section("maps", "Token maps", [*blocks, *pictures])


def caption(meta: dict[str, Any]) -> str:
    """What a saved record says about itself, in one line."""
    keys = ("name", "method", "video", "question", "answer", "checkpoint", "commit")
    return "; ".join(f"{key}: {meta[key]}" for key in keys if meta.get(key) is not None)
