"""Matplotlib's SVG without what a picture does not need: hundredths of a point, each style said once, no empty groups.

A chart looks the same afterwards (``tests/eval/report/page/test_svg.py`` compares the pixels) at half the size.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from urllib.parse import quote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

_SVG, _LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
_PLACED = ("d", "x", "y", "width", "height", "transform", "viewBox", "points")
_NUMBER = re.compile(r"-?\d+\.\d+(?:e[+-]?\d+)?")
_FONT = re.compile(r"font-family: ([^;\"]+?)(?=;|$)")
# what may stand as it is in an address of data, and in HTML as well, whose escaping would lengthen the rest
_SAFE = " /:=;,()?@!*~+$[]{}|"


def small_svg(text: str) -> str:
    """The same picture in fewer bytes.

    Args:
        text: an SVG document of matplotlib with ``svg.fonttype`` none.
    """
    root = ElementTree.fromstring(text)
    for metadata in root.findall(f"{_SVG}metadata"):
        root.remove(metadata)
    used = {name for element in root.iter() for name in _references(element)}
    fonts: list[str] = []
    for element in root.iter():
        _shrink(element, used, fonts)
    styles = _named_styles(root)
    if fonts:
        root.set("font-family", fonts[0])
    return "".join(_written(root, styles))


def svg_address(text: str) -> str:
    """A picture as the address of its data."""
    return "data:image/svg+xml," + quote(text, safe=_SAFE)


def _references(element: ElementTree.Element) -> Iterator[str]:
    for value in element.attrib.values():
        yield from re.findall(r"url\(#([^)]+)\)", value)
    if _LINK in element.attrib:
        yield element.attrib[_LINK].removeprefix("#")


def _shrink(element: ElementTree.Element, used: set[str], fonts: list[str]) -> None:
    attributes = element.attrib
    if attributes.get("id") not in used:
        attributes.pop("id", None)
    if _LINK in attributes:
        attributes["href"] = attributes.pop(_LINK)
    if str(attributes.get("transform", "")).startswith("rotate(-0 "):
        del attributes["transform"]
    for name in _PLACED:
        if name in attributes and "matrix" not in attributes[name] and "scale" not in attributes[name]:
            rounded = _NUMBER.sub(_hundredths, attributes[name])
            attributes[name] = re.sub(r"\s*([A-Za-z])\s*", r"\1", rounded).strip() if name == "d" else rounded
    style = attributes.get("style", "")
    family = _FONT.search(style)
    if family and (not fonts or fonts[0] == family[1]):
        fonts[:] = [family[1]]
        style = style.replace(family[0], "")
    if style:
        attributes["style"] = ";".join(part.strip().replace(": ", ":", 1) for part in style.split(";") if part.strip())


def _hundredths(found: re.Match[str]) -> str:
    text = f"{float(found[0]):.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _named_styles(root: ElementTree.Element) -> dict[str, str]:
    """Style -> class, for each style that stands more than once; the classes are defined in the picture's own sheet."""
    counts = Counter(element.get("style") for element in root.iter() if element.get("style"))
    repeated = [style for style, count in counts.items() if count > 1]
    classes = {str(style): f"s{place}" for place, style in enumerate(repeated)}
    sheet = root.find(f"{_SVG}defs/{_SVG}style")
    assert sheet is not None, "matplotlib begins a picture with its style sheet"
    sheet.text = str(sheet.text) + "".join(f".{name}{{{style}}}" for style, name in classes.items())
    return classes


def _written(element: ElementTree.Element, classes: dict[str, str]) -> Iterator[str]:
    """The element as text: attributes in single quotes, no space between elements, no empty groups."""
    tag = element.tag.removeprefix(_SVG)
    attributes = dict(element.attrib)
    if attributes.get("style") in classes:
        attributes["class"] = classes[attributes.pop("style")]
    inner = [escape(element.text)] if element.text and element.text.strip() else []
    for child in element:
        inner += _written(child, classes)
        inner += [escape(child.tail)] if child.tail and child.tail.strip() else []
    if tag == "g" and not attributes:
        yield from inner
        return
    space = " xmlns='http://www.w3.org/2000/svg'" if tag == "svg" else ""
    said = "".join(f" {name}='{escape(value, {chr(39): '&apos;'})}'" for name, value in attributes.items())
    yield f"<{tag}{space}{said}" + (">" if inner else "/>")
    if inner:
        yield from inner
        yield f"</{tag}>"
