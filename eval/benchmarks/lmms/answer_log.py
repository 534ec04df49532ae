"""The log of answers: one line a question, on disk before the next question begins."""

import fcntl
import json
import math
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any, get_args, get_origin, get_type_hints

from eval.instruments.fingerprints import digest
from llava.errors import InputError


@dataclass(frozen=True)
class Entry:
    """What one question gave.

    Attributes:
        task: leaf task.
        doc_id: number of the question in its split.
        key: hash of all that the answer depends on; None for a bad video, which is never logged.
        prompt: the question as the stock model is given it.
        video: the file.
        video_sha256: of its content; None if there is none.
        answer: the model's text; None for a bad video.
        tokens: visual tokens ``before`` compression, ``before_llm``, ``inside_llm`` (behind the last inner stage) and
            ``layer_mean`` over the decoder's layers.
        reader: who decoded the video.
        frames: how many frames were shown to the model.
        frames_sha256: of their indices.
        seconds: from the question's turn to its answer; what was done ahead of its turn does not count.
        bad_video: why the video could not be used; None for a good one.
    """

    task: str
    doc_id: int
    key: str | None
    prompt: str
    video: str | None
    video_sha256: str | None = None
    answer: str | None = None
    tokens: dict[str, float] | None = None
    reader: str | None = None
    frames: int | None = None
    frames_sha256: str | None = None
    seconds: float = 0.0
    bad_video: str | None = None


@dataclass
class Served:
    """The answers of one process and what they were made with.

    Attributes:
        setup: what every answer depends on besides the question and the method.
        setup_key: hash of ``setup`` and the method's settings.
        config: the run's configuration, every field spelled out.
        checkpoint: hashes of its files.
        entries: by (task, doc_id).
        computed: questions answered by the model in this run.
        resumed: questions whose answer was in the log.
        encoded: how often a video went through the vision tower.
    """

    setup: dict[str, Any]
    setup_key: str
    config: dict[str, Any]
    checkpoint: dict[str, Any]
    entries: dict[tuple[str, int], Entry] = field(default_factory=dict)
    computed: int = 0
    resumed: int = 0
    encoded: int = 0


_DIGEST = "sha256"  # of the rest of a line
_KINDS = {entry.name: get_type_hints(Entry)[entry.name] for entry in fields(Entry)}


def _fits(value: Any, kind: Any) -> bool:
    """Whether a JSON value is of the type of a field; true and false are no numbers."""
    if get_args(kind) and get_origin(kind) is not dict:
        return any(_fits(value, each) for each in get_args(kind))
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(_fits(each, float) for each in value.values())
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) if kind is float else type(value) is kind


def entry_of(raw: Any) -> Entry | None:
    """An entry from its JSON object; None if fields lack, are too many or of another type."""
    if not isinstance(raw, dict) or set(raw) != set(_KINDS):
        return None
    return Entry(**raw) if all(_fits(raw[name], kind) for name, kind in _KINDS.items()) else None


def _parse(line: bytes) -> Entry | str:
    """An entry, or why a line cannot be used: not written to its end, edited, or of another version."""
    try:
        raw: Any = json.loads(line)
        said = raw.pop(_DIGEST, None) if isinstance(raw, dict) else None
        if said is None:
            return "has no digest"
        if said != digest(raw):
            return "was changed after it was written"
        return entry_of(raw) or "has fields of another version"
    except (ValueError, TypeError, OverflowError, RecursionError):
        return "is damaged"


class AnswerLog:
    """Answers by key. One process writes one file; the files of all processes of a folder are read.

    Args:
        folder: where the files lie; made if absent.
        rank: number of the process.
        name: of its file instead of ``rank-RANK``, which no other process ever writes: no file lock is taken.

    Raises:
        InputError: if another process writes this file now, or the folder cannot be made.
    """

    def __init__(self, folder: Path, rank: int = 0, name: str | None = None) -> None:
        self.folder = folder
        self.guard: Callable[[], None] = lambda: None  # called before an answer is written, may refuse
        path = folder / f"{name or f'rank-{rank}'}.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab")
        except OSError as error:
            raise InputError(f"{path} cannot be written ({error.strerror}): name another folder") from None
        try:
            if name is None:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise InputError(f"{path} is being written by another run: wait for it, or name another folder") from None
        self._entries: dict[str, Entry] = {}
        for other in sorted(folder.glob("rank-*.jsonl")):
            self._read(other)
        self._end_torn_line(path)

    def _read(self, path: Path) -> None:
        """Take the entries of a file; lines that cannot be used are told, and their answers computed again."""
        refused = []
        for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
            entry = _parse(line) if line.strip() else None
            if isinstance(entry, str):
                refused.append(f"{path}, line {number} {entry}")
            elif entry is not None and entry.key is not None:
                self._entries[entry.key] = entry
        if refused:
            more = f", and {len(refused) - 1} more lines cannot be used" if len(refused) > 1 else ""
            sys.stderr.write(f"{refused[0]}{more}: computed again\n")

    def _end_torn_line(self, path: Path) -> None:
        """What is appended to half a line would be lost with it."""
        content = path.read_bytes()
        if content and not content.endswith(b"\n"):
            self._write(b"\n")

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()
        os.fsync(self._file.fileno())

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> Entry | None:
        """The logged answer, or None."""
        return self._entries.get(key)

    def add(self, entry: Entry) -> None:
        """Log an answer; it is on the disk when this returns."""
        assert entry.key is not None
        self.guard()
        raw = asdict(entry)
        self._write(json.dumps({**raw, _DIGEST: digest(raw)}, ensure_ascii=False).encode() + b"\n")
        self._entries[entry.key] = entry

    def close(self) -> None:
        """Let others write the file."""
        self._file.close()

    def __enter__(self) -> "AnswerLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
