"""Saved records on disk: one compressed ``.npz`` without pickle, whose ``meta`` is JSON."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from holitom.errors import InputError
from holitom.files import whole_file
from holitom.record.saved import SavedRecord, SavedStage, SavedVideo

SCHEMA = 1
_ARRAYS = ("kinds", "source_map", "index", "segments")
_OPTIONAL = ("received_attention", "similarity", "times", "tower_layers", "frame_targets")
_STAGE = ("kept", "source", "scores")
_DAMAGE = (
    OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, NotImplementedError, zipfile.BadZipFile,
    zlib.error,
)  # fmt: skip


def write_saved(record: SavedRecord, path: str | os.PathLike[str]) -> None:
    """Write a record; the file is there as a whole or not at all. The same record gives the same bytes.

    Args:
        record: what to write.
        path: ending in ``.npz``; its folder is made.

    Raises:
        InputError: for another ending, a meta that is no JSON, or a path that cannot be written.
    """
    target = Path(path)
    if target.suffix != ".npz":
        raise InputError(f"a record is an .npz file, but its path is {str(target)!r}; end it with .npz")
    arrays: dict[str, np.ndarray] = {}
    for number, video in enumerate(record.videos):
        arrays |= {f"video{number}/{name}": value for name, value in _arrays_of(video).items()}
    arrays["meta"] = np.frombuffer(_encoded(record, sorted(arrays)), dtype=np.uint8)
    with whole_file(target) as part, part.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)  # type: ignore[arg-type]


def _encoded(record: SavedRecord, arrays: list[str]) -> bytes:
    stages = [[stage.layer for stage in video.stages] for video in record.videos]
    head = {"schema": SCHEMA, "arrays": arrays, "stages": stages, "meta": record.meta}
    try:
        text = json.dumps(head, ensure_ascii=False)
        if json.loads(text)["meta"] == record.meta:
            return text.encode()
    except (TypeError, ValueError):
        pass
    raise InputError("meta of a record must be JSON: strings, numbers, booleans, null, lists, and mappings by strings")


def _arrays_of(video: SavedVideo) -> dict[str, np.ndarray]:
    found = {name: getattr(video, name) for name in _ARRAYS}
    found |= {name: getattr(video, name) for name in _OPTIONAL if getattr(video, name) is not None}
    if video.thumbnails:
        found["thumbnails"] = np.frombuffer(b"".join(video.thumbnails), dtype=np.uint8)
        found["thumbnail_sizes"] = np.array([len(data) for data in video.thumbnails])
    for number, stage in enumerate(video.stages):
        found |= {f"stage{number}/{name}": getattr(stage, name) for name in _STAGE}
    return found


def load_record(path: str | os.PathLike[str]) -> SavedRecord:
    """Read what :func:`write_saved` wrote.

    Args:
        path: the file.

    Raises:
        InputError: if there is none, or it is damaged or no record.
    """
    with _opened(path) as archive:
        head = _head(archive)
        videos = tuple(_video(archive, number, layers) for number, layers in enumerate(head["stages"]))
        return SavedRecord(videos, head["meta"])


def load_meta(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The ``meta`` of a record alone, without reading its arrays; errors as :func:`load_record`."""
    with _opened(path) as archive:
        return dict(_head(archive)["meta"])


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Mapping[str, np.ndarray]]:
    """The arrays of a file while a ``with`` block reads them.

    Raises:
        InputError: if there is no file, or it or what the block reads is damaged.
    """
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("not an .npz archive")
        with archive:
            yield archive
    except FileNotFoundError:
        raise InputError(f"there is no record {str(path)!r}: --save-records and holitom.show make them") from None
    except _DAMAGE as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: this is no record, or it is damaged ({why}); save it again") from None


def _head(archive: Mapping[str, np.ndarray]) -> dict[str, Any]:
    head = json.loads(archive["meta"].tobytes())
    if not isinstance(head, dict) or not isinstance(head.get("meta"), dict) or not isinstance(head.get("stages"), list):
        raise ValueError("its meta is not that of a record")
    if head.get("schema") != SCHEMA:
        raise ValueError(f"its schema is {head.get('schema')!r}, this version reads {SCHEMA}")
    if sorted(name for name in archive if name != "meta") != head.get("arrays"):
        raise ValueError("its arrays are not those it was saved with")
    return head


def _video(archive: Mapping[str, np.ndarray], number: int, layers: list[int]) -> SavedVideo:
    here = f"video{number}/"
    found: dict[str, Any] = {name: archive[here + name] for name in _ARRAYS}
    found |= {name: archive[here + name] for name in _OPTIONAL if here + name in archive}
    if here + "thumbnails" in archive:
        data, ends = archive[here + "thumbnails"].tobytes(), archive[here + "thumbnail_sizes"].cumsum().tolist()
        found["thumbnails"] = tuple(data[start:end] for start, end in pairwise([0, *ends]))
    stages = []
    for place, layer in enumerate(layers):
        stages.append(SavedStage(int(layer), *(archive[f"{here}stage{place}/{name}"] for name in _STAGE)))
    return SavedVideo(**found, stages=tuple(stages))
