"""YAML 1.2 texts to plain values, the one way in which configurations, grids and command lines are read.

The core schema of YAML 1.2 (Sec. 10.3): ``016`` is sixteen, ``1:30``, ``no`` and dates are texts, ``1e-3`` is a number.
Of YAML 1.1 only the merge key ``<<`` is left. Whatever is wrong with a text is one :class:`InputError` of one line.
"""

from __future__ import annotations

import copy
import json
import math
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from holitom.errors import InputError, shown

_MOST_CHARACTERS = 1 << 16
_MOST_VALUES = 10_000  # with every alias counted as what it stands for
_DEEPEST = 32
_LARGEST = 2**63 - 1  # integers beyond fit no tensor, no file format and no message
_MERGE = "<<"
_TAG = "tag:yaml.org,2002:"
_PLAIN = "?"  # tag of scalars without quotes or a tag of their own (YAML 1.2, Sec. 3.3.2)
# Tried in this order (YAML 1.2, Sec. 10.3.2); what matches none is a text.
_CORE = {
    "null": re.compile(r"(?:null|Null|NULL|~|)"),
    "bool": re.compile(r"(?:true|True|TRUE|false|False|FALSE)"),
    "int": re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)"),
    "float": re.compile(
        r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))"
    ),
}


def parse_yaml(text: str) -> Any:
    """The value of one YAML 1.2 document: None, bool, int, float, str, list, or dict with texts as keys.

    Args:
        text: at most 65,536 characters.

    Raises:
        InputError: for anything else than one document of the core schema, a key that stands twice, and for texts,
            integers, nesting or aliases beyond bounds.
    """
    if len(text) > _MOST_CHARACTERS:
        raise InputError(f"a YAML text of {len(text)} characters is too long: it must have at most {_MOST_CHARACTERS}")
    return copy.deepcopy(_parsed(text))  # callers change what they get


@lru_cache(maxsize=256)  # tables and grids name the same few files hundreds of times
def _parsed(text: str) -> Any:
    try:
        node = yaml.compose(text, _Nodes)
    except InputError:
        raise
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the last two from its escapes and directives
        raise InputError(f"no readable YAML: {' '.join(str(error).split())[:300]}") from None
    return None if node is None else _Values().of(node, 0)


def read_yaml(path: str | Path) -> Any:
    """:func:`parse_yaml` of a file.

    Raises:
        FileNotFoundError: if there is none, so that the caller can say what it should hold.
        InputError: if it is not readable, or as :func:`parse_yaml`; the message names the file.
    """
    try:
        with Path(path).open("rb") as file:
            raw = file.read(4 * _MOST_CHARACTERS + 1)
        return parse_yaml(raw.decode("utf-8-sig"))
    except FileNotFoundError:
        raise
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)!r} is no readable YAML file: {' '.join(str(error).split())}") from None


def written(value: Any) -> str:
    """A value as one canonical YAML text, which :func:`parse_yaml` reads back; ``0.20`` and ``2e-1`` become ``0.2``."""
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else f"{'-' if value < 0 else ''}.inf"
    return json.dumps(value, sort_keys=True)


class _Nodes(yaml.SafeLoader):
    """PyYAML's reading of a text into nodes, with a bound on its depth; values are not its work."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._depth = 0

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        """The tag of a node that has none; PyYAML's own rules for scalars are those of YAML 1.1."""
        if kind is yaml.ScalarNode:
            return _PLAIN if implicit[0] else _TAG + "str"
        return _TAG + ("seq" if kind is yaml.SequenceNode else "map")

    def compose_node(self, parent: Any, index: Any) -> Any:
        """One node with those below it."""
        if self._depth > _DEEPEST:
            raise InputError(f"YAML nested deeper than {_DEEPEST} levels is not read: write it flatter")
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Values:
    """Nodes to values, of one document."""

    def __init__(self) -> None:
        self.count = 0

    def of(self, node: Any, depth: int) -> Any:
        """The value of a node; aliases are followed as often as they stand there."""
        self.count += 1
        if self.count > _MOST_VALUES:
            raise InputError(f"YAML of more than {_MOST_VALUES} values is not read: each alias counts as its contents")
        if depth > _DEEPEST:
            raise InputError(f"YAML nested deeper than {_DEEPEST} levels is not read: an alias may hold itself")
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        kind = "seq" if isinstance(node, yaml.SequenceNode) else "map"
        if node.tag != _TAG + kind:
            raise InputError(f"YAML tag {shown(node.tag)} {_at(node)} is not read: write a plain value")
        if kind == "seq":
            return [self.of(entry, depth + 1) for entry in node.value]
        return self._mapping(node, depth)

    def _mapping(self, node: Any, depth: int) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        seen: set[str] = set()
        for key_node, value_node in node.value:
            key = _key(key_node)
            if key in seen:
                raise InputError(f"key {key} stands twice {_at(key_node)}")
            seen.add(key)
            if key == _MERGE and key_node.tag == _PLAIN:
                merged = self._merged(value_node, depth)
            else:
                own[key] = self.of(value_node, depth + 1)
        return {**merged, **own}

    def _merged(self, node: Any, depth: int) -> dict[str, Any]:
        """What ``<<`` brings in: a mapping or a list of them, the earlier of which win."""
        value = self.of(node, depth + 1)
        found: dict[str, Any] = {}
        for each in reversed(value if isinstance(value, list) else [value]):
            if not isinstance(each, dict):
                raise InputError(f"<< {_at(node)} holds {shown(each)}: it must be a mapping or a list of them")
            found |= each
        return found


def _key(node: Any) -> str:
    """A mapping's key, which must be a printable text."""
    value = _scalar(node) if isinstance(node, yaml.ScalarNode) else None
    if not isinstance(value, str):
        raise InputError(f"a key {_at(node)} is no text: write names as keys, in quotes if they look like numbers")
    if not value.isprintable() or len(value) > 200:
        raise InputError(f"key {shown(value)} {_at(node)} is no name: write a short printable one")
    return value


def _scalar(node: Any) -> Any:
    """The value of one scalar node by the core schema, or as its tag asks."""
    text, kind = node.value, node.tag.removeprefix(_TAG)
    if node.tag == _PLAIN:
        kind = next((kind for kind, pattern in _CORE.items() if pattern.fullmatch(text)), "str")
    elif kind != "str" and (node.tag == kind or kind not in _CORE):
        raise InputError(f"YAML tag {shown(node.tag)} {_at(node)} is not read: write a plain value")
    elif kind in _CORE and not _CORE[kind].fullmatch(text):
        raise InputError(f"{shown(text)} {_at(node)} is no {kind}: write one, or leave out its tag")
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int":
        return _integer(text, node)
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan")) if kind == "float" else text


def _integer(text: str, node: Any) -> int:
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    digits = text[2:] if base != 10 else text
    value = int(digits, base) if len(digits) <= 64 else _LARGEST + 1
    if abs(value) > _LARGEST:
        raise InputError(
            f"an integer of {len(digits.lstrip('+-'))} digits {_at(node)} is too large: at most {_LARGEST}"
        )
    return value


def _at(node: Any) -> str:
    mark = node.start_mark
    return f"(line {mark.line + 1}, column {mark.column + 1})"
