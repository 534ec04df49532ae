"""Sections to one HTML file that needs no network: charts, styles and scripts stand in it.

Nothing that comes from a result reaches the page but through the template's escaping or as JSON without ``<``; a
content security policy names the page's own scripts by their hash and forbids every other, and every request.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.instruments.record import finite
from eval.report.page.blocks import Browser, Section

TEMPLATES = Path(__file__).parent / "templates"
SCRIPTS = ("tables.js", "samples.js")


@dataclass(frozen=True)
class Head:
    """What stands above the sections: title, sentences, and the folder of results."""

    title: str
    sentences: Sequence[str]


def embedded(value: Any) -> str:
    """JSON that can stand inside a ``script`` element: no ``<``, ``>`` or ``&``, no number that JSON does not have."""
    text = json.dumps(finite(value), separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def script_hash(script: str) -> str:
    """The source expression that allows a script of ours in a content security policy."""
    # an HTML parser reads every end of a line as \n
    digest = hashlib.sha256(script.replace("\r\n", "\n").replace("\r", "\n").encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def render(head: Head, sections: Sequence[Section]) -> str:
    """The whole page."""
    import jinja2  # noqa: PLC0415
    from markupsafe import Markup  # noqa: PLC0415

    blocks = [block for section in sections for block in section.blocks]
    names = list(SCRIPTS)
    if not any(isinstance(block, Browser) for block in blocks):
        names.remove("samples.js")
    scripts = [(TEMPLATES / name).read_text(encoding="utf-8") for name in names]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    policy = (
        f"default-src 'none'; script-src {' '.join(map(script_hash, scripts))}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    page = environment.get_template("page.html.jinja").render(
        head=head,
        sections=sections,
        policy=policy,
        style=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        scripts=[Markup(script) for script in scripts],
        embedded=lambda value: Markup(embedded(value)),
    )
    return page.encode("utf-8", "replace").decode("utf-8")  # JSON can hold halves of characters, files cannot
