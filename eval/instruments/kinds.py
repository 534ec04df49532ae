"""What a JSON file of results is: every one carries ``kind`` and ``version``, and one function reads them all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llava.errors import InputError

VERSION = 1
# kind -> the command that writes it
KINDS = {
    "parity": "eval.claims.parity",
    "outer": "eval.efficiency.outer",
    "kernels": "eval.efficiency.kernels",
    "methods": "eval.efficiency.methods",
    "decode": "eval.efficiency.decode",
    "flops": "eval.efficiency.flops",
    "latency": "eval.efficiency.latency",
    "tokens": "eval.efficiency.token_counts",
    "tiny": "eval.synthetic.answers.table",
    "answers": "eval.report.page.keep_answers",
    "training": "eval.synthetic.training",
    "claims": "eval.claims",
    "benchmark": "eval.benchmarks.run",
    "verdict_rule": "eval.claims.operating_characteristics",
    "harness_versions": "eval.benchmarks.versions",
    "tradeoff": "eval.efficiency.tradeoff",
    "stages": "eval.efficiency.stages",
    "reuse": "eval.benchmarks.reuse",
    "serving": "eval.efficiency.serving",
    "readers": "eval.efficiency.readers",
    "reading_memory": "eval.efficiency.reading_memory",
    "video_fuzz": "tests.fuzz_videos",
    "video_matrix": "tests.video_matrix",
    "other": "eval.instruments.record",
}
# what a file of the right kind can still fail with when its fields are used
FAULTS = (LookupError, TypeError, AttributeError, ValueError, OSError, StopIteration, RecursionError)


def stamped(kind: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """The data with the kind and version that its file is read by."""
    assert kind in KINDS, kind
    return {"kind": kind, "version": VERSION, **data}


def no_result(path: Path, kind: str, why: object) -> InputError:
    """The one message about a file that is not what was asked for."""
    return InputError(f"{path} is no result of {KINDS[kind]} ({why}): measure it again")


def read_json(path: Path) -> tuple[dict[str, Any], str]:
    """A JSON object and the SHA-256 of its file.

    Raises:
        InputError: unreadable, no JSON, or no object.
    """
    try:
        raw = path.read_bytes()
        data = json.loads(raw.decode("utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"is no JSON ({error}): measure it again") from None
    if not isinstance(data, dict):
        raise InputError(f"is a JSON {type(data).__name__}, not an object: measure it again")
    return data, hashlib.sha256(raw).hexdigest()


def kind_of(data: Mapping[str, Any]) -> str:
    """The kind that a document states.

    Raises:
        InputError: none, one that is not known, or another version.
    """
    kind, version = data.get("kind"), data.get("version")
    if not isinstance(kind, str) or kind not in KINDS:
        raise InputError(f"states the kind {kind!r}, which is none of {', '.join(KINDS)}: measure it again")
    if version != VERSION:
        raise InputError(f"is of version {version!r}, not {VERSION}: measure it again with {KINDS[kind]}")
    return kind


def read_record(path: Path, kind: str) -> dict[str, Any]:
    """A document of results, recorded or as its command printed it.

    Raises:
        InputError: it cannot be read, or is of another kind or version.
    """
    try:
        data, _ = read_json(path)
        found = kind_of(data)
    except InputError as error:
        raise no_result(path, kind, str(error).removesuffix(": measure it again")) from None
    if found != kind:
        raise no_result(path, kind, f"it is of kind {found!r}")
    return data
